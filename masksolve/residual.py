r"""Residual graphs and duality of integer blocks: the mathematics behind a certificate.

The *residual graph* of a mask has a node for every row and column of a block. An entry
that is not kept is an arc from its row to its column of cost -q; a kept one is an arc
back of cost +q. A mask is optimal if and only if no cycle has negative cost, and then
shortest distances d are potentials: u_i = d(row i), v_j = -d(column j) satisfy
u_i + v_j >= q_ij off the mask and <= q_ij on it, so the weak-duality bound

.. math:: n \sum_i (u_i + v_i) + \sum_{ij} \max(0, q_{ij} - u_i - v_j)

equals the kept score. For ``at_most`` one more node, the *slack*, takes up what rows and
columns leave free; its distance is the zero of the potentials.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import CertificateError
from .pattern import Degree

__all__ = [
    "BadLine",
    "Blocks",
    "Cycle",
    "Masks",
    "Optimised",
    "block_objective",
    "bound_fits",
    "drop_wild_prices",
    "dual_ascent",
    "find_potentials",
    "first_bad_line",
    "optimise",
    "still_proven",
    "weak_bound",
]

Blocks = NDArray[np.int64]
Masks = NDArray[np.bool_]

# Far above any distance (at most 2*MAX_M*2**40 = 2**51), far below overflow.
_NO_ARC = np.int64(1) << 60
_DUAL_ROUNDS = 10


class Cycle(NamedTuple):
    """One improving exchange: entries (row, column) to add and to remove, and what it gains."""

    block: int
    add: NDArray[np.intp]
    remove: NDArray[np.intp]
    gain: int


class Optimised(NamedTuple):
    """Optimal masks and potentials, and the first cycle that was cancelled on the way."""

    mask: Masks
    u: Blocks
    v: Blocks
    first_cycle: Cycle | None


class BadLine(NamedTuple):
    """A row or column that does not keep what the degree constraint says."""

    line: str
    block: int
    at: int
    kept: int


def first_bad_line(mask: Masks, n: int, degree: Degree) -> BadLine | None:
    """Find the first line of blocks (B, m, m) that does not keep n (at_most: keeps more)."""
    for line, axis in (("row", 2), ("column", 1)):
        kept = mask.sum(axis=axis)
        bad = np.argwhere(kept != n if degree == "exact" else kept > n)
        if len(bad):
            block, at = (int(i) for i in bad[0])
            return BadLine(line, block, at, int(kept[block, at]))
    return None


def block_objective(q: Blocks, mask: Masks) -> Blocks:
    """Kept score of every block: ``sum q_ij x_ij``, shape (B,)."""
    return np.asarray(np.where(mask, q, 0).sum(axis=(1, 2)))


def weak_bound(q: Blocks, u: Blocks, v: Blocks, n: int) -> Blocks:
    """Weak-duality bound of every block; see the module. Shape (B,).

    Raises
    ------
    CertificateError
        The potentials are so large that the bound does not fit an int64.
    """
    if not bound_fits(u, v, n, int(np.abs(q).max(initial=0))):
        return _exact_bound(q, u, v, n)
    slack = q - u[:, :, None]
    slack -= v[:, None, :]
    np.maximum(slack, 0, out=slack)
    return np.asarray(n * (u.sum(axis=1) + v.sum(axis=1)) + slack.sum(axis=(1, 2)))


def bound_fits(u: Blocks, v: Blocks, n: int, largest_score: int) -> bool:
    """Whether no sum on the way to a block's bound can overflow an int64; u, v: (..., m)."""
    # Not np.abs: that of the smallest int64 is negative.
    largest = max(max(int(p.max(initial=0)), -int(p.min(initial=0))) for p in (u, v))
    return max(largest, 1) <= _price_limit(u.shape[-1], n, largest_score)


def _price_limit(m: int, n: int, largest_score: int) -> int:
    """Largest price with which no sum on the way to a block's bound can overflow an int64."""
    return (2**63 - 1 - m * m * largest_score) // (2 * n * m + 2 * m * m)


def drop_wild_prices(u: Blocks, v: Blocks, n: int, largest_score: int) -> None:
    """Set the prices (..., m) of blocks to 0 whose bound might not fit an int64: they prove nothing."""
    if not bound_fits(u, v, n, largest_score):
        limit = _price_limit(u.shape[-1], n, largest_score)
        wild = np.any([(p < -limit) | (p > limit) for p in (u, v)], axis=(0, -1))
        u[wild] = v[wild] = 0


