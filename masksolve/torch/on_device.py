"""Optimal masks of CUDA tensors with what proves them, and 2:4 masks with the weights they leave: all on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    DtypeError,
    MethodError,
    MissingDependencyError,
    OptionError,
    UnsupportedError,
)
from ..pattern import Pattern
from ..tiling import Remainder, make_tiling
from .bounds import price_bound
from .masking import keep
from .search import find_mask, refuse_sharded, triton_kernels

__all__ = ["DeviceSolution", "find_masked_weight", "solve_on_device"]

_DEVICES = ("cuda",)


@dataclass(frozen=True, eq=False)
class DeviceSolution:
    """Masks that a kernel found, where the scores are. Nothing in here has waited for the device.

    Where `finite` is False, nothing else means anything.

    Parameters
    ----------
    mask : Tensor
        Boolean, in the shape of the scores; True = kept.
    prices : (blocks, m) float64 Tensor
        Column prices v of every block, blocks in row-major order, in the unit of the scores.
    objective : () float64 Tensor
        What the mask keeps.
    bound : () float64 Tensor or None
        What no mask exceeds, proven by the prices; None if it was not asked for.
    finite : () bool Tensor
        Whether all scores are finite.
    pattern : Pattern
    absolute : bool
    axes : (int, int)
    """

    mask: Tensor
    prices: Tensor
    objective: Tensor
    bound: Tensor | None
    finite: Tensor
    pattern: Pattern
    absolute: bool
    axes: tuple[int, int]

    @property
    def gap(self) -> Tensor:
        """``(bound - objective) / bound``, 0 where the bound is 0.

        Of scores of more than 24 bits relative to the largest of their block, what was rounded off.

        Raises
        ------
        OptionError
            The bound was not asked for.
        """
        if self.bound is None:
            raise OptionError(
                "this solution has no bound; solve_on_device(..., bound=True) proves one"
            )
        gap = (self.bound - self.objective) / self.bound
        return torch.where(self.bound != 0, gap, 0.0)


def solve_on_device(
    scores: Tensor,
    n: int,
    m: int,
    *,
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    warm_start: DeviceSolution | None = None,
    bound: bool = False,
) -> DeviceSolution:
    r"""Find optimal exact n:m masks of a CUDA tensor, with prices, and at will the bound they prove.

    .. math:: \max_x \sum_{ij} |w_{ij}| x_{ij}

    for scores rounded to 24 bits relative to the largest of their block: half a unit of
    :math:`2^{-23}` of it an entry is what a mask can be short of the best by. `solve` has the exact
    certificate, on the CPU.

    Parameters
    ----------
    scores : Tensor
        float16, bfloat16 or float32, on a CUDA device, with triton installed.
    n, m : int
        ``0 < n < m <= 32``.
    absolute, axes, remainder
        As in `find_mask`.
    warm_start : DeviceSolution, optional
        An earlier solution for such a tensor. Where its prices still prove its mask, that is all.
        The result is as optimal as without.
    bound : bool
        Prove a bound, in float64: several passes over the scores.

    Returns
    -------
    DeviceSolution
        Whether all scores were finite it tells by `finite`, and raises nothing: to look would wait.

    Raises
    ------
    PatternError, OptionError, ShapeError
        As in `find_mask`, of which NonFiniteError alone is never raised; `warm_start` is no solution
        for such a tensor.
    DtypeError, MethodError, UnsupportedError, MissingDependencyError
        Not a tensor, not on a CUDA device, a pattern or dtype that the kernel does not do; no triton.

    Notes
    -----
    The kernel has run in Triton's interpreter, and was compiled for a GPU, but never ran on one.

    Examples
    --------
    >>> W = torch.randn(1024, 1024, device="cuda")  # doctest: +SKIP
    >>> first = solve_on_device(W, 8, 16, bound=True)  # doctest: +SKIP
    >>> float(first.gap) < 1e-6  # doctest: +SKIP
    True
    >>> again = solve_on_device(W * 1.01, 8, 16, warm_start=first)  # doctest: +SKIP
    """
    pattern = Pattern(n, m)
    kernels = _kernels_for(scores, pattern)
    tiling = make_tiling(tuple(scores.shape), pattern.m, axes=axes, remainder=remainder)
    start = None
    if warm_start is not None:
        _check_start(warm_start, scores, pattern, bool(absolute), tiling.axes)
        start = warm_start.prices, warm_start.mask
    with torch.no_grad():
        mask, prices, finite, matrices = kernels.solve(
            scores.detach(), pattern, tiling, bool(absolute), start
        )
        sizes = matrices.abs() if absolute else matrices
        kept = kernels.as_matrices(mask, tiling)
        objective = torch.where(kept, sizes, 0).sum(dtype=torch.float64)
        proven = price_bound(sizes, prices, pattern.n, pattern.m) if bound else None
    return DeviceSolution(
        mask, prices, objective, proven, finite, pattern, bool(absolute), tiling.axes
    )


def _kernels_for(scores: Any, pattern: Pattern) -> Any:
    """Return the module of the kernels, if they can solve it."""
    if not isinstance(scores, Tensor):
        raise DtypeError(f"scores must be a torch.Tensor, got {type(scores).__name__}")
    refuse_sharded(scores)
    if scores.device.type not in _DEVICES:
        raise MethodError(
            f"solve_on_device takes tensors of a CUDA device, but scores is on "
            f"{scores.device.type!r}; solve() proves masks of any tensor, on the CPU"
        )
    kernels = triton_kernels()
    if kernels.choose(scores, pattern.n, pattern.m, "flow", "exact") != "flow":
        raise UnsupportedError(
            f"solve_on_device does 0 < n < m <= 32 and dense float16, bfloat16 and float32, "
            f"not {pattern} and {scores.dtype} of layout {scores.layout}; solve() does, on the CPU"
        )
    return kernels


def _check_start(
    start: Any, scores: Tensor, pattern: Pattern, absolute: bool, axes: Sequence[int]
) -> None:
    if not isinstance(start, DeviceSolution):
        raise OptionError(
            f"warm_start must be a DeviceSolution, as solve_on_device returns it, "
            f"got {type(start).__name__}; solve() takes a MaskSolution"
        )
    for name, was, now in (
        ("pattern", start.pattern, pattern),
        ("shape", tuple(start.mask.shape), tuple(scores.shape)),
        ("axes", tuple(start.axes), tuple(axes)),
        ("absolute", start.absolute, absolute),
        ("device", start.mask.device, scores.device),
    ):
        if was != now:
            raise OptionError(
                f"warm_start is a solution for {name} {was}, but this call has {name} {now}; "
                f"leave warm_start out"
            )


def find_masked_weight(
    weight: Tensor,
    n: int,
    m: int,
    *,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
) -> tuple[Tensor, Tensor]:
    """Find the mask of a weight, and the weight with zeros where it keeps nothing.

    Of 2:4 and CUDA tensors one kernel writes both in one pass; else, and in what ``torch.compile``
    compiles, it is `find_mask` and a product.

    Parameters
    ----------
    weight, n, m, axes, remainder
        As in `find_mask`, whose errors it raises.

    Returns
    -------
    mask, masked : Tensor
        Boolean, and of the dtype of `weight`; no gradient flows.

    Examples
    --------
    >>> mask, masked = find_masked_weight(torch.tensor([[4.0, 1, 3, 2], [1, 4, 2, 3]]), 2, 4)
    >>> masked.tolist()
    [[4.0, 0.0, 3.0, 0.0], [0.0, 4.0, 0.0, 3.0]]
    """
    if _in_one_pass(weight, Pattern(n, m)):
        tiling = make_tiling(tuple(weight.shape), 4, axes=axes, remainder=remainder)
        both: tuple[Tensor, Tensor] = triton_kernels().find_masked_weight(weight, tiling)
        return both
    mask = find_mask(weight, n, m, axes=axes, remainder=remainder)
    return mask, keep(weight.detach(), mask)


def _in_one_pass(weight: Any, pattern: Pattern) -> bool:
    if not isinstance(weight, Tensor) or torch.compiler.is_compiling():
        return False
    refuse_sharded(weight)
    if weight.device.type not in _DEVICES or pattern != Pattern(2, 4):
        return False
    try:
        kernels = triton_kernels()
    except MissingDependencyError:
        return False
    return bool(kernels.choose(weight, 2, 4, "auto", "exact") == "two_four")
