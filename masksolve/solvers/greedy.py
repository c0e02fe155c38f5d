"""Greedy masks in one pass over the sorted entries: fast, bounded, not optimal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..kernels import greedy as kernel
from ..pattern import Degree, Pattern
from ..solution import BlockSolution

__all__ = ["cover_refuses", "solve", "solve_cover", "solve_matrix"]


def solve(blocks: NDArray[np.int64], n: int, degree: Degree) -> BlockSolution:
    r"""Keep entries from the largest down while their row and their column have room.

    Ties go to the smaller index. Let s be not negative, *kept* and *pruned* the scores on and
    off the mask. The plain greedy (``at_most``) has two bounds:

    - ``kept >= 1/2 optimal kept``: an entry it refuses lies in a full row or column of heavier
      ones, and each of those answers for at most two refusals (greedy b-matching).
    - ``pruned <= 2 optimal pruned``: it keeps all that the cover form keeps (`solve_cover`), in
      fact it *is* the cover form filled up in the same order, so it prunes no more.

    ``exact`` completes it to n a line by alternating paths of three entries. If anything had to
    be completed, it takes the best n neighbouring diagonals instead should it end below n/m of
    the block's score. What survives of the two bounds, against the optimal exact mask (proofs and
    counterexample in ``docs/explanation/guarantees.md``):

    - kept: 1/2 for m <= 2n, for m >= 4n and for n <= 7; 2/5 in any case; no block below 1/2
      is known.
    - pruned: it survives for n = 1, where nothing needs completing; in general it does not,
      at any factor: a 3:4 block exists from which the optimum prunes nothing and this prunes
      something. For n = 2 we have neither proof nor counterexample.

    Returns
    -------
    BlockSolution
        The mask; a heuristic has no potentials.
    """
    mask = np.empty(blocks.shape, dtype=np.bool_)
    exact = degree == "exact"
    kernel.solve_blocks(np.ascontiguousarray(blocks), n, not exact, exact, mask)
    return BlockSolution(mask)


def solve_matrix(
    scores: NDArray[Any],
    pattern: Pattern,
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
) -> bool:
    """Do the same for a matrix of raw scores in one pass; see `masksolve.methods.MatrixSolver`."""
    n, m, exact = pattern.n, pattern.m, degree == "exact"
    return bool(kernel.solve_band(scores, n, m, mask, absolute, not exact, exact))


def solve_cover(blocks: NDArray[np.int64], n: int, degree: Degree) -> BlockSolution:
    """Prune entries from the smallest up while row *or* column has fewer than m-n pruned.

    The 2-approximation of Hubara et al. (2021), to the letter: ``pruned <= 2 optimal pruned``
    (a greedy cover). It keeps fewer than n in most blocks, so it is an ``at_most`` method; it
    has no bound on what it keeps.

    Raises
    ------
    UnsupportedError
        `degree` is ``"exact"``.
    """
    reason = cover_refuses(Pattern(n, blocks.shape[1]), degree)
    if reason is not None:
        raise UnsupportedError(reason)
    mask = np.empty(blocks.shape, dtype=np.bool_)
    kernel.cover(np.ascontiguousarray(blocks), n, True, mask)
    return BlockSolution(mask)


def cover_refuses(pattern: Pattern, degree: Degree) -> str | None:
    """Say why the cover form cannot be had: it keeps fewer than n in most blocks."""
    if degree == "at_most":
        return None
    return (
        f"backend 'cover' keeps at most n in a row or column, usually fewer, so it cannot give "
        f"an exact {pattern} mask; use degree='at_most', or backend='native'"
    )