def still_proven(q: Blocks, mask: Masks, u: Blocks, v: Blocks, n: int, degree: Degree) -> Masks:
    """Of which blocks prices (B, m) prove that masks, of whatever origin, are optimal; (B,)."""
    proven = block_objective(q, mask) == weak_bound(q, u, v, n)
    for axis in (1, 2):
        kept = mask.sum(axis=axis)
        proven &= (kept == n if degree == "exact" else kept <= n).all(axis=1)
    if degree == "at_most":
        proven &= np.minimum(u, v).min(axis=1) >= 0
    return np.asarray(proven)


def _exact_bound(q: Blocks, u: Blocks, v: Blocks, n: int) -> Blocks:
    """`weak_bound` in Python integers, for potentials that could overflow on the way."""
    big_u, big_v = u.astype(object), v.astype(object)
    slack = np.maximum(q.astype(object) - big_u[:, :, None] - big_v[:, None, :], 0)
    bounds = n * (big_u.sum(axis=1) + big_v.sum(axis=1)) + slack.sum(axis=(1, 2))
    if any(abs(int(b)) >= 2**63 for b in bounds):
        raise CertificateError("the potentials are too large: their bound exceeds an int64")
    return np.asarray(bounds, dtype=np.int64)


def dual_ascent(
    q: Blocks, n: int, degree: Degree, *, rounds: int = _DUAL_ROUNDS
) -> tuple[Blocks, Blocks]:
    """Potentials with a good bound, from the scores alone.

    Each half-round minimises the weak-duality bound exactly in all u (then in all v): u_i
    is the midpoint of the n-th and (n+1)-th largest of ``q_ij - v_j`` over j.
    """
    v = np.zeros(q.shape[:2], dtype=np.int64)
    u = v
    for _ in range(rounds):
        u = _line_prices(q - v[:, None, :], n, degree)
        v = _line_prices((q - u[:, :, None]).swapaxes(1, 2), n, degree)
    return u, v


def _line_prices(t: Blocks, n: int, degree: Degree) -> Blocks:
    m = t.shape[-1]
    last_kept, first_dropped = max(m - n, 0), max(m - n - 1, 0)
    if n == 0:  # nothing is kept: any price above all will do
        prices = t.max(axis=-1)
    elif n == m:
        prices = t.min(axis=-1)
    else:
        ranked = np.partition(t, (first_dropped, last_kept), axis=-1)
        low, high = ranked[..., first_dropped], ranked[..., last_kept]
        prices = low + (high - low) // 2
    return np.maximum(prices, 0) if degree == "at_most" else np.asarray(prices)


def find_potentials(
    q: Blocks, mask: Masks, n: int, degree: Degree
) -> tuple[Blocks, Blocks, NDArray[np.bool_]]:
    """Potentials from masks by shortest residual distances (Bellman-Ford, all blocks at once).

    Parameters
    ----------
    q : (B, m, m) int64
    mask : (B, m, m) bool
        Valid for `degree`.

    Returns
    -------
    u, v : (B, m) int64
        For optimal blocks, potentials whose bound equals the kept score.
    optimal : (B,) bool
        False where a negative cycle exists; there u and v mean nothing.
    """
    count, m = q.shape[:2]
    u, v = np.zeros((count, m), dtype=np.int64), np.zeros((count, m), dtype=np.int64)
    optimal = np.ones(count, dtype=np.bool_)
    active = np.arange(count)
    state = _Residual(q, mask, n, degree)
    # A shortest path visits each of the 2m+1 nodes once, and every sweep follows at least
    # one of its arcs; still moving after that many sweeps means a negative cycle.
    for _ in range(2 * m + 2):
        moved = state.sweep()
        settled = ~moved
        if settled.any():
            u[active[settled]], v[active[settled]] = state.potentials(settled)
            active = active[moved]
            state = state.subset(moved)
        if active.size == 0:
            return u, v, optimal
    optimal[active] = False
    return u, v, optimal


def optimise(q: Blocks, mask: Masks, n: int, degree: Degree) -> Optimised:
    """Cancel improving cycles until every mask is optimal; the input is not changed.

    A proof tool first: on an optimal mask it only finds potentials. It is what makes
    `certify_mask`'s gap exact, and no solver depends on how fast it is.
    """
    x = mask.copy()
    u, v, optimal = find_potentials(q, x, n, degree)
    first: Cycle | None = None
    while not optimal.all():
        bad = np.flatnonzero(~optimal)
        sub_q, sub_x = q[bad], x[bad]
        before = sub_x.copy()
        _cancel_one_cycle(sub_q, sub_x, n, degree)
        if first is None:
            gain = int((block_objective(sub_q, sub_x) - block_objective(sub_q, before))[0])
            added, removed = sub_x[0] & ~before[0], before[0] & ~sub_x[0]
            first = Cycle(int(bad[0]), np.argwhere(added), np.argwhere(removed), gain)
        x[bad] = sub_x
        u[bad], v[bad], optimal[bad] = find_potentials(sub_q, sub_x, n, degree)
    return Optimised(x, u, v, first)


