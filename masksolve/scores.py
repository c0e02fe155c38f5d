r"""Any real array -> checked scores -> fixed-point integers.

Every solver works on the same integers, so their objectives agree to the last bit.
The scores of a block whose largest magnitude is :math:`a = f \cdot 2^e`,
:math:`1/2 \le f < 1`, become

.. math:: q_{ij} = \mathrm{rint}(s_{ij} \cdot 2^{k}), \qquad k = 40 - e,

so :math:`|q| \le 2^{40}`; `k` is the block's *shift*. A power of two scales without
error, and rounding keeps the order, so what is lost is only what lies more than 40
bits below the block's largest entry. Integer blocks within :math:`\pm 2^{40}` are
taken as they are (``k = 0``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DtypeError, NonFiniteError

__all__ = [
    "FRACTION_BITS",
    "LARGEST",
    "as_real_array",
    "nonfinite_error",
    "safe_ldexp",
    "scaled_ratio",
    "scaled_sum",
    "scaled_total",
    "to_fixed_point",
]

FRACTION_BITS = 40
# Terms that are added up at a time, so that nothing large is copied.
_SUM_TERMS = 1 << 16
#: What no fixed-point score exceeds.
LARGEST = 1 << FRACTION_BITS

_SCAN_ENTRIES = 1 << 20


def as_real_array(scores: Any) -> NDArray[Any]:
    """Return `scores` as an ndarray of a real dtype, without copying where NumPy need not.

    Raises
    ------
    DtypeError
        The dtype is complex, object, text, a date, or a record, or the array is masked.
    """
    if isinstance(scores, np.ma.MaskedArray):
        raise DtypeError(
            "masked arrays carry entries without a score; pass scores.filled(0) or the like"
        )
    try:
        array = np.asarray(scores)
    except (ValueError, TypeError) as error:
        raise DtypeError(f"the scores cannot be read as an array: {error}") from error
    if not _is_real(array.dtype):
        hint = "; pass abs(scores)" if array.dtype.kind == "c" else ""
        raise DtypeError(
            f"scores must be real numbers (bool, integer or floating), got dtype {array.dtype}{hint}"
        )
    return array


def _is_real(dtype: np.dtype[Any]) -> bool:
    if dtype.kind in "biuf":
        return True
    # bfloat16 and its kin (ml_dtypes) have kind "V" and register a safe cast; records do not.
    return dtype.kind == "V" and dtype.names is None and np.can_cast(dtype, np.float64, "safe")


def to_fixed_point(
    blocks: NDArray[Any], *, absolute: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Scale blocks of scores to 40-bit fixed-point integers.

    Parameters
    ----------
    blocks : (B, m, m) array of any real dtype
        Raw scores; not modified.
    absolute : bool
        Take magnitudes; otherwise signed scores are kept as they stand.

    Returns
    -------
    (q, shift) : (B, m, m) int64, (B,) int64, or None
        ``q = rint(s * 2**shift)``, see the module. None if a score is not finite; the
        caller, who knows the whole array, then raises `nonfinite_error`.

    Examples
    --------
    >>> q, shift = to_fixed_point(np.array([[[0.5, -0.25], [0.0, 0.125]]]))
    >>> shift, q[0, 0] / 2**40
    (array([40]), array([0.5 , 0.25]))
    """
    if blocks.dtype.kind in "biu":
        return _integers_to_fixed_point(blocks, absolute)
    # long double keeps its range; everything else real fits a double exactly.
    dtype = np.longdouble if blocks.dtype == np.longdouble else np.float64
    values = np.abs(blocks, dtype=dtype) if absolute else blocks.astype(dtype)
    top = np.abs(values).max(axis=(1, 2), initial=0)
    if not np.isfinite(top).all():
        return None
    exponent = np.frexp(top)[1].astype(np.int64)
    shift = np.where(top > 0, FRACTION_BITS - exponent, 0)
    with np.errstate(under="ignore"):  # what lies more than 40 bits down is rounded away
        values = np.ldexp(values, shift[:, None, None])
    return np.rint(values, out=values).astype(np.int64), shift


