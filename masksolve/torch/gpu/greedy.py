r"""Greedy masks, the same as the core's: the largest first while row and column have room.

Scores become the core's integers :math:`q = \mathrm{rint}(2^{40 - e} s)`, the largest of a block in
:math:`[2^{e-1}, 2^e)`; a key holds q and the place, so that no two are equal and the smaller index
comes first.

1. *Rounds*: an entry with the largest key of those that may still be kept, in its row and in its
   column, is what the sequential greedy keeps as well: none before it takes its room. All such
   entries are kept at once, then what lies in full rows and columns is out.
2. *Completion* to exactly n: for the first row i with room, keep (i, c), drop (p, c), keep (p, j),
   for the best column j with room, p and c; of equal ones the first p, then j, then c. A maximal
   mask has such a path: rows and columns with room meet in kept entries.
3. A completed mask with less than n/m of the block's score gives way to the best n neighbouring
   diagonals, which have as much.
"""

import torch
import triton
import triton.language as tl

from .blocks import count, entries, grid_of, load_finite, padded

__all__ = ["find_masks"]

_NONE = tl.constexpr(-(2**62))
_BITS = tl.constexpr(10)  # of a place, for m <= 32


@triton.jit
def _fixed_point(s):
    """Integers of 40 bits relative to the largest of each block, halves to the even one."""
    s = s.to(tl.float64)  # in which no float32 is denormal
    top = tl.max(tl.max(tl.abs(s), axis=2), axis=1)
    exponent = tl.maximum((top.to(tl.int64, bitcast=True) >> 52) - 1022, -160)
    scale = ((40 - exponent + 1023) << 52).to(tl.float64, bitcast=True)
    scaled = s * scale[:, None, None]
    whole = tl.floor(scaled)
    q, rest = whole.to(tl.int64), scaled - whole
    return q + ((rest > 0.5) | ((rest == 0.5) & (q & 1 == 1))).to(tl.int64)


@triton.jit
def _any(flags):
    return tl.max(tl.max(tl.max(flags.to(tl.int32), axis=2), axis=1), axis=0) > 0


@triton.jit
def _descend(q, live, n: tl.constexpr, SIZE: tl.constexpr):
    """What the greedy keeps of the entries that are live."""
    line = tl.arange(0, SIZE)
    key = (q << _BITS) - (line[:, None] * SIZE + line[None, :])[None, :, :]
    x = tl.zeros(q.shape, tl.int1)
    while _any(live):
        key = tl.where(live, key, _NONE)
        best = tl.maximum(tl.max(key, axis=2)[:, :, None], tl.max(key, axis=1)[:, None, :])
        x = x | (live & (key == best))
        live = live & ~x & (count(x, 2) < n)[:, :, None] & (count(x, 1) < n)[:, None, :]
    return x


@triton.jit
def _complete(q, x, real, n: tl.constexpr, SIZE: tl.constexpr):
    """A maximal mask, brought to exactly n a line."""
    line = tl.arange(0, SIZE)[None, :]
    lacking = real & (count(x, 2) < n)
    while tl.max(tl.max(lacking.to(tl.int32), axis=1), axis=0) > 0:
        going = tl.max(lacking.to(tl.int32), axis=1)[:, None, None] > 0
        row = tl.min(tl.where(lacking, line, SIZE), axis=1)
        first = (line == row[:, None])[:, :, None]
        own = tl.sum(tl.where(first, q, 0), axis=1)[:, None, :]
        has = count(first & x, 1)[:, None, :] > 0
        gain, through = tl.max(tl.where(x & ~has, own - q, _NONE), axis=2, return_indices=True)
        open_ = (real & (count(x, 1) < n))[:, None, :]
        value = tl.where(~x & open_ & (gain > _NONE)[:, :, None], gain[:, :, None] + q, _NONE)
        value, column_of = tl.max(value, axis=2, return_indices=True)
        _, other = tl.max(value, axis=1, return_indices=True)
        other_row = line == other[:, None]
        to = line == tl.sum(tl.where(other_row, column_of, 0), axis=1)[:, None]
        via = line == tl.sum(tl.where(other_row, through, 0), axis=1)[:, None]
        other, to, via = other_row[:, :, None], to[:, None, :], via[:, None, :]
        x = (x | (going & ((first & via) | (other & to)))) & ~(going & other & via)
        lacking = real & (count(x, 2) < n)
    return x


