r"""Optimal n:m masks, exactly n of every m: dual ascent, then augmenting paths, all in int32.

Scores s of a block become integers :math:`q = \mathrm{round}(2^{23 - e} s)`, with the largest in
:math:`[2^e, 2^{e+1})`: the unit is the last bit that float32 has for it, and masks are optimal for q.
With column prices v, the residual of an entry is :math:`r_{ij} = q_{ij} - v_j`.

1. *Dual ascent*: in turn, row prices u lie between the n-th and the next largest of q - v in each
   row, and column prices v between those of q - u in each column.
2. *Start*: every row keeps its n largest residuals. Rows are right then, and optimal for v.
3. *Paths*: a column with too many gives one up to a column with too few, by way of rows that
   exchange an entry for another. An exchange costs :math:`r_{ij} - r_{ik} \ge 0`. The path of
   least cost from any column with too many, found by Bellman and Ford's rounds over rows and columns at
   once, is taken, and its distances are added to r, so that all rows stay optimal for their
   prices. A path mends a column for good, so it ends.

At the end rows and columns are right, and each row keeps its n largest residuals: no mask is better
(weak duality). All sums are below :math:`2^{31}` for m <= 32.

Each program takes a few blocks, whose loops end when the last of them is done. Nothing depends on the
order in which programs run, so the same scores have the same mask.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .blocks import count, entries, grid_of, load_finite, padded

__all__ = ["Start", "find_masks"]

_FAR = tl.constexpr(2**30 + 2**29)
#: Half of the bracket in which prices are sought after the first round: a 16th of the largest score.
_NEAR = tl.constexpr(2**19)


@triton.jit
def _halve(low, high, values, inside, n: tl.constexpr, axis: tl.constexpr):
    """Half of a bracket: more than n values or n are above `low`, n or less above `high`.

    With n above the middle both become the middle.
    """
    middle = low + (high - low) // 2
    above = count(inside & (values > tl.expand_dims(middle, axis)), axis)
    return tl.where(above >= n, middle, low), tl.where(above <= n, middle, high)


@triton.jit
def _between(values, inside, low, high, n: tl.constexpr, axis: tl.constexpr, STEPS: tl.constexpr):
    """The midpoint between the n-th largest value along an axis and the next, if it is in a bracket.

    Else, or where the steps do not tell the two apart, something near, which an ascent may take too.
    """
    low = tl.maximum(low, tl.min(tl.where(inside, values, _FAR), axis=axis) - 1)
    high = tl.minimum(high, tl.max(tl.where(inside, values, -_FAR), axis=axis))
    for _ in tl.static_range(STEPS):
        low, high = _halve(low, high, values, inside, n, axis)
    border = tl.expand_dims(low + (high - low) // 2, axis)
    above = tl.min(tl.where(inside & (values > border), values, _FAR), axis=axis)
    below = tl.max(tl.where(inside & (values <= border), values, -_FAR), axis=axis)
    found = (low == high) & (above < _FAR) & (below > -_FAR)
    return tl.where(found, below + (above - below) // 2, low)


@triton.jit
def _ascend(q, u, v, inside, real, NEAR: tl.constexpr, n: tl.constexpr, STEPS: tl.constexpr):
    """One round of dual ascent, rows and then columns, no price further than that from what it was."""
    u = _between(q - v[:, None, :], inside, u - NEAR, u + NEAR, n, 2, STEPS)
    u = tl.where(real, u, 0)
    v = _between(q - u[:, :, None], inside, v - NEAR, v + NEAR, n, 1, STEPS)
    return u, tl.where(real, v, 0)


@triton.jit
def _largest(values, inside, before, n: tl.constexpr, SIZE: tl.constexpr):
    """The n largest values of every row; of equal ones those in `before`, then from the diagonal on.

    From the first on, all rows would keep the same columns where all values are equal.
    """
    low = tl.min(tl.where(inside, values, 2**29), axis=2) - 1
    high = tl.max(tl.where(inside, values, -(2**29)), axis=2)
    while tl.max(tl.max(high - low, axis=1), axis=0) > 1:
        low, high = _halve(low, high, values, inside, n, 2)
    # Now n values are above `high`, or those that are missing equal it.
    above = inside & (values > high[:, :, None])
    equal = inside & (values == high[:, :, None])
    first, other = equal & before, equal & ~before
    line = tl.arange(0, SIZE)
    left = (line[None, :] < line[:, None])[None, :, :]  # of the diagonal
    place = tl.cumsum(other.to(tl.int32), axis=2) - count(other & left, 2)[:, :, None]
    place += tl.where(left, count(other, 2)[:, :, None], 0)
    place += count(first, 2)[:, :, None]
    place = tl.where(first, tl.cumsum(first.to(tl.int32), axis=2), place)
    room = n - count(above, 2)
    return above | (equal & (place <= room[:, :, None]))


@triton.jit
def _choose(q, v, inside, real, before, n: tl.constexpr, SIZE: tl.constexpr):
    """Residuals for column prices, the n largest of each row, and what columns have too much of."""
    r = tl.where(inside, q - v[:, None, :], -_FAR)
    x = _largest(r, inside, before, n, SIZE)
    return r, x, tl.where(real, tl.sum(x.to(tl.int32), axis=1) - n, 0)


@triton.jit
def _power_of_two(exponent):
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _exponent(scores):
    """The exponent of the largest score of each block, as float32 has it, plus 127."""
    top = tl.max(tl.max(scores, axis=2), axis=1)
    return tl.maximum(top.to(tl.int32, bitcast=True) >> 23, 1)


@triton.jit
def _solve(
    scores, mask, prices, start, old, paths, bad,
    blocks, grid_rows, grid_columns, rows, columns,
    stride_matrix, stride_row, stride_column,
    n: tl.constexpr, m: tl.constexpr, SIZE: tl.constexpr, BLOCKS: tl.constexpr,
    ROUNDS: tl.constexpr, ABSOLUTE: tl.constexpr, WARM: tl.constexpr, PRICES: tl.constexpr,
    COUNT: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    matrix, row, column, own = entries(
        block, blocks, grid_rows, grid_columns, rows, columns, m, SIZE
    )
    source = matrix * stride_matrix + row * stride_row + column * stride_column
    s = load_finite(scores, source, own, bad, ABSOLUTE)
    exponent = _exponent(tl.abs(s))
    first = (150 - exponent) // 2
    scale = (
        _power_of_two(first)[:, None, None],
        _power_of_two(150 - exponent - first)[:, None, None],
    )
    scaled = s * scale[0] * scale[1]
    # Not floor(scaled + 0.5): of odd integers of 24 bits that sum is rounded.
    whole = tl.floor(scaled)
    q = whole.to(tl.int32) + (scaled - whole >= 0.5).to(tl.int32)

    # Rows and columns beyond m have no part in anything.
    line = tl.arange(0, SIZE)
    real = (line < m)[None, :]
    inside = real[:, :, None] & real[:, None, :]
    v = tl.zeros((BLOCKS, SIZE), tl.int32)
    before = tl.zeros((BLOCKS, SIZE, SIZE), tl.int1)
    priced = (block < blocks)[:, None] & real
    price = block[:, None] * m + line[None, :]
    target = (matrix * rows + row) * columns + column
    unit = (
        1 / scale[0].reshape(BLOCKS, 1).to(tl.float64) / scale[1].reshape(BLOCKS, 1).to(tl.float64)
    )
    if WARM:
        begin = tl.load(start + price, mask=priced, other=0) / unit
        begin = tl.minimum(tl.maximum(begin, -(2.0**25)), 2.0**25)
        v = tl.floor(begin + 0.5).to(tl.int32)
        before = tl.load(old + target, mask=own, other=0) != 0
        r, x, surplus = _choose(q, v, inside, real, before, n, SIZE)
        proven, old_v = tl.max(surplus, axis=1) <= 0, v
        if tl.max(tl.max(surplus, axis=1), axis=0) > 0:
            u = tl.zeros((BLOCKS, SIZE), tl.int32)
            u, v = _ascend(q, u, v, inside, real, _FAR // 2, n, 8)
            for _ in tl.static_range(ROUNDS - 1):
                u, v = _ascend(q, u, v, inside, real, _NEAR, n, 6)
            # Whatever stands beside it, what is proven stays as it is.
            v = tl.where(proven[:, None], old_v, v)
            r, x, surplus = _choose(q, v, inside, real, before, n, SIZE)
    else:
        u = tl.zeros((BLOCKS, SIZE), tl.int32)
        u, v = _ascend(q, u, v, inside, real, _FAR // 2, n, 8)
        for _ in tl.static_range(ROUNDS - 1):
            u, v = _ascend(q, u, v, inside, real, _NEAR, n, 6)
        r, x, surplus = _choose(q, v, inside, real, before, n, SIZE)
    taken = tl.zeros((BLOCKS,), tl.int32)
    while tl.max(tl.max(surplus, axis=1), axis=0) > 0:
        distance = tl.where(surplus > 0, 0, _FAR)
        reached = tl.full((BLOCKS, SIZE), _FAR, tl.int32)  # rows
        by_row = tl.zeros((BLOCKS, SIZE), tl.int32)
        by_column = tl.zeros((BLOCKS, SIZE), tl.int32)
        shorter = 1
        while shorter > 0:
            leave = tl.where(x & (distance < _FAR)[:, None, :], distance[:, None, :] + r, _FAR)
            best, place = tl.min(leave, axis=2, return_indices=True)
            better = best < reached
            reached = tl.where(better, best, reached)
            by_column = tl.where(better, place, by_column)
            enter = inside & ~x & (reached < _FAR)[:, :, None]
            best, place = tl.min(
                tl.where(enter, reached[:, :, None] - r, _FAR), axis=1, return_indices=True
            )
            better = best < distance
            distance = tl.where(better, best, distance)
            by_row = tl.where(better, place, by_row)
            shorter = tl.max(tl.max(better.to(tl.int32), axis=1), axis=0)
        short = tl.where(surplus < 0, distance, _FAR)
        length, at = tl.min(short, axis=1, return_indices=True)
        going = tl.max(surplus, axis=1) > 0
        taken += going.to(tl.int32)
        raised = tl.where(going[:, None] & real, tl.minimum(distance, length[:, None]), 0)
        v -= raised
        r = tl.where(inside, r + raised[:, None, :], r)
        while tl.max(going.to(tl.int32), axis=0) > 0:
            here = (line[None, :] == at[:, None]) & going[:, None]
            i = tl.sum(tl.where(here, by_row, 0), axis=1)
            through = (line[None, :] == i[:, None]) & going[:, None]
            j = tl.sum(tl.where(through, by_column, 0), axis=1)
            there_now = line[None, :] == j[:, None]
            x = (x | (through[:, :, None] & here[:, None, :])) & ~(
                through[:, :, None] & there_now[:, None, :]
            )
            at = tl.where(going, j, at)
            going &= tl.sum(tl.where(there_now, surplus, 0), axis=1) <= 0
        surplus = tl.where(real, tl.sum(x.to(tl.int32), axis=1) - n, 0)

    tl.store(mask + target, x.to(tl.int8), mask=own)
    if COUNT:
        tl.store(paths + block, taken, mask=block < blocks)
    if PRICES:
        tl.store(prices + price, v.to(tl.float64) * unit, mask=priced)


class Start(NamedTuple):
    """Where a search may begin: column prices (blocks, m) float64 and a mask (K, R, C), contiguous."""

    prices: torch.Tensor
    mask: torch.Tensor


def find_masks(
    scores: torch.Tensor,
    n: int,
    m: int,
    *,
    absolute: bool = True,
    start: Start | None = None,
    want_prices: bool = False,
    paths: torch.Tensor | None = None,
    blocks_each: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Find the masks of matrices.

    Parameters
    ----------
    scores : (K, R, C) Tensor of float16, bfloat16 or float32
        Any strides. Ragged edges count as padded by zeros.
    n, m : int
        0 < n < m <= 32.
    absolute : bool
        Take magnitudes.
    start : Start, optional
        An earlier answer for scores like these: where its prices still prove a mask, that is all;
        else the ascent begins with them.
    want_prices : bool
    paths : (blocks,) int32 Tensor, optional
        Gets the number of augmenting paths that each block took.
    blocks_each : int, optional
        Blocks to a program, a power of 2.

    Returns
    -------
    mask : (K, R, C) bool Tensor
    prices : (blocks, m) float64 Tensor or None
        Column prices in the unit of the scores, exact.
    bad : (1,) int32 Tensor
        1 if a score is not finite; the mask means nothing then. Nothing waits for it here.
    """
    grid = grid_of(scores, m)
    mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    bad = torch.zeros(1, dtype=torch.int32, device=scores.device)
    prices = (
        torch.empty(grid[0], m, dtype=torch.float64, device=scores.device) if want_prices else None
    )
    begin, old = (None, None) if start is None else (start.prices, start.mask.view(torch.int8))
    size, each, warps = padded(m, blocks_each)
    if mask.numel():
        _solve[(triton.cdiv(grid[0], each),)](
            scores, mask.view(torch.int8), prices, begin, old, paths, bad, *grid, *scores.stride(),
            n=n, m=m, SIZE=size, BLOCKS=each, ROUNDS=2 if start is not None else 3,
            ABSOLUTE=absolute, WARM=start is not None, PRICES=want_prices, COUNT=paths is not None,
            num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
    return mask, prices, bad
