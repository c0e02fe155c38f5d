"""Proofs that a mask is valid and how good it is. Knows no solver."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CertificateError, DtypeError, MaskError, ShapeError
from .pattern import Degree, Pattern, check_degree
from .residual import Blocks, Cycle, Masks, block_objective, optimise, weak_bound
from .scores import (
    as_real_array,
    nonfinite_error,
    safe_ldexp,
    scaled_ratio,
    scaled_sum,
    to_fixed_point,
)
from .solution import Certificate, ImprovingCycle
from .tiling import Remainder, Tiling, make_tiling

__all__ = [
    "certify_mask",
    "check_certificate",
    "check_mask",
    "kept_per_block",
    "kept_share",
    "relative_gap",
]

_BAND_ENTRIES = 1 << 18
# Scores that are scaled together where there are no blocks, and pieces of them at a time.
_SHARE_SCORES, _SHARE_PIECES = 1 << 10, 1 << 8


def check_mask(
    mask: Any,
    n: int,
    m: int,
    *,
    degree: Degree = "exact",
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
) -> None:
    """Return if `mask` is a transposable n:m mask, else raise naming the first violation.

    Within every m×m block each row and each column must keep exactly `n` entries
    (``degree="exact"``) or at most `n` (``"at_most"``). A block that a ragged edge cuts short
    counts as exact if some filling of its zero padding makes it so: a line of r < m entries
    keeps at least ``n - (m - r)``.

    Parameters
    ----------
    mask : bool array of two or more dimensions
    n, m, degree, axes, remainder
        As in `masksolve.find_mask`.

    Raises
    ------
    MaskError
        A line of a block keeps too many or too few.
    DtypeError
        `mask` is not boolean.

    Examples
    --------
    >>> check_mask(np.eye(4, dtype=bool), n=1, m=4)
    >>> check_mask(np.triu(np.ones((2, 2), dtype=bool)), n=1, m=2)
    Traceback (most recent call last):
    ...
    masksolve.errors.MaskError: row 0 of block (0, 0) (array row 0, columns 0 to 1) keeps 2 of 2 entries, but 1:2 keeps exactly 1
    """
    pattern, degree = Pattern(n, m), check_degree(degree)
    n, m = pattern.n, pattern.m
    mask = _as_mask(mask)
    tiling = make_tiling(mask.shape, pattern.m, axes=axes, remainder=remainder, what="a mask")
    real_rows, real_columns = tiling.real_extent()
    for band in tiling.bands(_BAND_ENTRIES):
        blocks = tiling.gather(mask, band).reshape(*band.shape, m, m)
        for line, length in (
            ("row", real_columns[band.columns][None, None, :, None]),
            ("column", real_rows[band.rows][None, :, None, None]),
        ):
            kept = blocks.sum(axis=-1 if line == "row" else -2)
            bad = kept > n
            if degree == "exact":
                own = real_rows[band.rows] if line == "row" else real_columns[band.columns]
                own = own[:, None, None] if line == "row" else own[:, None]
                # Lines of the padding itself are nobody's.
                bad |= (kept < n) & (length == m) & (np.arange(m) < own)
            if bad.any():
                at = np.unravel_index(int(np.argmax(bad)), bad.shape)
                raise _line_error(tiling, band, line, at, int(kept[at]), pattern, degree)
        if degree == "exact":
            _complete_padding(blocks.reshape(-1, m, m), tiling, band, n)


def _line_error(
    tiling: Tiling, band: Any, line: str, at: Any, kept: int, pattern: Pattern, degree: Degree
) -> MaskError:
    matrix, row, column, index = (int(i) for i in at)
    matrix, row, column = (
        matrix + band.matrices.start,
        row + band.rows.start,
        column + band.columns.start,
    )
    batch = tuple(int(i) for i in np.unravel_index(matrix, tiling.batch_shape))
    m = pattern.m
    along, across = (column, row) if line == "row" else (row, column)
    size = tiling.matrix_shape[1 if line == "row" else 0]
    span = (along * m, min(size, along * m + m) - 1)
    other = "columns" if line == "row" else "rows"
    matrix_text = f" of matrix {batch}" if batch else ""
    word = "exactly" if degree == "exact" else "at most"
    return MaskError(
        f"{line} {index} of block {(*batch, row, column)} (array {line} {across * m + index}"
        f"{matrix_text}, {other} {span[0]} to {span[1]}) keeps {kept} of {span[1] - span[0] + 1} "
        f"entries, but {pattern} keeps {word} {pattern.n}"
    )


def kept_per_block(
    mask: Any,
    m: int,
    *,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
) -> NDArray[np.int64]:
    """Count the entries that a mask keeps in every m×m block.

    Parameters
    ----------
    mask : bool array of two or more dimensions
        Any mask, valid for a pattern or not.
    m : int
        Edge of the blocks.
    axes, remainder
        As in `masksolve.find_mask`.

    Returns
    -------
    (..., block_rows, block_columns) int64

    Raises
    ------
    PatternError, OptionError, ShapeError, DtypeError
        Each names what was given and what was expected.

    Examples
    --------
    >>> kept_per_block(np.eye(4, dtype=bool), m=2)
    array([[2, 0],
           [0, 2]])
    """
    m, mask = Pattern(0, m).m, _as_mask(mask)
    tiling = make_tiling(mask.shape, m, axes=axes, remainder=remainder, what="a mask")
    kept = np.empty(tiling.grid, dtype=np.int64)
    for band in tiling.bands(_BAND_ENTRIES):
        kept[band] = tiling.gather(mask, band).sum(axis=(1, 2)).reshape(band.shape)
    return kept.reshape(tiling.block_shape)


def kept_share(scores: Any, mask: Any, *, absolute: bool = True) -> float:
    r"""Share of the whole score that any mask keeps, of whatever constraint it is.

    .. math:: \sum_{ij} s_{ij} x_{ij} \, / \, \sum_{ij} s_{ij}

    where s is ``abs(scores)``. Both sums are formed in fixed point, and rounded once. Of each
    1024 scores, in index order, what lies more than 40 bits below the largest is rounded away:
    scores as small as that count as 0.

    Parameters
    ----------
    scores : array_like, real
        As in `masksolve.find_mask`, but of any shape.
    mask : bool array of the same shape
    absolute : bool
        Add up magnitudes; with False, the scores as they stand, sign included.

    Returns
    -------
    float
        NaN if the whole score is not above 0.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError
        Each names what was given and what was expected.

    See Also
    --------
    MaskSolution : Has the share of its own mask.

    Examples
    --------
    >>> W = np.array([[3.0, -1.0], [0.0, -4.0]])
    >>> kept_share(W, np.eye(2, dtype=bool))
    0.875
    """
    array, mask = as_real_array(scores), _as_mask(mask)
    _check_same_shape(array, mask)
    pieces = range(0, array.size, _SHARE_SCORES * _SHARE_PIECES)
    sums = np.zeros((3, len(pieces), _SHARE_PIECES), dtype=np.int64)
    for here, start in zip(sums.swapaxes(0, 1), pieces, strict=True):
        kept, total, shift = here
        part = slice(start, start + _SHARE_SCORES * _SHARE_PIECES)
        values = array.flat[part]
        groups = -(-values.size // _SHARE_SCORES)
        padded = np.zeros((groups, 1, _SHARE_SCORES), dtype=values.dtype)
        padded.flat[: values.size] = values
        scaled = to_fixed_point(padded, absolute=absolute)
        if scaled is None:
            raise nonfinite_error(array)
        q, shift[:groups] = scaled
        total[:groups] = q.sum(axis=(1, 2))
        q.flat[: values.size] *= mask.flat[part]
        kept[:groups] = q.sum(axis=(1, 2))
    kept, total, shift = sums
    return scaled_ratio(scaled_sum(kept, shift), scaled_sum(total, shift))


def certify_mask(
    scores: Any,
    mask: Any,
    n: int,
    m: int,
    *,
    degree: Degree = "exact",
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
) -> Certificate:
    """Prove how good any mask is, wherever it came from.

    For an optimal mask, potentials are the shortest distances in its residual graph. Where
    a block is not optimal, the improving cycles are cancelled (on a copy) until none is
    left: the certificate then states the true optimum, so its gap is exact, and names the
    first improving exchange.

    Parameters
    ----------
    scores : (..., R, C) array_like, real
        The scores, as given to `masksolve.find_mask`.
    mask : bool array of the same shape
        A valid mask of the degree constraint.
    n, m, degree, absolute, axes, remainder
        As in `masksolve.find_mask`.

    Returns
    -------
    Certificate
        ``certificate.optimal`` tells whether the mask is; ``print(certificate)`` says why not.

    Raises
    ------
    MaskError
        The mask violates the pattern, so there is nothing to prove.

    Notes
    -----
    Residual graphs and cycle cancelling: R. K. Ahuja, T. L. Magnanti, J. B. Orlin,
    *Network Flows*, 1993, sections 2.4, 9.3 and 9.6.

    Examples
    --------
    >>> W = np.array([[3.0, 1.0], [1.0, 2.0]])
    >>> print(certify_mask(W, np.eye(2, dtype=bool), n=1, m=2))
    optimal 1:2 mask (exact), proven for all 1 blocks
    >>> print(certify_mask(W, ~np.eye(2, dtype=bool), n=1, m=2))
    1:2 mask (exact), proven optimal in 0 of 1 blocks; in block (0, 0), keeping [(0, 0), (1, 1)] instead of [(0, 1), (1, 0)] gains 3
    """
    pattern = Pattern(n, m)
    n, m = pattern.n, pattern.m
    array, mask = as_real_array(scores), _as_mask(mask)
    _check_same_shape(array, mask)
    check_mask(mask, n, m, degree=degree, axes=axes, remainder=remainder)
    tiling = make_tiling(array.shape, m, axes=axes, remainder=remainder)
    u, v = (np.empty((*tiling.grid, m), dtype=np.int64) for _ in range(2))
    shift, objective, bound = (np.empty(tiling.grid, dtype=np.int64) for _ in range(3))
    cycle: ImprovingCycle | None = None
    for band in tiling.bands(_BAND_ENTRIES):
        q, shifts = _fixed_point(array, tiling, band, absolute)
        x = tiling.gather(mask, band)
        if degree == "exact":
            _complete_padding(x, tiling, band, n)
        best = optimise(q, x, n, degree)
        u[band] = best.u.reshape(*band.shape, m)
        v[band] = best.v.reshape(*band.shape, m)
        shift[band] = shifts.reshape(band.shape)
        objective[band] = block_objective(q, x).reshape(band.shape)
        bound[band] = weak_bound(q, best.u, best.v, n).reshape(band.shape)
        if cycle is None and best.first_cycle is not None:
            cycle = _name_cycle(best.first_cycle, shifts, tiling, band)
    shape = tiling.block_shape
    return Certificate(
        pattern=pattern,
        degree=degree,
        absolute=absolute,
        axes=tiling.axes,
        shape=tiling.shape,
        u=u.reshape(*shape, m),
        v=v.reshape(*shape, m),
        shift=shift.reshape(shape),
        objective=objective.reshape(shape),
        bound=bound.reshape(shape),
        cycle=cycle,
    )


def check_certificate(certificate: Certificate, scores: Any, mask: Any) -> None:
    """Check a certificate against scores and mask from first principles, or raise.

    Scales the scores anew, checks the mask's line sums, recomputes kept score and
    weak-duality bound from the potentials, and compares all of it, in integers, with what
    the certificate states. Nothing that the solver computed is believed.

    Parameters
    ----------
    certificate : Certificate
    scores, mask : array_like
        What it is said to be a certificate of.

    Raises
    ------
    CertificateError
        It does not fit; the message says where.
    MaskError
        The mask violates the pattern.

    Examples
    --------
    >>> W, mask = np.diag([2.0, 3.0]), np.eye(2, dtype=bool)
    >>> check_certificate(certify_mask(W, mask, n=1, m=2), W, mask)
    """
    array, mask = as_real_array(scores), _as_mask(mask)
    for name, found in (("scores", array), ("mask", mask)):
        if found.shape != certificate.shape:
            raise CertificateError(
                f"the certificate is for shape {certificate.shape}, the {name} have {found.shape}"
            )
    pattern, degree = certificate.pattern, certificate.degree
    n, m = pattern.n, pattern.m
    check_mask(mask, n, m, degree=degree, axes=certificate.axes)
    tiling = make_tiling(array.shape, m, axes=certificate.axes)
    _check_arrays(certificate, tiling)
    u, v = (p.reshape(*tiling.grid, m) for p in (certificate.u, certificate.v))
    stated = {
        name: getattr(certificate, name).reshape(tiling.grid)
        for name in ("shift", "objective", "bound")
    }
    if degree == "at_most" and min(u.min(initial=0), v.min(initial=0)) < 0:
        raise CertificateError("potentials must not be negative for at_most: the bound fails")
    for band in tiling.bands(_BAND_ENTRIES):
        q, shifts = _fixed_point(array, tiling, band, certificate.absolute)
        x = tiling.gather(mask, band)
        found_values = {
            "shift": shifts,
            "objective": block_objective(q, x),
            "bound": weak_bound(q, u[band].reshape(-1, m), v[band].reshape(-1, m), n),
        }
        for name, found in found_values.items():
            differs = found.reshape(band.shape) != stated[name][band]
            if differs.any():
                at = np.unravel_index(int(np.argmax(differs)), band.shape)
                block = _block_index(tiling, band, at)
                raise CertificateError(
                    f"the certificate does not fit: {name} of block {block} is "
                    f"{int(found.reshape(band.shape)[at])}, stated {int(stated[name][band][at])}"
                )


def _check_arrays(certificate: Certificate, tiling: Tiling) -> None:
    """Refuse arrays of another dtype: floating potentials could round the scores away."""
    for name in ("u", "v", "shift", "objective", "bound"):
        found = getattr(certificate, name)
        shape = (*tiling.block_shape, tiling.m) if name in ("u", "v") else tiling.block_shape
        # The type exactly: a subclass may compare as it pleases.
        if type(found) is not np.ndarray or found.dtype != np.int64 or found.shape != shape:
            dtype = getattr(found, "dtype", type(found).__name__)
            raise CertificateError(
                f"{name} of the certificate must be an int64 array of shape {shape}, "
                f"got {dtype} of shape {np.shape(found)}"
            )


def relative_gap(objective: Blocks, bound: Blocks, shift: Blocks) -> float:
    """Return ``(bound - objective) / abs(bound)`` over all blocks, 0 only if all are equal."""
    if np.array_equal(objective, bound):
        return 0.0
    difference, low = scaled_sum(bound - objective, shift)
    size, high = scaled_sum(bound, shift)
    if size == 0:
        return math.inf
    # At least the smallest double: a gap that is there is never shown as 0.
    return max(safe_ldexp(difference / abs(size), low - high), math.ulp(0.0))


def _check_same_shape(array: NDArray[Any], mask: Masks) -> None:
    if array.shape != mask.shape:
        raise ShapeError(f"scores and mask differ in shape: {array.shape} and {mask.shape}")


def _as_mask(mask: Any) -> Masks:
    if isinstance(mask, np.ma.MaskedArray):
        raise DtypeError(
            "a masked array hides entries of the mask; pass mask.filled(False) or the like"
        )
    try:
        array = np.asarray(mask)
    except (ValueError, TypeError) as error:
        raise DtypeError(f"the mask cannot be read as an array: {error}") from error
    if array.dtype != np.bool_:
        raise DtypeError(
            f"a mask must be a boolean array, got dtype {array.dtype}; "
            f"for an array of zeros and ones pass mask.astype(bool)"
        )
    return array


def _fixed_point(
    array: NDArray[Any], tiling: Tiling, band: Any, absolute: bool
) -> tuple[Blocks, Blocks]:
    scaled = to_fixed_point(tiling.gather(array, band), absolute=absolute)
    if scaled is None:
        raise nonfinite_error(array)
    return scaled


def _block_index(tiling: Tiling, band: Any, at: Any) -> tuple[int, ...]:
    matrix, row, column = (int(i) for i in at)
    batch = np.unravel_index(matrix + band.matrices.start, tiling.batch_shape)
    return (*(int(i) for i in batch), row + band.rows.start, column + band.columns.start)


def _name_cycle(cycle: Cycle, shifts: Blocks, tiling: Tiling, band: Any) -> ImprovingCycle:
    at = np.unravel_index(cycle.block, band.shape)
    real_rows, real_columns = tiling.real_extent()
    rows = int(real_rows[at[1] + band.rows.start])
    columns = int(real_columns[at[2] + band.columns.start])

    def real(entries: NDArray[np.intp]) -> tuple[tuple[int, int], ...]:
        return tuple((int(i), int(j)) for i, j in entries if i < rows and j < columns)

    return ImprovingCycle(
        block=_block_index(tiling, band, at),
        add=real(cycle.add),
        remove=real(cycle.remove),
        gain=safe_ldexp(cycle.gain, -int(shifts[cycle.block])),
    )


def _complete_padding(x: Masks, tiling: Tiling, band: Any, n: int) -> None:
    """Fill the zero padding of ragged blocks, in place, so that every line keeps exactly n.

    Balanced margins can always be met (Gale and Ryser), so each real line takes the padding
    lines that are emptiest so far, and then the corner does the same.
    """
    m = tiling.m
    real_rows, real_columns = tiling.real_extent()
    grid = x.reshape(*band.shape, m, m)
    rows, columns = real_rows[band.rows], real_columns[band.columns]
    ragged = np.argwhere((rows[:, None] < m) | (columns[None, :] < m))
    for row, column in ragged:
        r, c = int(rows[row]), int(columns[column])
        for matrix in range(band.shape[0]):
            block = grid[matrix, row, column]
            for lines, first, chosen in (
                (block, c, slice(r)),
                (block.T, r, slice(c)),
                (block, c, slice(r, m)),
            ):
                for line in lines[chosen]:
                    emptiest = np.argsort(lines[:, first:].sum(axis=0), kind="stable")
                    line[first + emptiest[: n - int(line.sum())]] = True
            if (block.sum(axis=0) != n).any() or (block.sum(axis=1) != n).any():
                raise MaskError(
                    f"block {_block_index(tiling, band, (matrix, row, column))} at the ragged "
                    f"edge keeps too few: no filling of its padding makes it exactly {n}:{m}"
                )