def _integers_to_fixed_point(
    blocks: NDArray[Any], absolute: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # As doubles the extremes are exact up to 2**53, and abs(int64 min) does not overflow.
    high = blocks.max(axis=(1, 2), initial=0).astype(np.float64)
    low = blocks.min(axis=(1, 2), initial=0).astype(np.float64)
    fits = np.maximum(high, -low) <= 2.0**FRACTION_BITS
    q = blocks.astype(np.int64)
    if absolute:
        np.abs(q, out=q)
    shift = np.zeros(len(blocks), dtype=np.int64)
    if not fits.all():
        scaled = to_fixed_point(blocks[~fits].astype(np.float64), absolute=absolute)
        q[~fits], shift[~fits] = scaled  # type: ignore[misc]  # integers are finite
    return q, shift


def nonfinite_error(scores: NDArray[Any]) -> NonFiniteError:
    """Error naming the first non-finite position of `scores` and how many there are.

    Scans in pieces, in index order, so that an array larger than memory can be named too.
    """
    first: tuple[int, ...] = ()
    value: Any = None
    count = 0
    for start, piece in _pieces(scores):
        bad = ~np.isfinite(piece)
        if count == 0 and bad.any():
            flat = int(np.argmax(bad))
            first = tuple(int(i) for i in np.unravel_index(start + flat, scores.shape))
            value = piece[flat]
        count += int(bad.sum())
    others = f"; {count} entries are not finite" if count > 1 else ""
    return NonFiniteError(
        f"scores must be finite, but the entry at {first} is {float(value)}{others}; "
        f"replace them, for example with numpy.nan_to_num, or look for where they come from"
    )


def _pieces(scores: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, scores.size, _SCAN_ENTRIES):
        yield start, scores.flat[start : start + _SCAN_ENTRIES]


def scaled_sum(values: NDArray[np.int64], shift: NDArray[np.int64]) -> tuple[float, int]:
    """Sum ``values * 2**-shift`` as ``(mantissa, exponent)``, meaning ``mantissa * 2**exponent``.

    The sum is formed in integers and rounded once. The exponent is that of the largest terms.

    Examples
    --------
    >>> scaled_sum(np.array([3, 5, 0]), np.array([2, 1, 0]))
    (6.5, -1)
    """
    sums: dict[int, int] = {}
    for start in range(0, values.size, _SUM_TERMS):
        part = slice(start, start + _SUM_TERMS)
        terms, at = values.ravel()[part], shift.ravel()[part]
        terms, at = terms[terms != 0], at[terms != 0]
        if not terms.size:
            continue
        low = int(at.min())
        # Halves of 32 bits: sums of so few of either fit an int64.
        halves = np.zeros((2, int(at.max()) - low + 1), dtype=np.int64)
        for half, digits in zip(halves, (terms >> 32, terms & 0xFFFFFFFF), strict=True):
            np.add.at(half, at - low, digits)
        for place, (top, bottom) in enumerate(halves.T, start=low):
            sums[place] = sums.get(place, 0) + (int(top) << 32) + int(bottom)
    places = [place for place, total in sums.items() if total]
    if not places:
        return 0.0, 0
    low, high = min(places), max(places)
    whole = sum(sums[place] << (high - place) for place in places)
    return whole / (1 << (high - low)), -low


def scaled_total(values: NDArray[np.int64], shift: NDArray[np.int64]) -> float:
    """Sum ``values * 2**-shift`` as a float; infinite if it exceeds the largest double."""
    return safe_ldexp(*scaled_sum(values, shift))


def scaled_ratio(above: tuple[float, int], below: tuple[float, int]) -> float:
    """Quotient of two `scaled_sum`, formed without overflow; NaN if the lower is not above 0."""
    (numerator, low), (denominator, high) = above, below
    return safe_ldexp(numerator / denominator, low - high) if denominator > 0 else math.nan


def safe_ldexp(mantissa: float, exponent: int) -> float:
    """Return ``mantissa * 2**exponent``, infinite where a double cannot hold it."""
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.copysign(math.inf, mantissa)
