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
    shift: _Numbers,
    kept: _Numbers,
    bound: _Numbers,
    total: _Numbers,
) -> NDArray[np.bool_] | None:
    """Measure masks and prices u, v (rows, columns, m); None if a score is not finite.

    Fills in shift, kept score, bound and total of every block, (rows, columns). Returns whether
    its prices prove its mask: whether it is a mask of the pattern whose kept score is the bound.
    """
    proven = np.empty(shift.shape, dtype=np.bool_)
    blocks, at_most = (len(shift), -1), degree == "at_most"
    finite = measure_band(
        scores, pattern.n, pattern.m, u.reshape(blocks), v.reshape(blocks), mask,
        shift, kept, bound, total, proven, absolute=absolute, at_most=at_most,
    )  # fmt: skip
    return proven if finite else None


def potentials(
    scores: NDArray[Any],
    pattern: Pattern,
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
    u: _Numbers,
    v: _Numbers,
) -> None:
    """Fill in potentials (rows, columns, m) of optimal masks of a matrix of finite scores."""
    m = pattern.m
    prices = u.reshape(-1, m), v.reshape(-1, m)
    at_most = degree == "at_most"
    potentials_band(scores, pattern.n, m, mask, *prices, absolute=absolute, at_most=at_most)
