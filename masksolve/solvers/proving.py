"""What exact methods share on raw matrices: the numbers of a certificate, and potentials of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.measure import measure_band
from ..kernels.potentials import potentials_band
from ..pattern import Degree, Pattern

__all__ = ["measure", "potentials"]

_Numbers = NDArray[np.int64]


def measure(
    scores: NDArray[Any],
    pattern: Pattern,
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
    u: _Numbers,
    v: _Numbers,
) -> tuple[_Numbers, _Numbers, _Numbers, _Numbers, NDArray[np.bool_]] | None:
    """Measure masks and prices u, v (rows, columns, m); None if a score is not finite.

    Returns shift, kept score, bound and total of every block, (rows, columns); and whether the
    prices prove its mask: whether it is a mask of the pattern whose kept score is the bound.
    """
    rows, columns, m = u.shape
    shift, kept, bound, total = (np.empty((rows, columns), dtype=np.int64) for _ in range(4))
    proven = np.empty((rows, columns), dtype=np.bool_)
    finite = measure_band(
        scores,
        pattern.n,
        m,
        u.reshape(rows, -1),
        v.reshape(rows, -1),
        mask,
        shift,
        kept,
        bound,
        total,
        proven,
        absolute=absolute,
        at_most=degree == "at_most",
    )
    return (shift, kept, bound, total, proven) if finite else None


def potentials(
    scores: NDArray[Any],
    pattern: Pattern,
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
) -> tuple[_Numbers, _Numbers]:
    """Find potentials (rows, columns, m) of optimal masks of a matrix of finite scores."""
    m = pattern.m
    shape = scores.shape[0] // m, scores.shape[1] // m, m
    u, v = (np.empty(shape, dtype=np.int64) for _ in range(2))
    potentials_band(
        scores,
        pattern.n,
        m,
        mask,
        u.reshape(-1, m),
        v.reshape(-1, m),
        absolute=absolute,
        at_most=degree == "at_most",
    )
    return u, v
