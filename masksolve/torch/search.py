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
from ..bands import Progress, check_workers
from ..errors import DtypeError, MethodError, MissingDependencyError, OptionError, UnsupportedError
from ..methods import BlockSolver, find_method
from ..pattern import Degree, Pattern, check_degree
from ..solution import MaskSolution
from ..tiling import Remainder, make_tiling
from .distributed import is_sharded

__all__ = ["TensorSolution", "find_mask", "refuse_sharded", "solve", "triton_kernels"]

#: Pattern, method, backend, degree, absolute, axes, remainder, workers: what the operator takes.
_Call = tuple[int, int, str, str | None, str, bool, list[int], str, int | None]


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
        they are. For those of CUDA devices see the notes; others go to the CPU and the mask comes
        back, with one warning.
    n, m, method, degree, absolute, axes, remainder, workers
        As in `masksolve.find_mask`.
    backend : str, optional
        As in `masksolve.find_mask`; or ``"triton"``, which takes CUDA tensors and nothing to
        the CPU.

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
        As in `masksolve.find_mask`; and ``backend="triton"`` has no kernel for the call.
    MissingDependencyError
        ``backend="triton"`` and no package triton.

    Notes
    -----
    With triton installed and no other backend named, masks of float16, bfloat16 and float32
    tensors on CUDA devices are found there, on the current stream:

    - 2:4 of either degree (``"auto"``, ``"conv"``): the best of all masks, by sums of float32;
    - n:m with m <= 32, exactly n (``"auto"``, ``"flow"``): optimal for scores rounded to 24 bits
      relative to the largest of a block;
    - ``"greedy"`` with m <= 32: the core's mask;
    - n = 0 and n = m.

    Each is the same on every run; among equally good ones it may be another than the CPU's. All
    else goes to the CPU, with one warning. So far these kernels have run in Triton's interpreter
    and been compiled for a GPU, but never run on one.

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
    refuse_sharded(scores)
    if not isinstance(method, str):
        return _find(scores, n, m, method, backend, degree, absolute, axes, remainder, workers)
    call = n, m, method, backend, degree, bool(absolute), axes, remainder, workers
    # What is compiled may have symbols for sizes; then only the operator itself checks.
    checked = call if torch.compiler.is_compiling() else _checked(scores, *call)
    mask: Tensor = _find_mask(scores.detach(), *checked)
    return mask


def _checked(
    scores: Tensor,
    n: int,
    m: int,
    method: str,
    backend: str | None,
    degree: Any,
    absolute: bool,
    axes: Any,
    remainder: Any,
    workers: int | None,
) -> _Call:
    """Check a call in the core's words, and return it in the types of the operator."""
    pattern, degree = Pattern(n, m), check_degree(degree)
    find_method(method, None if backend == "triton" else backend, pattern, degree)
    if backend == "triton" and scores.device.type not in ("cuda", "meta"):
        raise MethodError(
            f"backend 'triton' takes tensors of a CUDA device, but scores is on "
            f"{scores.device.type!r}; leave backend out to have it found there"
        )
    tiling = make_tiling(tuple(scores.shape), pattern.m, axes=axes, remainder=remainder)
    threads = None if workers is None else check_workers(workers)
    options = degree, absolute, list(tiling.axes), remainder, threads
    return (pattern.n, pattern.m, method, backend, *options)


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


# It looks at the device once, for scores that are not finite: no part of a CUDA graph.
@torch.library.custom_op(
    "masksolve::find_mask", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,)
)
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
    return _find(scores, n, m, method, backend, degree, absolute, axes, remainder, workers)


@_find_mask.register_kernel("cuda")
def _(scores: Tensor, *call: Any) -> Tensor:
    with torch.cuda.device(scores.device):
        return _find_by_kernels(scores, *call)


def _find_by_kernels(scores: Tensor, *call: Any) -> Tensor:
    """Find a mask by the Triton kernel for it; if there is none, on the CPU."""
    checked = _checked(scores, *call)
    n, m, method, backend, degree, absolute, axes, remainder, _ = checked
    kernels = _kernels() if backend in (None, "triton") else None
    if kernels is not None and kernels.choose(scores, n, m, method, degree) is not None:
        options = method, degree, absolute, axes, remainder
        mask: Tensor = kernels.find_mask(scores, n, m, *options)
        return mask
    if backend != "triton":
        return _find(scores, *checked)
    triton_kernels()
    raise UnsupportedError(
        f"backend 'triton' has no kernel for method={method!r} and degree={degree!r} at {n}:{m}, "
        f"scores of dtype {scores.dtype}; leave backend out, and the CPU finds the mask"
    )


def triton_kernels() -> Any:
    """Return the module that chooses kernels.

    Raises
    ------
    MissingDependencyError
        Triton cannot be imported.
    """
    kernels = _kernels()
    if kernels is None:
        raise MissingDependencyError(
            "kernels on the device need the package triton, which cannot be imported; "
            "pip install triton"
        )
    return kernels


@cache
def _kernels() -> Any:
    """Return the module that chooses kernels, or None without triton."""
    try:
        from .gpu import dispatch
    except ImportError:
        return None
    return dispatch


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
    warm_start : TensorSolution or MaskSolution, optional
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
    if isinstance(warm_start, TensorSolution):
        mask: Any = warm_start.mask  # what is no array of numbers, the core refuses
        if isinstance(mask, Tensor) and mask.layout == torch.strided and not mask.is_meta:
            mask = mask.cpu().numpy()
        warm_start = MaskSolution(**_values(warm_start, mask))
    found = core.solve(
        _as_array(scores), n, m,
        method=method, backend=backend, degree=degree, absolute=absolute, axes=axes,
        remainder=remainder, warm_start=warm_start, workers=workers, progress=progress,
    )  # fmt: skip
    return TensorSolution(**_values(found, torch.from_numpy(found.mask).to(scores.device)))


def _values(solution: MaskSolution, mask: Any) -> dict[str, Any]:
    """Values of all fields of a solution, with another mask."""
    return {field.name: getattr(solution, field.name) for field in fields(solution)} | {
        "mask": mask
    }


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
    refuse_sharded(tensor)
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


def refuse_sharded(scores: Tensor) -> None:
    """Raise OptionError for a DTensor."""
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
