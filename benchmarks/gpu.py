"""On a GPU: mask search and gated activations against copies, sparse training steps against dense ones.

Groups of contestants are built, checked, timed and freed one after the other. Every contestant is
checked on random numbers drawn anew before it is timed; one that is wrong, fails or does not fit the
memory has a row that says so, and no time. Times are those between CUDA events around one call, with
the cache flushed before, while a kernel that sleeps gives the host time to launch it; contestants
take turns in every repeat. On the CPU, where kernels run in Triton's interpreter, only tiny sizes
are of use: to try this script.
"""

from __future__ import annotations

import gc
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import masksolve as ms
import masksolve.torch as mt

from .gpu_networks import Network, Task, feed_forward, transformer
from .gpu_peers import ITERATIONS, REGULARISATION, blocks_of, project, transport, tsenor
from .measure import Tell
from .report import Goal, finite, goal_record, middle, table, time_of

__all__ = [
    "Contestant", "groups", "measure", "quality", "reach", "to_markdown", "versions", "write",
]  # fmt: skip

Record = dict[str, Any]
Build = Callable[[], Iterable["Contestant"]]

PATTERNS = ((2, 4), (4, 8), (8, 16), (16, 32))
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
#: Scores other than Gaussian ones, searched at 8:16.
ZEROS, TAILS = "80 % zeros", "heavy tails"

#: Blocks, drawn at random, in which a mask is compared with the best.
_LOOKED = 4096
#: The launches of a call are hidden behind a sleep of at most so many ms.
_LONGEST_SLEEP = 50.0


def _nothing() -> None:
    pass


def _unchecked(_: Any) -> Record:
    return {}


@dataclass(frozen=True)
class Contestant:
    """One thing to time.

    Parameters
    ----------
    name : str
    call : callable
        What is timed.
    check : callable
        Raises AssertionError if the call's answer is wrong; returns what it found out:
        ``kept_share`` of the score, ``error`` against the best mask, ``note``.
    prepare : callable
        Comes before every call, untimed.
    moved, flops : int
        Bytes read and written, and operations, where a rate makes sense.
    execution : sequence of str
        How each layer of a network computes.
    """

    name: str
    call: Callable[[], Any]
    check: Callable[[Any], Record] = _unchecked
    prepare: Callable[[], object] = _nothing
    moved: int = 0
    flops: int = 0
    execution: Sequence[str] = ()


# ---- who takes part


def groups(sizes: Sequence[int], device: str, seed: int) -> Iterator[tuple[str, Build]]:
    """Yield all groups by name, each with what builds its contestants; the machine's limits first."""
    yield "limits", partial(_limits, device)
    for size in sizes:
        draw = partial(_Draw, size, device, seed)
        for dtype in DTYPES:
            yield f"{size}² {dtype}", partial(_searches, draw, dtype)
        for dtype in DTYPES:
            for kind in (ZEROS, TAILS):
                yield f"{size}² {dtype}, {kind}", partial(_hard_search, draw, dtype, kind)
        for dtype in DTYPES:
            yield f"gated {size}² {dtype}", partial(_activations, draw, dtype, backward=False)
            yield (
                f"gated backward {size}² {dtype}",
                partial(_activations, draw, dtype, backward=True),
            )
        yield f"pack {size}² bfloat16", partial(_packing, draw)
        tokens = 8192 if device == "cuda" else 16
        yield f"FFN {size}", partial(_networks, draw, feed_forward, tokens)
        batch = 64 if device == "cuda" else 2
        yield f"transformer {size}", partial(_networks, draw, transformer, batch)


class _Draw:
    """Random numbers of one group."""

    def __init__(self, size: int, device: str, seed: int) -> None:
        self.size, self.device, self.seed = size, device, seed
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, generator=self.generator)

    def scores(self, kind: str) -> Tensor:
        """Gaussian ones with zeros for four of five, or Student's t with 3 degrees of freedom."""
        W = self.normal(self.size, self.size)
        if kind == ZEROS:
            return W * (torch.rand(W.shape, device=self.device, generator=self.generator) > 0.8)
        return W / self.normal(3, *W.shape).square().mean(0).sqrt()


def _limits(device: str) -> Iterator[Contestant]:
    """Yield what nothing is faster than: a copy of much memory, and a large dense product."""
    yield _copy((1 << 31) if device == "cuda" else 1 << 20, device)
    size = 8192 if device == "cuda" else 64
    A, B = torch.randn(2, size, size, dtype=torch.bfloat16, device=device)
    yield Contestant(f"dense product {size}³, bfloat16", lambda: A @ B, flops=2 * size**3)


