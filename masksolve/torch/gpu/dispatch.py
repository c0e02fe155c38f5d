"""Which kernel finds which masks, and a tensor of any rank as the matrices that kernels take."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...pattern import Pattern
from ...scores import nonfinite_error
from ...tiling import Tiling, make_tiling
from .blocks import LARGEST_M

__all__ = ["as_matrices", "choose", "find_mask", "find_masked_weight", "solve"]

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
    matrices = as_matrices(scores, tiling)
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
    _refuse_bad(bad, scores)
    return _like(found, scores, tiling)


def find_masked_weight(weight: Tensor, tiling: Tiling) -> tuple[Tensor, Tensor]:
    """Find the 2:4 mask of a weight and the masked weight, in one pass; errors as in `find_mask`."""
    weight = weight.detach().resolve_neg()
    with _on(weight.device):
        found, masked, bad = _kernel("two_four")(as_matrices(weight, tiling), masked=True)
    _refuse_bad(bad, weight)
    return _like(found, weight, tiling), _like(masked, weight, tiling)


def solve(
    scores: Tensor,
    pattern: Pattern,
    tiling: Tiling,
    absolute: bool,
    start: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find optimal masks by the flow kernel, from column prices and a mask if given.

    Returns
    -------
    mask, prices, finite, matrices : Tensor
        In the shape of `scores`; (blocks, m); whether all scores are finite; the scores as matrices.
    """
    from .flow import Start

    scores = scores.resolve_neg()
    matrices = as_matrices(scores, tiling)
    begin = None
    if start is not None:
        begin = Start(start[0].contiguous(), as_matrices(start[1], tiling).contiguous())
    with _on(scores.device):
        found, prices, bad = _kernel("flow")(
            matrices, pattern.n, pattern.m, absolute=absolute, start=begin, want_prices=True
        )
    return _like(found, scores, tiling), prices, bad[0] == 0, matrices


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on a device: Triton takes the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def as_matrices(tensor: Tensor, tiling: Tiling) -> Tensor:
    """Return a tensor as the matrices (K, R, C) that kernels take."""
    moved = tensor.movedim(tiling.axes, (-2, -1))
    return moved.reshape(prod(tiling.batch_shape), *tiling.matrix_shape)


def _like(found: Tensor, scores: Tensor, tiling: Tiling) -> Tensor:
    """Return matrices in the shape and memory order of the scores."""
    shape = *tiling.batch_shape, *tiling.matrix_shape
    turned = found.reshape(shape).movedim((-2, -1), tiling.axes)
    like = torch.empty_like(scores, dtype=found.dtype, device="meta")
    if turned.stride() == like.stride():
        return turned
    return torch.empty_like(scores, dtype=found.dtype).copy_(turned)


def _refuse_bad(bad: Tensor, scores: Tensor) -> None:
    if bad.item():
        raise nonfinite_error(scores.float().cpu().numpy())


def _kernel(name: str | None) -> Any:
    return import_module(f".{name}", __package__).find_masks


def _all_or_none(scores: Tensor, n: int, *, exact: bool, absolute: bool) -> tuple[Tensor, Tensor]:
    bad = ~scores.isfinite().all()
    if n > 0 and not (exact or absolute):
        return scores >= 0, bad
    return torch.full_like(scores, n > 0, dtype=torch.bool), bad
