"""Linear layers and convolutions as products of rows: Y = X W^T for each group."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["from_rows", "groups_of", "input_rows", "output_rows", "to_rows"]

# Layers are typed Any: torch has no type for what its convolutions have in common.
# A batch is unfolded in parts of about so many numbers: an unfolded batch has one copy for each tap.
_PART = 1 << 23


def groups_of(module: Any) -> int:
    """Return how many independent products the layer is."""
    return 1 if isinstance(module, nn.Linear) else int(module.groups)


def to_rows(module: Any, weight: Tensor) -> Tensor:
    """Return a weight, or a mask of its shape, as (groups, outputs, inputs).

    The inputs of a convolution are those that one output sees: channel by channel, all taps.
    """
    groups = groups_of(module)
    if not _transposed(module):
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    # A transposed convolution is a convolution by the mirrored taps with exchanged channels.
    taps = list(range(2, weight.ndim))
    rows, *rest = weight.shape
    channels = weight.flip(taps).reshape(groups, rows // groups, *rest).transpose(1, 2)
    return channels.flatten(2)


def from_rows(module: Any, rows: Tensor, shape: torch.Size) -> Tensor:
    """Return (groups, outputs, inputs) as a weight of the given shape: the inverse of `to_rows`."""
    if not _transposed(module):
        return rows.reshape(shape)
    groups, outputs, _ = rows.shape
    channels = rows.reshape(groups, outputs, -1, *shape[2:]).transpose(1, 2).flatten(0, 1)
    return channels.flip(list(range(2, len(shape))))


def input_rows(module: Any, x: Tensor, output: Tensor) -> Iterator[Tensor]:
    """Yield what the outputs of a call see, in parts (positions, groups, inputs).

    Of the call's output only the shape is looked at: a transposed convolution may have been asked
    for one.
    """
    if isinstance(module, nn.Linear):
        yield _flat(x).unsqueeze(1)
        return
    axes = len(module.kernel_size)
    x, positions = _batched(x, axes), output.shape[-axes:]
    inputs = x.shape[1] * torch.Size(module.kernel_size).numel()
    for part in torch.split(x, max(1, _PART // (inputs * positions.numel()))):
        padded, strides = _padded(module, part, positions)
        for axis, (span, dilation, stride) in enumerate(
            zip(_spans(module), module.dilation, strides, strict=True)
        ):
            padded = padded.unfold(2 + axis, span, stride)[..., ::dilation]
        # Now (samples, channels, *positions, *taps).
        channels = padded.movedim(1, 1 + axes)
        rows = channels.shape[: 1 + axes].numel()
        yield channels.reshape(rows, module.groups, inputs // module.groups)


def output_rows(module: Any, y: Tensor) -> Tensor:
    """Return a call's output as (positions, groups, outputs)."""
    if not isinstance(module, nn.Linear):
        y = _batched(y, len(module.kernel_size)).movedim(1, -1)
    y, groups = _flat(y), groups_of(module)
    return y.reshape(len(y), groups, y.shape[1] // groups)


def _flat(x: Tensor) -> Tensor:
    return x.unsqueeze(0).flatten(0, -2)


def _transposed(module: Any) -> bool:
    return bool(getattr(module, "transposed", False))


def _batched(x: Tensor, axes: int) -> Tensor:
    return x.unsqueeze(0) if x.ndim == axes + 1 else x


def _spans(module: Any) -> list[int]:
    return [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]


def _padded(module: Any, x: Tensor, positions: torch.Size) -> tuple[Tensor, tuple[int, ...]]:
    """Return inputs that a convolution without padding takes, and its strides."""
    spans = _spans(module)
    if _transposed(module):
        spread = x.new_zeros(
            *x.shape[:2],
            *((q - 1) * s + 1 for q, s in zip(x.shape[2:], module.stride, strict=True)),
        )
        every: Any = tuple(slice(None, None, stride) for stride in module.stride)
        spread[..., *every] = x
        before = [span - 1 - p for span, p in zip(spans, module.padding, strict=True)]
        sides = [
            (left, length + span - 1 - left - size)
            for left, length, span, size in zip(
                before, positions, spans, spread.shape[2:], strict=True
            )
        ]
        return _pad(spread, sides, "constant"), (1,) * len(spans)
    if module.padding == "same":
        sides = [((span - 1) // 2, span // 2) for span in spans]
    elif module.padding == "valid":
        sides = [(0, 0)] * len(spans)
    else:
        sides = [(p, p) for p in module.padding]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return _pad(x, sides, mode), module.stride


def _pad(x: Tensor, sides: list[tuple[int, int]], mode: str) -> Tensor:
    if not any(chain.from_iterable(sides)):
        return x
    return pad(x, list(chain.from_iterable(reversed(sides))), mode=mode)  # last axis first