def _copy(moved: int, device: str) -> Contestant:
    """Return a copy that reads and writes so many bytes together."""
    half = moved // 2
    memory = torch.randint(256, (2 * half,), dtype=torch.uint8, device=device)
    return Contestant("copy", lambda: memory[:half].copy_(memory[half:]), moved=moved)


def _searches(draw: Callable[[], _Draw], dtype: str) -> Iterator[Contestant]:
    """Yield mask searches of a Gaussian matrix, and their peers."""
    from masksolve.torch.gpu import two_four

    drawn = draw()
    W = drawn.normal(drawn.size, drawn.size).to(DTYPES[dtype])
    moved, seed = W.nbytes + W.numel(), drawn.seed
    yield _copy(moved, drawn.device)
    yield Contestant(
        "2:4, all patterns", lambda: two_four.find_masks(W[None])[0][0],
        lambda mask: quality(W, mask, 2, 4, seed), moved=moved,
    )  # fmt: skip
    if W.is_cuda and dtype == "bfloat16":
        yield Contestant(
            "2:4, PyTorch's tile kernel (greedy, and packing)", lambda: _tile(W),
            lambda found: _quality_of_tile(W, found[4], seed),
        )  # fmt: skip
    for n, m in PATTERNS[1:]:
        yield _flow(W, n, m, seed)
        if dtype == "bfloat16":
            yield from _peers(W, n, m, seed)


def _hard_search(draw: Callable[[], _Draw], dtype: str, kind: str) -> Iterator[Contestant]:
    drawn = draw()
    W = drawn.scores(kind).to(DTYPES[dtype])
    yield _copy(W.nbytes + W.numel(), drawn.device)
    yield _flow(W, 8, 16, drawn.seed)


def _flow(W: Tensor, n: int, m: int, seed: int) -> Contestant:
    from masksolve.torch.gpu import flow

    return Contestant(
        f"{n}:{m}, flow", lambda: flow.find_masks(W[None], n, m)[0][0],
        lambda mask: quality(W, mask, n, m, seed),
    )  # fmt: skip


def _peers(W: Tensor, n: int, m: int, seed: int) -> Iterator[Contestant]:
    check = partial(quality, W, n=n, m=m, seed=seed, best=False)
    name = f"{n}:{m}, TSENOR"
    yield Contestant(
        f"{name}, transport alone", lambda: transport(blocks_of(W.float().abs(), m), n)
    )
    yield Contestant(name, lambda: tsenor(W, n, m), check)
    if W.is_cuda:
        compiled = torch.compile(project, dynamic=False)
        yield Contestant(f"{name}, torch.compile", lambda: tsenor(W, n, m, compiled), check)


def _tile(W: Tensor) -> Any:
    return torch._sparse_semi_structured_tile(
        W, algorithm="largest_abs_values_greedy", use_cutlass=False
    )


def _quality_of_tile(W: Tensor, bits: Tensor, seed: int) -> Record:
    """Judge what the tile kernel keeps, which PyTorch itself decodes."""
    try:
        kept = torch._sparse_semi_structured_apply_dense(W, bits)
    except RuntimeError as error:
        return {"note": f"what it keeps cannot be told: {_first_line(error)}"}
    return quality(W, kept != 0, 2, 4, seed, degree="at_most", best=False)


def _activations(draw: Callable[[], _Draw], dtype: str, *, backward: bool) -> Iterator[Contestant]:
    """Yield gated activations, or their backward passes alone."""
    drawn = draw()
    gates = drawn.normal(drawn.size, 2 * drawn.size).to(DTYPES[dtype])
    upstream = drawn.normal(drawn.size, drawn.size).to(DTYPES[dtype])
    moved = gates.nbytes * (5 if backward else 3) // 2  # read 3d and written 2d; read 2d, written d
    yield _copy(moved, drawn.device)
    close: dict[str, Any] = (
        {"rtol": 2e-2, "atol": 1e-3} if dtype == "bfloat16" else {"rtol": 1e-4, "atol": 1e-5}
    )
    for name, ours, activation in (("geglu", mt.geglu, F.gelu), ("swiglu", mt.swiglu, F.silu)):
        ways: dict[str, Callable[[Tensor], Tensor]] = {"": ours, ", eager": _eager(activation)}
        if gates.is_cuda:
            ways[", torch.compile"] = torch.compile(_eager(activation), dynamic=False)
        exact = _Pullback(_eager(activation), gates.double(), upstream.double())
        expected = exact.whole() if backward else exact.output().detach()

        def judge(found: Tensor, expected: Tensor = expected) -> Record:
            torch.testing.assert_close(found.double(), expected, **close)
            return {}

        for layout, x, gradient in (
            ("", gates, upstream), (", column-major", _turned(gates), _turned(upstream))
        ):  # fmt: skip
            for way, function in ways.items():
                if backward:
                    back = _Pullback(function, x, gradient)
                    call, prepare = back.backward, back.forward
                else:
                    call, prepare = partial(function, x), _nothing
                yield Contestant(f"{name}{way}{layout}", call, judge, prepare, moved)


