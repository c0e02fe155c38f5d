"""The native engine: dual ascent on many blocks at once, then augmenting paths, in integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels import ascent
from ..pattern import Degree, Pattern
from ..solution import BlockSolution

__all__ = ["prove_matrix", "solve", "solve_matrix", "solve_warm"]


def solve(blocks: NDArray[np.int64], n: int, degree: Degree) -> BlockSolution:
    r"""Solve blocks side by side, and prove each answer in integers as it is found.

    With column prices v, row i keeps its n best of :math:`q_{ij} - v_j`, and any price
    :math:`u_i` between the n-th and (n+1)-th best is an exact minimiser of the dual in u_i;
    likewise for columns. A few over-relaxed rounds of both, in single precision, guess the
    prices. Then integers decide: where the mask they select and the rounded prices prove each
    other, the block is done; the others go on to shortest augmenting paths.

    Returns
    -------
    BlockSolution
        With the potentials that prove it.
    """
    u, v = np.empty((2, *blocks.shape[:2]), dtype=np.int64)
    return _solve(blocks, n, degree, u, v, warm=False)


def solve_warm(
    blocks: NDArray[np.int64], n: int, degree: Degree, v: NDArray[np.int64]
) -> BlockSolution:
    """Solve blocks from the column prices v (B, m) of an earlier solution of similar blocks.

    The answer is as exact as a cold one; among equally good masks it may choose another.
    """
    return _solve(blocks, n, degree, np.empty_like(v), v.copy(), warm=True)


def _solve(
    blocks: NDArray[np.int64],
    n: int,
    degree: Degree,
    u: NDArray[np.int64],
    v: NDArray[np.int64],
    *,
    warm: bool,
) -> BlockSolution:
    mask = np.empty(blocks.shape, dtype=np.bool_)
    ascent.solve_blocks(blocks, n, mask, u, v, at_most=degree == "at_most", warm=warm)
    return BlockSolution(mask, u, v)


def solve_matrix(
    scores: NDArray[Any],
    pattern: Pattern,
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
) -> bool:
    """Solve a matrix of raw scores in one pass; see `masksolve.methods.MatrixSolver`."""
    at_most = degree == "at_most"
    by_path = ascent.solve_band(
        scores, pattern.n, pattern.m, mask, absolute=absolute, at_most=at_most
    )
    return bool(by_path >= 0)


def prove_matrix(
    scores: NDArray[Any],
    pattern: Pattern,
    degree: Degree,
    absolute: bool,
    mask: NDArray[np.bool_],
    u: NDArray[np.int64],
    v: NDArray[np.int64],
    warm: bool,
) -> bool:
    """Solve a matrix and yield the potentials; see `masksolve.methods.MatrixProver`."""
    by_path = ascent.solve_band(
        scores,
        pattern.n,
        pattern.m,
        mask,
        u,
        v,
        absolute=absolute,
        at_most=degree == "at_most",
        warm=warm,
    )
    return bool(by_path >= 0)
