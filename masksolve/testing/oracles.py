"""Slow, independent answers to test fast solvers against. Uses none of the library's solvers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DtypeError, ShapeError, SolverError, TooLargeError
from ..pattern import Degree, Pattern, check_degree

__all__ = ["BRUTE_FORCE_M", "brute_force", "lp_bound"]

#: Largest block edge that `brute_force` takes: 2**16 matrices.
BRUTE_FORCE_M = 4

_CHUNK_SCORES = 1 << 20


def brute_force(
    blocks: Any, n: int, degree: Degree = "exact"
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Best mask of every block, by trying each of the ``2**(m*m)`` 0/1 matrices.

    Parameters
    ----------
    blocks : (B, m, m) integers
        Scores, ``m <= 4``, magnitudes below 2**58 so that all sums are exact.
    n : int
        Entries kept of every m.
    degree : {"exact", "at_most"}

    Returns
    -------
    objective : (B,) int64
        The largest kept score.
    mask : (B, m, m) bool
        One mask that keeps it.

    Raises
    ------
    TooLargeError
        ``m > 4``, or scores of 2**58 or more.

    Examples
    --------
    >>> objective, mask = brute_force([[[5, 0, 0], [0, 5, 5], [0, 5, 5]]], n=2)
    >>> int(objective[0]), int(brute_force([[[5, 0, 0], [0, 5, 5], [0, 5, 5]]], 2, "at_most")[0][0])
    (20, 25)
    """
    q = _as_blocks(blocks)
    pattern, degree = Pattern(n, q.shape[1]), check_degree(degree)
    if pattern.m > BRUTE_FORCE_M:
        raise TooLargeError(
            f"brute force tries all 2**{pattern.m**2} matrices of a block, and does so only up "
            f"to m={BRUTE_FORCE_M}; for m={pattern.m} use masksolve.testing.lp_bound"
        )
    if int(q.max(initial=0)) >= 2**58 or int(q.min(initial=0)) <= -(2**58):
        raise TooLargeError("brute force sums scores exactly only below 2**58 in magnitude")
    masks = _all_masks(pattern.n, pattern.m, degree)
    size = pattern.m**2
    flat, columns = q.reshape(-1, size), masks.reshape(-1, size).T.astype(np.int64)
    objective = np.empty(len(q), dtype=np.int64)
    best = np.empty(len(q), dtype=np.intp)
    step = max(1, _CHUNK_SCORES // len(masks))
    for start in range(0, len(q), step):
        kept = flat[start : start + step] @ columns
        best[start : start + step] = kept.argmax(axis=1)
        objective[start : start + step] = kept.max(axis=1)
    return objective, masks[best]


def lp_bound(block: Any, n: int, degree: Degree = "exact") -> int:
    r"""Optimal objective of one block of any size, from the dual of its linear programme.

    HiGHS solves ``max sum q x`` over line sums of n and ``0 <= x <= 1``. Its dual values,
    rounded to integers u, v (and for ``at_most`` cut off at 0), give in Python integers

    .. math::

        & n \sum_i (u_i + v_i) \\
        & + \sum_{ij} \max(0, q_{ij} - u_i - v_j)

    By weak duality *any* integers u, v make this an upper bound on every mask. The
    constraint matrix is totally unimodular and the costs are integers, so a basic dual
    optimum is integral, rounding restores it, and the bound is the optimum. If HiGHS were
    inaccurate, the bound would be too high and an ``==`` with a mask's objective would fail:
    floating point can make this oracle reject a good mask, never accept a bad one.

    Parameters
    ----------
    block : (m, m) integers
    n : int
        Entries kept of every m.
    degree : {"exact", "at_most"}

    Returns
    -------
    int
        Upper bound on the kept score; equal to the optimum unless HiGHS is inaccurate.

    Raises
    ------
    SolverError
        HiGHS ends without a solution.

    Examples
    --------
    >>> lp_bound([[5, 0, 0], [0, 5, 5], [0, 5, 5]], n=2)
    20
    >>> lp_bound([[5, 0, 0], [0, 5, 5], [0, 5, 5]], n=2, degree="at_most")
    25
    """
    from scipy.optimize import linprog

    q = _as_blocks([block])[0]
    pattern, degree = Pattern(n, len(q)), check_degree(degree)
    n, m = pattern.n, pattern.m
    lines = np.zeros((2 * m, m, m))
    for line in range(m):
        lines[line, line, :] = 1  # row sums
        lines[m + line, :, line] = 1  # column sums
    names = ("A_eq", "b_eq") if degree == "exact" else ("A_ub", "b_ub")
    limits = (lines.reshape(2 * m, -1), np.full(2 * m, n))
    result = linprog(
        -q.ravel().astype(np.float64),
        bounds=(0, 1),
        method="highs-ds",
        **dict(zip(names, limits, strict=True)),
    )
    if result.status != 0:
        raise SolverError(f"HiGHS ended without a solution: {result.message}")
    # linprog minimises: its marginals are the derivatives of -objective by the limits.
    dual = (result.eqlin if degree == "exact" else result.ineqlin).marginals
    prices = [-round(float(value)) for value in dual]
    if degree == "at_most":
        prices = [max(0, price) for price in prices]
    u, v = prices[:m], prices[m:]
    slack = sum(max(0, int(q[i, j]) - u[i] - v[j]) for i in range(m) for j in range(m))
    return n * sum(prices) + slack


@lru_cache(maxsize=64)
def _all_masks(n: int, m: int, degree: Degree) -> NDArray[np.bool_]:
    """All 0/1 matrices with the right line sums, (P, m, m), read-only: count in binary, sieve."""
    numbers = np.arange(1 << (m * m))
    matrices = (numbers[:, None] >> np.arange(m * m) & 1 == 1).reshape(-1, m, m)
    sums = np.concatenate([matrices.sum(axis=1), matrices.sum(axis=2)], axis=1)
    right = sums == n if degree == "exact" else sums <= n
    masks: NDArray[np.bool_] = matrices[right.all(axis=1)]
    masks.flags.writeable = False
    return masks


def _as_blocks(blocks: Any) -> NDArray[np.int64]:
    array = np.asarray(blocks)
    if array.dtype.kind not in "biu":
        raise DtypeError(f"blocks must hold integers, got dtype {array.dtype}")
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        raise ShapeError(f"blocks must have shape (B, m, m), got {array.shape}")
    return array.astype(np.int64)