def _eager(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def gated(x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return activation(gate) * value

    return gated


def _turned(matrix: Tensor) -> Tensor:
    return matrix.t().contiguous().t()


class _Pullback:
    """The backward pass of a function, apart from its forward pass."""

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor) -> None:
        self.function, self.x, self.upstream = function, x.detach().requires_grad_(), upstream

    def output(self) -> Tensor:
        return self.function(self.x)

    def forward(self) -> None:
        self._ready = self.output()

    def backward(self) -> Tensor:
        (gradient,) = torch.autograd.grad(self._ready, self.x, self.upstream)
        return gradient

    def whole(self) -> Tensor:
        self.forward()
        return self.backward()


def _packing(draw: Callable[[], _Draw]) -> Iterator[Contestant]:
    """Yield the packing of one square matrix; products with the identity show what is in it."""
    drawn = draw()
    size = drawn.size
    one = torch.eye(size, dtype=torch.bfloat16, device=drawn.device)
    layer = Task(lambda: nn.Linear(size, size, bias=False), one, lambda output: (output, one))
    network = Network(layer, "sparse", drawn.seed)
    square = cast("mt.SparseLinear", network.model)
    square.least_products = 1  # at any size
    if network.kind != "sparse":
        raise RuntimeError(f"not sparse: {network.report[0].reason}")

    def judge(_: None) -> Record:
        network.clear()
        network.both()
        left, weight = network.left(), square.weight
        if not torch.equal(left["output"].T, weight):
            raise AssertionError("the packed matrix is another")
        if not torch.equal(left["gradient of the input"], weight):
            raise AssertionError("the packed transpose is another")
        return {}

    yield Contestant("pack", network.pack, judge, execution=_execution(network))


def _networks(
    draw: Callable[[], _Draw], task: Callable[..., Task], amount: int
) -> Iterator[Contestant]:
    """Yield passes and whole steps of a network: dense, and 2:4 as its layers really run."""
    drawn = draw()
    trained = task(drawn.size, amount, drawn.device, drawn.generator)
    for execution in (None, "sparse"):
        yield from _passes(Network(trained, execution, drawn.seed), drawn.seed)


def _passes(network: Network, seed: int) -> Iterator[Contestant]:
    kind, execution = network.kind, _execution(network)

    def row(
        what: str,
        call: Callable[[], Any],
        check: Callable[[Any], object],
        prepare: Callable[[], object] = _nothing,
    ) -> Contestant:
        def checked(found: Any) -> Record:
            check(found)
            return {}

        return Contestant(f"{kind}, {what}", call, checked, prepare, execution=execution)

    def check_left(_: None) -> None:
        network.check(network.left)

    decay = network.training.decay if network.training else 0.0

    def check_step(_: None) -> None:
        network.check(network.step_once_more, decay)

    def check_masks(_: None) -> None:
        for layer in mt.masked_layers(network.model):
            quality(layer.weight.detach(), layer.masked.mask, 2, 4, seed)
        check_step(_)

    yield row(
        "forward", network.forward, lambda y: network.check(lambda: {"output": y}), network.pack
    )
    yield row("forward and backward", network.both, check_left, network.before_both)
    yield row("backward", network.backward, check_left, network.before_backward)
    yield row("step", network.step, check_step)
    if network.training:
        yield row("step with new masks", network.step_with_new_masks, check_masks)
    if "sparse" in kind:  # what it packs, the row of the forward pass has multiplied by
        yield row("pack", network.pack, _unchecked)


def _execution(network: Network) -> list[str]:
    return [str(layer) for layer in network.report] or ["dense"]


# ---- what is right


def quality(
    W: Tensor,
    mask: Tensor,
    n: int,
    m: int,
    seed: int,
    *,
    degree: str = "exact",
    best: bool = True,
) -> Record:
    """Judge a mask of |W|: degrees everywhere, optimality on random blocks from all over the matrix.

    Parameters
    ----------
    W, mask : (R, C) Tensor
    n, m : int
    seed : int
        Of the choice of blocks.
    degree : {"exact", "at_most"}
    best : bool
        Whether the mask must be the best, at the resolution of float32.

    Returns
    -------
    dict
        ``kept_share`` of the whole score; ``error``, the share of the best score that is lost in
        the blocks that were looked at.

    Raises
    ------
    AssertionError
        The mask is wrong.
    """
    if mask.shape != W.shape or mask.dtype != torch.bool:
        raise AssertionError(f"no mask of {tuple(W.shape)}: {mask.dtype}, {tuple(mask.shape)}")
    kept = blocks_of(mask, m)
    for axis, lines in ((2, "row"), (1, "column")):
        counts = kept.sum(axis, dtype=torch.int32)
        wrong = int(((counts != n) if degree == "exact" else (counts > n)).sum())
        if wrong:
            raise AssertionError(f"{wrong} {lines}s of {m}×{m} blocks do not keep {n}, {degree}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(kept), generator=generator)[:_LOOKED].to(W.device)
    scores = blocks_of(W, m)[chosen].double().abs().cpu()
    optimum = ms.find_mask(scores.reshape(-1, m).numpy(), n, m).reshape(scores.shape)
    top = (scores * torch.from_numpy(optimum)).sum((1, 2))
    found = (scores * kept[chosen].cpu()).sum((1, 2))
    # Kernels round scores to the last bit that float32 has for the largest of a block.
    slack = 2.0**-22 * n * m * scores.amax((1, 2))
    worse = int((found < top - slack).sum())
    if best and worse:
        raise AssertionError(f"{worse} of {len(top)} random blocks have a better {n}:{m} mask")
    whole = W.double().abs()
    share = float((whole * mask).sum() / whole.sum())
    return {"kept_share": share, "error": float(1 - found.sum() / top.sum())}


# ---- time


def measure(
    sizes: Sequence[int],
    repeats: int,
    device: str,
    tell: Tell,
    seed: int,
    only: Sequence[str] = ("*",),
) -> Iterator[list[Record]]:
    """Check and time group after group; yield a group's records, with one time in ms a repeat.

    Parameters
    ----------
    sizes : sequence of int
    repeats : int
    device : {"cuda", "cpu"}
    tell : callable
    seed : int
        Of all random numbers.
    only : sequence of str
        Patterns of the names of groups.
    """
    clock = _Clock(device)
    for name, build in groups(sizes, device, seed):
        if any(fnmatchcase(name, glob) for glob in only):
            yield _measure_group(name, build, repeats, clock, tell)
            clock.free()


def _measure_group(
    group: str, build: Build, repeats: int, clock: _Clock, tell: Tell
) -> list[Record]:
    try:
        entries = list(build())
    except Exception as error:
        return [{"group": group, "name": "all", "status": _fault(error), "ms": []}]
    records: list[Record] = [
        {"group": group, "name": entry.name, "status": "ok", "ms": [], "execution": entry.execution,
         "moved": entry.moved, "flops": entry.flops}
        for entry in entries
    ]  # fmt: skip
    leads = []
    for entry, record in zip(entries, records, strict=True):
        leads.append(0.0)
        try:
            entry.prepare()
            record |= entry.check(entry.call())
            leads[-1] = clock.lead(entry)
        except Exception as error:
            record["status"] = _fault(error)
    for repeat in range(repeats):
        tell(group, repeat, repeats)
        for turn in range(len(entries)):
            index = (turn + repeat) % len(entries)
            record = records[index]
            if record["status"] != "ok":
                continue
            try:
                record["ms"].append(clock.time(entries[index], leads[index]))
            except Exception as error:
                record |= {"status": _fault(error), "ms": []}
    return records


def _fault(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if isinstance(error, AssertionError):
        return f"WRONG, not timed: {_first_line(error)}"
    return f"failed: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


class _Clock:
    """Times one call at a time, in ms."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.flushed = torch.empty(64 << 20 if self.cuda else 1, dtype=torch.int32, device=device)
        self.cycles = _cycles_per_ms() if self.cuda else 0.0

    def lead(self, entry: Contestant) -> float:
        """Return how long the device is to sleep, so that the host has launched the call by then."""
        if not self.cuda:
            return 0.0
        entry.prepare()
        torch.cuda.synchronize()
        start = time.perf_counter()
        entry.call()
        spent = 1e3 * (time.perf_counter() - start)
        torch.cuda.synchronize()
        return min(_LONGEST_SLEEP, 0.2 + 1.5 * spent)

    def time(self, entry: Contestant, lead: float) -> float:
        """Time a call on the device, without its preparation."""
        entry.prepare()
        self.flushed.zero_()
        if not self.cuda:
            start = time.perf_counter()
            entry.call()
            return 1e3 * (time.perf_counter() - start)
        begin, end = _events()
        torch.cuda._sleep(int(lead * self.cycles))  # type: ignore[no-untyped-call]
        begin.record()
        entry.call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def free(self) -> None:
        """Give back the memory of a group, and what was compiled for it."""
        torch.compiler.reset()
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


def _cycles_per_ms() -> float:
    spent = []
    for _ in range(3):
        begin, end = _events()
        begin.record()
        torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]
        end.record()
        end.synchronize()
        spent.append(float(begin.elapsed_time(end)))
    return 1e7 / min(spent)


def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    return begin, end


# ---- report


def versions() -> dict[str, str]:
    """Return the versions of Triton, CUDA, cuSPARSELt and the driver."""
    try:
        import triton

        of_triton = triton.__version__
    except ImportError:
        of_triton = "missing"
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        answer = []
    return {
        "triton": of_triton,
        "CUDA": torch.version.cuda or "missing",
        "cuSPARSELt": str(torch.backends.cusparselt.version() or "missing"),
        "driver": answer[0] if answer else "unknown",
    }


def reach(records: Sequence[Record]) -> list[Goal]:
    """Form the goals: ratios within each repeat, and milliseconds."""
    found = {(record["group"], record["name"]): record for record in records}

    def times(group: str, name: str) -> list[float]:
        ms: list[float] = found.get((group, name), {}).get("ms", [])
        return ms

    def ratios(group: str, one: str, other: str) -> list[float]:
        pair = times(group, one), times(group, other)
        return [a / b for a, b in zip(*pair, strict=True)] if all(pair) else []

    def against_tsenor(name: str, must: str = "", aim: str = "") -> Goal:
        lost = found.get((large, name), {}).get("error")
        return Goal(
            f"{name}, against ours", must, aim, (10.0, 50.0) if must else (None, None),
            ratios(large, name, "8:16, flow"), better="high",
            note="" if lost is None else f"its error {lost:.3%}",
        )  # fmt: skip

    def steps(group: str, must: str = "", aim: str = "") -> Goal:
        """Divide a sparse step by a dense one; masks are found every 40 steps."""
        kinds = "dense, step", "sparse, step", "sparse, step with new masks"
        each = [times(group, kind) for kind in kinds]
        how = [r for r in records if r["group"] == group and r["name"].endswith(", step")]
        return Goal(
            f"{group.split()[0]} step at {group.split()[1]}, against dense", must, aim,
            (1.0, 1 / 1.3) if must else (None, None),
            [(39 * b + u) / 40 / d for d, b, u in zip(*each, strict=True)] if all(each) else [],
            note="; ".join(_note(r) for r in how if not r["name"].startswith("dense")),
        )  # fmt: skip

    def gated(what: str, way: str) -> Goal:
        return Goal(
            f"{way}, {what}, 8192² bfloat16, against a copy", "<= 1.3×", "1.1×", (1.3, 1.1),
            ratios(f"{what} {large}", way, "copy"),
        )  # fmt: skip

    large = "8192² bfloat16"
    return [
        Goal("2:4 exact, 8192² bfloat16, against a copy", "<= 2×", "1.3×", (2.0, 1.3), ratios(large, "2:4, all patterns", "copy")),
        Goal("8:16 exact, 8192², ms", "<= 12", "4", (12.0, 4.0), times(large, "8:16, flow")),
        Goal("16:32 exact, 8192², ms", "<= 30", "10", (30.0, 10.0), times(large, "16:32, flow")),
        *(
            Goal(f"8:16 exact, 8192², {kind}, ms", "", "", (None, None), times(f"{large}, {kind}", "8:16, flow"))
            for kind in (ZEROS, TAILS)
        ),
        against_tsenor("8:16, TSENOR", ">= 10×", "50×"),
        against_tsenor("8:16, TSENOR, torch.compile"),
        against_tsenor("8:16, TSENOR, transport alone"),
        *(
            gated(what, f"{name}{layout}")
            for what in ("gated", "gated backward")
            for name in ("geglu", "swiglu")
            for layout in ("", ", column-major")
        ),
        steps("FFN 4096", "< 1×", "1/1.3×"),
        steps("transformer 4096"),
    ]  # fmt: skip


def _note(record: Record) -> str:
    """Say of a record what went wrong, and how its layers ran."""
    layers = Counter(each.partition(": ")[2] or each for each in record.get("execution", ()))
    ran = "; ".join(how if how == "dense" else f"{count}× {how}" for how, count in layers.items())
    status = "" if record["status"] == "ok" else record["status"]
    return "; ".join(filter(None, (status, ran, record.get("note", ""))))


def _rate(record: Record) -> str:
    if not record["ms"]:
        return ""
    seconds = float(np.median(record["ms"])) / 1e3
    if record["flops"]:
        return f"{record['flops'] / seconds / 1e12:.4g} TFLOP/s"
    return f"{record['moved'] / seconds / 1e9:.4g} GB/s" if record["moved"] else ""


def to_markdown(data: Record) -> str:
    """Return the tables of a run as Markdown."""
    goals = []
    for goal in reach(data["records"]):
        median, quartiles = middle(goal.ratios)
        if goal.what.endswith("ms"):
            median = median.removesuffix("×")
        goals.append([goal.what, goal.must, goal.aim, median, quartiles, goal.verdict, goal.note])
    rows = [
        [
            record["group"],
            record["name"],
            time_of([value / 1e3 for value in record["ms"]]),
            _rate(record),
            f"{record['kept_share']:.4f}" if "kept_share" in record else "",
            f"{record['error']:.2e}" if "error" in record else "",
            _note(record),
        ]
        for record in data["records"]
    ]
    settings = data["settings"]
    lines = [
        "# masksolve on a GPU",
        "",
        f"Written by `python -m benchmarks gpu`; not to be edited. {data['device']}; "
        + ", ".join(f"{k} {v}" for k, v in data["versions"].items())
        + f"; {data['date']}. Random numbers by seed {settings['seed']}.",
        "",
        f"Medians of {settings['repeats']} interleaved repeats, with quartiles in brackets; ratios are "
        "formed within each repeat. Times are the device's, by events around a call with the cache "
        "flushed: the device sleeps before, until the host has launched the call, so launches are "
        f"hidden, up to {_LONGEST_SLEEP:g} ms of them; where the host waits within a call (TSENOR's "
        "swaps, new masks in training) and beyond the launches that a queue holds, they are not.",
        "",
        "A *copy* moves as many bytes as the scores and the mask have, or as a gated activation reads "
        "and writes; GB/s are those bytes over the time. *Kept share* is of the whole score; *error* "
        f"is what is lost of the best score in up to {_LOOKED} random blocks. Ours must be the best in "
        "each, at the resolution of float32.",
        "",
        "Networks are of bfloat16. FFN: 8192 tokens through size → 8 size → GEGLU (ours, for the dense "
        "one too) → size, with the gradient of the input. Transformer: two blocks, 64 × 128 tokens. A "
        "step is forward, backward and AdamW, and a sparse one packs all layers anew and adds the "
        "masked decay; *forward* and *backward* have their packing before. Rows are called sparse only "
        "if all masked layers ran so. In *Reach* masks are new every 40 steps. Output and all "
        "gradients, those of a step too, agree with the masked weights' in float32: within 3 %, or "
        "twice the error that dense products of bfloat16 make, and 20 % at most.",
        "",
        f"TSENOR: our re-expression in PyTorch, float32, {ITERATIONS} Dykstra iterations, entropy weight "
        f"{REGULARISATION:g} max|W|, greedy rounding, swaps until every line keeps n; *torch.compile*: "
        "its iterations are compiled.",
        "",
        "## Reach",
        "",
        *table(["what", "must", "aim", "measured", "quartiles", "verdict", "note"], goals),
        "",
        "## All",
        "",
        *table(["group", "what", "time", "rate", "kept share", "error", "note"], rows),
    ]
    return "\n".join(lines) + "\n"


def write(data: Record, folder: Path) -> list[Path]:
    """Write ``gpu.json`` and ``gpu.md``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "gpu.json", folder / "gpu.md"]
    goals = [goal_record(goal) for goal in reach(data["records"])]
    paths[0].write_text(
        json.dumps(finite({**data, "reach": goals}), indent=1, allow_nan=False) + "\n"
    )
    paths[1].write_text(to_markdown(data))
    return paths
