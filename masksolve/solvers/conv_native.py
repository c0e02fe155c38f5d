"""The exhaustive n:4 search, factored by column sums, in one vectorised loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..kernels import four
from ..pattern import Degree, Pattern
from ..solution import BlockSolution

__all__ = ["refuses", "solve", "solve_matrix"]


def refuses(pattern: Pattern, degree: Degree) -> str | None:
    """Say why a pattern cannot be searched: only those of 4×4 blocks are factored."""
    if pattern.m == 4 and four.does(pattern.n, degree == "at_most"):
        return None
    return (
        f"method 'conv' with backend 'native' does 1:4, 2:4 and (exact) 3:4 only, not {pattern} "
        f"({degree}); use method='flow'"
    )


def solve(blocks: NDArray[np.int64], n: int, degree: Degree) -> BlockSolution:
    """Take the best of all masks: of 2:4 the 90 exact or 186 maximal ones, of 1:4 and 3:4 the 24.

    Whatever the top two rows of a block keep, the bottom two must complete every column to n.
    So for 2:4 the best way to reach each of 19 column sums (Hu et al. 2024 try all 90 masks one by
    one), for the top and for the bottom, and the best of the 19 totals; for 1:4, of 6.

    Raises
    ------
    UnsupportedError
        The pattern is none of these.
    """
    reason = refuses(Pattern(n, blocks.shape[1]), degree)
    if reason is not None:
        raise UnsupportedError(reason)
    mask = np.empty(blocks.shape, dtype=np.bool_)
    four.solve_blocks(blocks, n, mask, at_most=degree == "at_most")
    if degree == "at_most":
        mask &= blocks >= 0  # a maximal mask fills up with negative scores
    return BlockSolution(mask)


def solve_matrix(
    scores: NDArray[Any],
    pattern: Pattern,
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
) -> bool:
    """Search a matrix of raw scores in one pass; see `masksolve.methods.MatrixSolver`."""
    at_most = degree == "at_most"
    return bool(four.solve_band(scores, pattern.n, mask, absolute=absolute, at_most=at_most))
