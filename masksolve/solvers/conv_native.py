"""The exhaustive 2:4 search, factored by column sums, in one vectorised loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..kernels import two_four
from ..pattern import Degree, Pattern
from ..solution import BlockSolution

__all__ = ["refuses", "solve", "solve_matrix"]


def refuses(pattern: Pattern, degree: Degree) -> str | None:  # noqa: ARG001  # both degrees are done
    """Say why a pattern cannot be searched: only 2:4 is factored."""
    if pattern == Pattern(2, 4):
        return None
    return f"method 'conv' with backend 'native' does 2:4 only, not {pattern}; use method='flow'"


def solve(blocks: NDArray[np.int64], n: int, degree: Degree) -> BlockSolution:
    """Take the best of all masks: 90 exact ones, or the 186 maximal ones of ``at_most``.

    Whatever the top two rows of a block keep, the bottom two must complete every column to 2.
    So the best way to reach each of 19 column sums (Hu et al. 2024 try all 90 masks one by
    one), for the top and for the bottom, and the best of the 19 totals.

    Raises
    ------
    UnsupportedError
        The pattern is not 2:4.
    """
    reason = refuses(Pattern(n, blocks.shape[1]), degree)
    if reason is not None:
        raise UnsupportedError(reason)
    mask = np.empty(blocks.shape, dtype=np.bool_)
    two_four.solve_blocks(blocks, mask, at_most=degree == "at_most")
    if degree == "at_most":
        mask &= blocks >= 0  # a maximal mask fills up with negative scores
    return BlockSolution(mask)


def solve_matrix(
    scores: NDArray[Any],
    pattern: Pattern,  # noqa: ARG001  # is 2:4
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
) -> bool:
    """Search a matrix of raw scores in one pass; see `masksolve.methods.MatrixSolver`."""
    at_most = degree == "at_most"
    return bool(two_four.solve_band(scores, mask, absolute=absolute, at_most=at_most))