@triton.jit
def _sum(values):
    return tl.sum(tl.sum(values, axis=2), axis=1)


@triton.jit
def _diagonals(first, n: tl.constexpr, m: tl.constexpr, SIZE: tl.constexpr):
    """The entries of n neighbouring diagonals from one on, wrapped around."""
    line = tl.arange(0, SIZE)
    away = (line[None, :] - line[:, None] + m)[None, :, :] - first
    return tl.where(away < 0, away + m, tl.where(away >= m, away - m, away)) < n


@triton.jit
def _search(
    scores, mask, bad, blocks, grid_rows, grid_columns, rows, columns,
    stride_matrix, stride_row, stride_column,
    n: tl.constexpr, m: tl.constexpr, SIZE: tl.constexpr, BLOCKS: tl.constexpr,
    ABSOLUTE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    matrix, row, column, own = entries(
        block, blocks, grid_rows, grid_columns, rows, columns, m, SIZE
    )
    source = matrix * stride_matrix + row * stride_row + column * stride_column
    q = _fixed_point(load_finite(scores, source, own, bad, ABSOLUTE))
    real = (tl.arange(0, SIZE) < m)[None, :]
    inside = real[:, :, None] & real[:, None, :]
    x = _descend(q, inside & (q >= (_NONE if EXACT else 0)), n, SIZE)
    if EXACT:
        maximal = count(x, 2)
        short = tl.max((real & (maximal < n)).to(tl.int32), axis=1) > 0
        x = _complete(q, x, real, n, SIZE)
        poor = short & (_sum(tl.where(x, q, 0)) * m < n * _sum(q))
        if tl.max(poor.to(tl.int32), axis=0) > 0:
            best, record = tl.zeros((BLOCKS,), tl.int32), tl.full((BLOCKS,), _NONE, tl.int64)
            for first in range(m):
                value = _sum(tl.where(inside & _diagonals(first, n, m, SIZE), q, 0))
                best = tl.where(value > record, first, best)
                record = tl.maximum(record, value)
            instead = inside & _diagonals(best[:, None, None], n, m, SIZE)
            x = tl.where(poor[:, None, None], instead, x)
    tl.store(mask + (matrix * rows + row) * columns + column, x.to(tl.int8), mask=own)


def find_masks(
    scores: torch.Tensor,
    n: int,
    m: int,
    *,
    exact: bool = True,
    absolute: bool = True,
    blocks_each: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the greedy masks of matrices.

    Parameters
    ----------
    scores : (K, R, C) Tensor of float16, bfloat16 or float32
        Any strides. Ragged edges count as padded by zeros.
    n, m : int
        0 < n < m <= 32.
    exact : bool
        Complete to exactly n a line; else at most n, and no negative score.
    absolute : bool
        Take magnitudes.
    blocks_each : int, optional
        Blocks to a program, a power of 2.

    Returns
    -------
    mask : (K, R, C) bool Tensor
    bad : (1,) int32 Tensor
        1 if a score is not finite; the mask means nothing then. Nothing waits for it here.
    """
    grid = grid_of(scores, m)
    mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    bad = torch.zeros(1, dtype=torch.int32, device=scores.device)
    size, each, warps = padded(m, blocks_each)
    if mask.numel():
        _search[(triton.cdiv(grid[0], each),)](
            scores, mask.view(torch.int8), bad, *grid, *scores.stride(),
            n=n, m=m, SIZE=size, BLOCKS=each, ABSOLUTE=absolute, EXACT=exact,
            num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
    return mask, bad
