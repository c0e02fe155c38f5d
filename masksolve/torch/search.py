"""find_mask and solve for tensors: the core's words, a boolean tensor on the tensor's own device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import find as core
from ..bands import Progress
from ..errors import DtypeError, MissingDependencyError, OptionError
from ..methods import BlockSolver
from ..pattern import Degree, check_degree
from ..solution import MaskSolution
from ..tiling import Remainder
from .distributed import is_sharded

__all__ = ["TensorSolution", "find_mask", "solve"]


@dataclass(frozen=True, eq=False)
class TensorSolution(MaskSolution):
    """A `masksolve.MaskSolution` whose mask is a boolean tensor on the device of the scores."""

    mask: Tensor  # type: ignore[assignment]


def find_mask(
    scores: Tensor,
    n: int,
    m: int,
    *,
    method: str | BlockSolver = "auto",
    backend: str | None = None,
    degree: Degree = "exact",
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    workers: int | None = None,
) -> Tensor:
    r"""Find the n:m mask of a tensor that keeps the largest score; see `masksolve.find_mask`.

    .. math:: \max_x \sum_{ij} |w_{ij}| x_{ij}

    Parameters
    ----------
    scores : Tensor
        Real numbers of any dtype that NumPy has, or bfloat16. Tensors of the CPU are read where
        they are; those of other devices go to the CPU and the mask comes back, with one warning.
    n, m, method, backend, degree, absolute, axes, remainder, workers
        As in `masksolve.find_mask`.

    Returns
    -------
    Tensor
        Boolean, of the shape and on the device of `scores`; True = kept.

    Raises
    ------
    DtypeError
        `scores` is no tensor, or of a kind or dtype that has no scores.
    OptionError
        `scores` is a DTensor; and as in `masksolve.find_mask`.
    PatternError, MethodError, ShapeError, NonFiniteError
        As in `masksolve.find_mask`.

    Notes
    -----
    No gradient flows through a mask. To ``torch.compile`` the search is one opaque operator,
    ``torch.ops.masksolve.find_mask``; but a caller's own block solver is not.

    Examples
    --------
    >>> W = torch.tensor([[5.0, 0, 0], [0, 5, 5], [0, 5, 5]])
    >>> find_mask(W, n=2, m=3, degree="at_most").int().tolist()
    [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    """
    if not isinstance(scores, Tensor):
        raise DtypeError(
            f"scores must be a torch.Tensor, got {type(scores).__name__}; "
            f"masksolve.find_mask takes arrays"
        )
    _refuse_sharded(scores)
    if not isinstance(method, str):
        return _find(scores, n, m, method, backend, degree, absolute, axes, remainder, workers)
    options = backend, check_degree(degree), bool(absolute), list(axes), remainder, workers
    mask: Tensor = _find_mask(scores.detach(), n, m, method, *options)
    return mask


def _find(
    scores: Tensor,
    n: int,
    m: int,
    method: str | BlockSolver,
    backend: str | None,
    degree: str,
    absolute: bool,
    axes: Sequence[int],
    remainder: str,
    workers: int | None,
) -> Tensor:
    mask = core.find_mask(
        _as_array(scores), n, m,
        method=method, backend=backend, degree=degree, absolute=absolute,  # type: ignore[arg-type]
        axes=tuple(axes), remainder=remainder, workers=workers,  # type: ignore[arg-type]
    )  # fmt: skip
    return torch.from_numpy(mask).to(scores.device)


@torch.library.custom_op("masksolve::find_mask", mutates_args=())
def _find_mask(
    scores: Tensor,
    n: int,
    m: int,
    method: str,
    backend: str | None,
    degree: str,
    absolute: bool,
    axes: Sequence[int],
    remainder: str,
    workers: int | None,
) -> Tensor:
    # Kernels of a device's own are registered with this operator, for that device.
    return _find(scores, n, m, method, backend, degree, absolute, axes, remainder, workers)


@_find_mask.register_fake
def _(scores: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def solve(
    scores: Tensor,
    n: int,
    m: int,
    *,
    method: str | BlockSolver = "auto",
    backend: str | None = None,
    degree: Degree = "exact",
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    warm_start: MaskSolution | None = None,
    workers: int | None = None,
    progress: Progress = False,
) -> TensorSolution:
    """Find the mask and its proof; see `masksolve.solve`.

    Parameters
    ----------
    scores : Tensor
        As in `find_mask`.
    warm_start : MaskSolution, optional
        An earlier solution for such a tensor, as this or `masksolve.solve` returned it.
    n, m, method, backend, degree, absolute, axes, remainder, workers, progress
        As in `masksolve.solve`.

    Returns
    -------
    TensorSolution
        Its mask on the device of `scores`; all else as the core has it.

    Examples
    --------
    >>> solution = solve(torch.randn(64, 64), n=4, m=8)
    >>> solution.mask.dtype, solution.gap
    (torch.bool, 0.0)
    """
    found = core.solve(
        _as_array(scores), n, m,
        method=method, backend=backend, degree=degree, absolute=absolute, axes=axes,
        remainder=remainder, warm_start=warm_start, workers=workers, progress=progress,
    )  # fmt: skip
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    values["mask"] = torch.from_numpy(found.mask).to(scores.device)
    return TensorSolution(**values)


def _as_array(tensor: Tensor) -> NDArray[Any]:
    """Return the numbers of a tensor as an array: those of the CPU without a copy."""
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"scores must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise DtypeError(
            f"scores must be a dense tensor, got one of layout {tensor.layout}, dtype "
            f"{tensor.dtype}; to_dense() or dequantize() makes one"
        )
    if tensor.is_meta:
        raise DtypeError("scores must hold numbers, got a tensor of the device 'meta'")
    _refuse_sharded(tensor)
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.device.type != "cpu":
        _warn_of_device(tensor.device.type)
        tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_bfloat16())
    try:
        return np.asarray(tensor.numpy())
    except TypeError as error:
        raise DtypeError(
            f"scores of dtype {tensor.dtype} are not supported; convert them, say with .float()"
        ) from error


def _refuse_sharded(scores: Tensor) -> None:
    # Gathering here unasked would hang wherever not all processes call.
    if is_sharded(scores):
        raise OptionError(
            "scores is a DTensor, of which this process holds a part; a mask is found for the "
            "whole: give its full_tensor(), on all processes"
        )


@cache
def _warn_of_device(device: str) -> None:
    warnings.warn(
        f"masks of tensors on the device {device!r} are found on the CPU, for which the scores are "
        f"copied there and the mask back (said once)",
        UserWarning,
        stacklevel=2,
    )


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingDependencyError(
            f'bfloat16 tensors need the package ml-dtypes: pip install "masksolve[torch]" ({error})'
        ) from error
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found
