"""Which kernel finds which masks, and a tensor of any rank as the matrices that kernels take."""

from __future__ import annotations

from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...scores import nonfinite_error
from ...tiling import make_tiling
from .blocks import LARGEST_M

__all__ = ["choose", "find_mask"]

_DTYPES = torch.float16, torch.bfloat16, torch.float32


def choose(scores: Tensor, n: int, m: int, method: str, degree: str) -> str | None:
    """Name the module of the kernel for a checked call; ``"trivial"`` needs none, None: there is none."""
    if scores.dtype not in _DTYPES or scores.layout != torch.strided:
        return None
    if n in (0, m):
        return "trivial"
    if (n, m) == (2, 4) and method in ("auto", "conv"):
        return "two_four"
    if m <= LARGEST_M and method in ("auto", "flow") and degree == "exact":
        return "flow"
    return "greedy" if m <= LARGEST_M and method == "greedy" else None


def find_mask(
    scores: Tensor,
    n: int,
    m: int,
    method: str,
    degree: str,
    absolute: bool,
    axes: tuple[int, int],
    remainder: str,
) -> Tensor:
    """Find the mask of a tensor by the kernel that `choose` names.

    Parameters
    ----------
    scores, n, m, method, degree, absolute, axes, remainder
        As in `masksolve.torch.find_mask`, such that `choose` names something.

    Returns
    -------
    Tensor
        Boolean, in the shape and memory order of `scores`.

    Raises
    ------
    ShapeError, OptionError
        As in `masksolve.find_mask`.
    NonFiniteError
        A score is not finite. That is looked at once, when the kernel is done.
    """
    kernel = choose(scores, n, m, method, degree)
    tiling = make_tiling(tuple(scores.shape), m, axes=axes, remainder=remainder)
    scores = scores.detach().resolve_neg()
    moved = scores.movedim(tiling.axes, (-2, -1))
    matrices = moved.reshape(prod(tiling.batch_shape), *tiling.matrix_shape)
    exact = degree == "exact"
    options: dict[str, Any] = {"exact": exact, "absolute": absolute}
    if kernel == "trivial":
        found, bad = _all_or_none(matrices, n, **options)
    elif kernel == "two_four":
        found, _, bad = _kernel(kernel)(matrices, **options)
    elif kernel == "flow":
        found, _, bad = _kernel(kernel)(matrices, n, m, absolute=absolute)
    else:
        found, bad = _kernel(kernel)(matrices, n, m, **options)
    if bad.item():
        raise nonfinite_error(scores.float().cpu().numpy())
    mask = found.reshape(moved.shape).movedim((-2, -1), tiling.axes)
    like = torch.empty_like(scores, dtype=torch.bool, device="meta")
    if mask.stride() == like.stride():
        return mask
    return torch.empty_like(scores, dtype=torch.bool).copy_(mask)


def _kernel(name: str | None) -> Any:
    return import_module(f".{name}", __package__).find_masks


def _all_or_none(scores: Tensor, n: int, *, exact: bool, absolute: bool) -> tuple[Tensor, Tensor]:
    bad = ~scores.isfinite().all()
    if n > 0 and not (exact or absolute):
        return scores >= 0, bad
    return torch.full_like(scores, n > 0, dtype=torch.bool), bad
