"""Row-wise n:m masks: what a constraint on rows alone keeps, to measure transposable masks by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bands import check_workers, run_bands
from .pattern import Pattern
from .scores import as_real_array, nonfinite_error
from .tiling import Band, Remainder, make_tiling

__all__ = ["find_row_mask"]

_BAND_ENTRIES = 1 << 18


def find_row_mask(
    scores: Any,
    n: int,
    m: int,
    *,
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    workers: int | None = None,
) -> NDArray[np.bool_]:
    r"""Keep the n largest of every m consecutive entries of each row; columns are free.

    In every group g of m entries, independently,

    .. math::

        \max_x \; & \sum_{j \in g} s_j x_j, \\
        & x_j \in \{0, 1\}, \quad \sum_{j \in g} x_j = n

    This is the n:m mask that a matrix product needs, without its transpose. It keeps at least
    what a transposable mask of the same pattern keeps; `masksolve.kept_share` tells how much.

    Parameters
    ----------
    scores : (..., R, C) array_like, real
        As in `masksolve.find_mask`.
    n, m : int
        Entries kept of every m, ``0 <= n <= m``.
    absolute : bool
        Keep the largest magnitudes; with False, the largest scores, sign included.
    axes : (int, int)
        As in `masksolve.find_mask`: rows run along the second of them. Exchange the two for
        groups along columns.
    remainder : {"pad", "error"}
        A ragged end of the rows is treated as if padded by zero scores, or refused.
    workers : int, optional
        Threads; by default the cores that this process may use. Does not change the mask.

    Returns
    -------
    bool array of the shape of `scores`
        True = kept. Scores are compared as they are, and of equal ones the first is kept; a
        zero of the padding comes after all others.

    Raises
    ------
    PatternError, OptionError, ShapeError, DtypeError, NonFiniteError
        Each names what was given and what was expected.

    Examples
    --------
    >>> W = np.array([[4, -3, 1, 2], [1, 1, 1, 1]])
    >>> find_row_mask(W, n=2, m=4).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    >>> find_row_mask(W, n=2, m=4, absolute=False).astype(int)
    array([[1, 0, 0, 1],
           [1, 1, 0, 0]])
    """
    pattern, array = Pattern(n, m), as_real_array(scores)
    n, m = pattern.n, pattern.m
    tiling = make_tiling(array.shape, m, axes=axes, remainder="pad")
    # How many rows there are does not matter: only their length may be refused.
    rows_fit = [m if axis == tiling.axes[0] else size for axis, size in enumerate(array.shape)]
    make_tiling(tuple(rows_fit), m, axes=axes, remainder=remainder)
    mask = np.empty_like(array, dtype=np.bool_, subok=False)

    def one_band(band: Band) -> None:
        values = _comparable(tiling.gather(array, band), absolute)
        if not np.isfinite(values).all():
            raise nonfinite_error(array)
        tiling.scatter(_largest(values, n), band, mask)

    run_bands(tiling.bands(_BAND_ENTRIES), one_band, workers=check_workers(workers))
    return mask


def _comparable(scores: NDArray[Any], absolute: bool) -> NDArray[Any]:
    """Return numbers of a dtype that NumPy sorts, in the order of the scores: none is rounded."""
    if scores.dtype.kind == "V":  # bfloat16 and its kin
        scores = scores.astype(np.float64)
    if not absolute:
        return scores
    sizes: NDArray[Any] = np.abs(scores)
    # The magnitude of the smallest integer is one too large for its own dtype.
    return sizes.view(f"u{sizes.itemsize}") if sizes.dtype.kind == "i" else sizes


def _largest(values: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """Mark the n largest of every row of blocks (B, m, m), the first among equals."""
    m = values.shape[2]
    # Backwards, so that a stable sort has the first of equal entries last.
    order = np.argsort(values[:, :, ::-1], axis=2, kind="stable")
    mask = np.zeros(values.shape, dtype=np.bool_)
    np.put_along_axis(mask, m - 1 - order[:, :, m - n :], True, axis=2)
    return mask