class _Residual:
    """Distances over the residual graphs of a batch of blocks, from a root 0 away from all."""

    def __init__(self, q: Blocks, x: Masks, n: int, degree: Degree) -> None:
        self.forward = np.where(x, _NO_ARC, -q)  # row -> column, not kept
        self.backward = np.where(x, q, _NO_ARC)  # column -> row, kept
        count, m = q.shape[:2]
        self.rows = np.zeros((count, m), dtype=np.int64)
        self.columns = np.zeros((count, m), dtype=np.int64)
        self.slack = np.zeros(count, dtype=np.int64)
        self.has_slack = degree == "at_most"
        # Which lines leave room: only they have an arc back from (or to) the slack node.
        self.open_rows, self.open_columns = x.sum(axis=2) < n, x.sum(axis=1) < n

    def subset(self, keep: NDArray[np.bool_]) -> _Residual:
        part = object.__new__(_Residual)
        part.__dict__ = {
            name: value[keep] if isinstance(value, np.ndarray) else value
            for name, value in self.__dict__.items()
        }
        return part

    def sweep(self) -> NDArray[np.bool_]:
        """Relax every arc once, in place; tell which blocks moved."""
        columns = np.minimum(self.columns, (self.rows[:, :, None] + self.forward).min(axis=1))
        if self.has_slack:
            np.minimum(columns, self.slack[:, None], out=columns)
        rows = np.minimum(self.rows, (columns[:, None, :] + self.backward).min(axis=2))
        slack = self.slack
        if self.has_slack:
            by_column = np.where(self.open_columns, columns, _NO_ARC).min(axis=1)
            slack = np.minimum(slack, np.minimum(rows.min(axis=1), by_column))
            np.minimum(rows, np.where(self.open_rows, slack[:, None], _NO_ARC), out=rows)
        moved = (columns != self.columns).any(axis=1) | (rows != self.rows).any(axis=1)
        moved |= slack != self.slack
        self.columns, self.rows, self.slack = columns, rows, slack
        return np.asarray(moved)

    def potentials(self, which: NDArray[np.bool_]) -> tuple[Blocks, Blocks]:
        zero = self.slack[which, None] if self.has_slack else 0
        return self.rows[which] - zero, zero - self.columns[which]


def _cancel_one_cycle(q: Blocks, x: Masks, n: int, degree: Degree) -> None:
    """Flip each block's mask along one negative cycle of its residual graph, in place.

    Bellman-Ford that remembers parents: a node that still moves after as many sweeps as
    there are nodes leads back, parent by parent, to a negative cycle.
    """
    count, m = q.shape[:2]
    nodes = 2 * m + (degree == "at_most")
    cost = np.full((count, nodes, nodes), _NO_ARC)
    cost[:, :m, m : 2 * m] = np.where(x, _NO_ARC, -q)
    cost[:, m : 2 * m, :m] = np.where(x, q, _NO_ARC).swapaxes(1, 2)
    if degree == "at_most":
        cost[:, :m, 2 * m] = 0
        cost[:, 2 * m, m : 2 * m] = 0
        cost[:, 2 * m, :m] = np.where(x.sum(axis=2) < n, 0, _NO_ARC)
        cost[:, m : 2 * m, 2 * m] = np.where(x.sum(axis=1) < n, 0, _NO_ARC)
    distance = np.zeros((count, nodes), dtype=np.int64)
    parent = np.full((count, nodes), -1)
    moved = np.zeros((count, nodes), dtype=np.bool_)
    for _ in range(nodes):
        reach = distance[:, :, None] + cost
        nearest = reach.argmin(axis=1)
        shorter = np.take_along_axis(reach, nearest[:, None, :], axis=1)[:, 0]
        moved = shorter < distance
        parent = np.where(moved, nearest, parent)
        distance = np.where(moved, shorter, distance)
    every = np.arange(count)
    node = moved.argmax(axis=1)
    for _ in range(nodes):
        node = parent[every, node]
    start, walking = node, np.ones(count, dtype=np.bool_)
    while walking.any():
        previous = parent[every, node]
        _flip(x, every[walking], previous[walking], node[walking], m)
        node = np.where(walking, previous, node)
        walking &= node != start


def _flip(x: Masks, block: Any, tail: Any, head: Any, m: int) -> None:
    kept = (tail < m) & (head >= m) & (head < 2 * m)
    x[block[kept], tail[kept], head[kept] - m] = True
    dropped = (head < m) & (tail >= m) & (tail < 2 * m)
    x[block[dropped], head[dropped], tail[dropped] - m] = False
