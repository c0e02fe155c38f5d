r"""The best 2:4 mask of every 4×4 block, among all of them, in float32: a thread takes a block.

The upper two rows, s and r, and the lower two are looked at apart. What the upper rows keep in the
four columns sums up to one of 19 vectors, and the lower rows must add what is missing to 2:

- two columns twice (6 vectors, one choice each): :math:`t_a + t_b` with :math:`t_k = s_k + r_k`;
- one twice, two once (12 vectors): :math:`t_c + w_{ab}` with
  :math:`w_{ab} = \max(s_a + r_b, s_b + r_a)`;
- all once (1 vector): the best pair of s, and the other columns of r.

So 19 sums of an upper and a lower value are compared. Choices within a vector are made again once
the vector is known, which is cheaper than to carry all of them along.

Of the 186 maximal masks with *at most* two, the 90 above have eight entries. The other 96 have seven: an
entry (i, p(i)) of a permutation p is alone in its row and its column, and of the other rows and columns
all is kept but the rest of p. With T, R and C the sums of block, rows and columns, such a mask is worth

.. math:: T - \Big(\sum_k s_{k p(k)} + g_{i p(i)}\Big) \qquad g_{ij} = R_i + C_j - 3 s_{ij},

so the cheapest two entries of the upper rows, in a pair of columns, and of the lower rows, in the other
pair, are put together, one of the four with its g.
"""

import torch
import triton
import triton.language as tl

from .blocks import grid_of

__all__ = ["find_masks"]

#: So many blocks are numbered in 32 bits, those of the last program too.
_FEW = 2**31 - 2**16


@triton.jit
def _twice(s0, s1, s2, s3, r0, r1, r2, r3):
    """The best values of two rows that keep the column pairs 01, 02, 03, 12, 13, 23 twice."""
    t0, t1, t2, t3 = s0 + r0, s1 + r1, s2 + r2, s3 + r3
    return t0 + t1, t0 + t2, t0 + t3, t1 + t2, t1 + t3, t2 + t3


@triton.jit
def _once(s0, s1, s2, s3, r0, r1, r2, r3):
    """The best values w of one entry in each row, for the column pairs 01, 02, 03, 12, 13, 23."""
    return (
        tl.maximum(s0 + r1, s1 + r0), tl.maximum(s0 + r2, s2 + r0), tl.maximum(s0 + r3, s3 + r0),
        tl.maximum(s1 + r2, s2 + r1), tl.maximum(s1 + r3, s3 + r1), tl.maximum(s2 + r3, s3 + r2),
    )  # fmt: skip


@triton.jit
def _split(s0, s1, s2, s3, r0, r1, r2, r3):
    """The best value of two rows that share out the columns two by two, and the pair of the first."""
    best, pair = (s0 + s1) + (r2 + r3), tl.full(s0.shape, 3, tl.int32)
    best, pair = _better(best, pair, (s0 + s2) + (r1 + r3), 5)
    best, pair = _better(best, pair, (s0 + s3) + (r1 + r2), 9)
    best, pair = _better(best, pair, (s1 + s2) + (r0 + r3), 6)
    best, pair = _better(best, pair, (s1 + s3) + (r0 + r2), 10)
    return _better(best, pair, (s2 + s3) + (r0 + r1), 12)


@triton.jit
def _better(best, code, value, its_code):
    """The larger of two values, with its code; the first of equals."""
    more = value > best
    return tl.where(more, value, best), tl.where(more, its_code, code)


@triton.jit
def _first(ones, split, s0, s1, s2, s3, r0, r1, r2, r3):
    """The columns that the first of two rows takes of those that they keep once."""
    one = tl.where(ones == 15, split, 0)
    one = tl.where(ones == 3, tl.where(s0 + r1 >= s1 + r0, 1, 2), one)
    one = tl.where(ones == 5, tl.where(s0 + r2 >= s2 + r0, 1, 4), one)
    one = tl.where(ones == 9, tl.where(s0 + r3 >= s3 + r0, 1, 8), one)
    one = tl.where(ones == 6, tl.where(s1 + r2 >= s2 + r1, 2, 4), one)
    one = tl.where(ones == 10, tl.where(s1 + r3 >= s3 + r1, 2, 8), one)
    return tl.where(ones == 12, tl.where(s2 + r3 >= s3 + r2, 4, 8), one)


@triton.jit
def _exactly_two(
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3
):  # fmt: skip
    """The best mask as 16 bits, row by row from the lowest, and its value."""
    x01, x02, x03, x12, x13, x23 = _twice(a0, a1, a2, a3, b0, b1, b2, b3)
    y01, y02, y03, y12, y13, y23 = _twice(c0, c1, c2, c3, d0, d1, d2, d3)
    v01, v02, v03, v12, v13, v23 = _once(a0, a1, a2, a3, b0, b1, b2, b3)
    w01, w02, w03, w12, w13, w23 = _once(c0, c1, c2, c3, d0, d1, d2, d3)
    upper, upper_pair = _split(a0, a1, a2, a3, b0, b1, b2, b3)
    lower, lower_pair = _split(c0, c1, c2, c3, d0, d1, d2, d3)
    e0, e1, e2, e3 = a0 + b0, a1 + b1, a2 + b2, a3 + b3
    f0, f1, f2, f3 = c0 + d0, c1 + d1, c2 + d2, c3 + d3
    # Codes: the columns that the upper rows keep twice, and 16 times those that they keep once.
    best, code = upper + lower, tl.full(a0.shape, 240, tl.int32)
    best, code = _better(best, code, x01 + y23, 3)
    best, code = _better(best, code, x02 + y13, 5)
    best, code = _better(best, code, x03 + y12, 9)
    best, code = _better(best, code, x12 + y03, 6)
    best, code = _better(best, code, x13 + y02, 10)
    best, code = _better(best, code, x23 + y01, 12)
    best, code = _better(best, code, (e0 + v12) + (f3 + w12), 1 + 16 * 6)
    best, code = _better(best, code, (e0 + v13) + (f2 + w13), 1 + 16 * 10)
    best, code = _better(best, code, (e0 + v23) + (f1 + w23), 1 + 16 * 12)
    best, code = _better(best, code, (e1 + v02) + (f3 + w02), 2 + 16 * 5)
    best, code = _better(best, code, (e1 + v03) + (f2 + w03), 2 + 16 * 9)
    best, code = _better(best, code, (e1 + v23) + (f0 + w23), 2 + 16 * 12)
    best, code = _better(best, code, (e2 + v01) + (f3 + w01), 4 + 16 * 3)
    best, code = _better(best, code, (e2 + v03) + (f1 + w03), 4 + 16 * 9)
    best, code = _better(best, code, (e2 + v13) + (f0 + w13), 4 + 16 * 10)
    best, code = _better(best, code, (e3 + v01) + (f2 + w01), 8 + 16 * 3)
    best, code = _better(best, code, (e3 + v02) + (f1 + w02), 8 + 16 * 5)
    best, code = _better(best, code, (e3 + v12) + (f0 + w12), 8 + 16 * 6)
    twice, once = code & 15, code >> 4
    first = _first(once, upper_pair, a0, a1, a2, a3, b0, b1, b2, b3)
    third = _first(once, lower_pair, c0, c1, c2, c3, d0, d1, d2, d3)
    below = 15 & ~(twice | once)
    bits = (twice | first) | (twice | (once & ~first)) << 4
    return bits | (below | third) << 8 | (below | (once & ~third)) << 12, best


@triton.jit
def _without(I: tl.constexpr, J: tl.constexpr, K: tl.constexpr, L: tl.constexpr):
    """All bits but those of row I, of column J and of entry (K, L); and with entry (I, J)."""
    return (65535 & ~(15 << (4 * I)) & ~(4369 << J) & ~(1 << (4 * K + L))) | (1 << (4 * I + J))


@triton.jit
def _cheapest(
    sa, sb, ra, rb, gsa, gsb, gra, grb,
    ROW: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """The cheapest entries, one of each of two rows, in columns A and B.

    First as they are: their cost, and all bits but theirs. Then with one alone, and its g.
    """
    NEXT: tl.constexpr = ROW + 1
    direct, crossed = sa + rb, sb + ra
    two, kept_two = _cheaper(
        direct, tl.full(sa.shape, 65535 & ~(1 << (4 * ROW + A)) & ~(1 << (4 * NEXT + B)), tl.int32),
        crossed, 65535 & ~(1 << (4 * ROW + B)) & ~(1 << (4 * NEXT + A)),
    )  # fmt: skip
    one, kept = direct + gsa, tl.full(sa.shape, _without(ROW, A, NEXT, B), tl.int32)
    one, kept = _cheaper(one, kept, direct + grb, _without(NEXT, B, ROW, A))
    one, kept = _cheaper(one, kept, crossed + gsb, _without(ROW, B, NEXT, A))
    one, kept = _cheaper(one, kept, crossed + gra, _without(NEXT, A, ROW, B))
    return two, kept_two, one, kept


@triton.jit
def _cheaper(least, code, cost, its_code):
    less = cost < least
    return tl.where(less, cost, least), tl.where(less, its_code, code)


@triton.jit
def _join_halves(least, bits, two, kept_two, one, kept, two_below, kept_two_below, one_below, kept_below):  # fmt: skip
    least, bits = _cheaper(least, bits, one + two_below, kept & kept_two_below)
    return _cheaper(least, bits, two + one_below, kept_two & kept_below)


@triton.jit
def _seven(
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3
):  # fmt: skip
    """The best mask of seven entries as 16 bits, and its value."""
    a, b, c, d = (a0 + a1) + (a2 + a3), (b0 + b1) + (b2 + b3), (c0 + c1) + (c2 + c3), (d0 + d1) + (d2 + d3)  # fmt: skip
    e0, e1, e2, e3 = (a0 + b0) + (c0 + d0), (a1 + b1) + (c1 + d1), (a2 + b2) + (c2 + d2), (a3 + b3) + (c3 + d3)  # fmt: skip
    ga0, ga1, ga2, ga3 = a + e0 - 3 * a0, a + e1 - 3 * a1, a + e2 - 3 * a2, a + e3 - 3 * a3
    gb0, gb1, gb2, gb3 = b + e0 - 3 * b0, b + e1 - 3 * b1, b + e2 - 3 * b2, b + e3 - 3 * b3
    gc0, gc1, gc2, gc3 = c + e0 - 3 * c0, c + e1 - 3 * c1, c + e2 - 3 * c2, c + e3 - 3 * c3
    gd0, gd1, gd2, gd3 = d + e0 - 3 * d0, d + e1 - 3 * d1, d + e2 - 3 * d2, d + e3 - 3 * d3
    t01, k01, u01, l01 = _cheapest(a0, a1, b0, b1, ga0, ga1, gb0, gb1, 0, 0, 1)
    t02, k02, u02, l02 = _cheapest(a0, a2, b0, b2, ga0, ga2, gb0, gb2, 0, 0, 2)
    t03, k03, u03, l03 = _cheapest(a0, a3, b0, b3, ga0, ga3, gb0, gb3, 0, 0, 3)
    t12, k12, u12, l12 = _cheapest(a1, a2, b1, b2, ga1, ga2, gb1, gb2, 0, 1, 2)
    t13, k13, u13, l13 = _cheapest(a1, a3, b1, b3, ga1, ga3, gb1, gb3, 0, 1, 3)
    t23, k23, u23, l23 = _cheapest(a2, a3, b2, b3, ga2, ga3, gb2, gb3, 0, 2, 3)
    v01, m01, w01, n01 = _cheapest(c0, c1, d0, d1, gc0, gc1, gd0, gd1, 2, 0, 1)
    v02, m02, w02, n02 = _cheapest(c0, c2, d0, d2, gc0, gc2, gd0, gd2, 2, 0, 2)
    v03, m03, w03, n03 = _cheapest(c0, c3, d0, d3, gc0, gc3, gd0, gd3, 2, 0, 3)
    v12, m12, w12, n12 = _cheapest(c1, c2, d1, d2, gc1, gc2, gd1, gd2, 2, 1, 2)
    v13, m13, w13, n13 = _cheapest(c1, c3, d1, d3, gc1, gc3, gd1, gd3, 2, 1, 3)
    v23, m23, w23, n23 = _cheapest(c2, c3, d2, d3, gc2, gc3, gd2, gd3, 2, 2, 3)
    least, bits = u01 + v23, l01 & m23
    least, bits = _cheaper(least, bits, t01 + w23, k01 & n23)
    least, bits = _join_halves(least, bits, t02, k02, u02, l02, v13, m13, w13, n13)
    least, bits = _join_halves(least, bits, t03, k03, u03, l03, v12, m12, w12, n12)
    least, bits = _join_halves(least, bits, t12, k12, u12, l12, v03, m03, w03, n03)
    least, bits = _join_halves(least, bits, t13, k13, u13, l13, v02, m02, w02, n02)
    least, bits = _join_halves(least, bits, t23, k23, u23, l23, v01, m01, w01, n01)
    return bits, ((a + b) + (c + d)) - least


@triton.jit
def _columns(scores, there, column, columns, stride_column, BLOCKS: tl.constexpr):
    """Load a row of every block, and give its four entries; 0 beyond the edges."""
    at = column[:, None] + tl.arange(0, 4)[None, :]
    own = there[:, None] & (at < columns)
    raw = tl.load(scores[:, None] + at * stride_column, mask=own, other=0)
    even, odd = tl.split(tl.reshape(raw, (BLOCKS, 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first.to(tl.float32), second.to(tl.float32), third.to(tl.float32), fourth.to(tl.float32)


@triton.jit
def _weight(a, b, c, d):
    """A 256th of the magnitudes' sum: finite if they are, however large."""
    small: tl.constexpr = 2.0**-8
    return (tl.abs(a) * small + tl.abs(b) * small) + (tl.abs(c) * small + tl.abs(d) * small)


@triton.jit
def _scores(a, b, c, d, factor, ABSOLUTE: tl.constexpr, EXACT: tl.constexpr):
    if ABSOLUTE:
        a, b, c, d = tl.abs(a), tl.abs(b), tl.abs(c), tl.abs(d)
    elif not EXACT:
        a, b, c, d = tl.maximum(a, 0), tl.maximum(b, 0), tl.maximum(c, 0), tl.maximum(d, 0)
    return a * factor, b * factor, c * factor, d * factor


@triton.jit
def _negative(a, b, c, d, ROW: tl.constexpr):
    """The bits of entries below 0."""
    bits = (a < 0).to(tl.int32) | (b < 0).to(tl.int32) << 1 | (c < 0).to(tl.int32) << 2
    return (bits | (d < 0).to(tl.int32) << 3) << (4 * ROW)


@triton.jit
def _store(
    mask, scores, masked, bits, there, column, columns, stride_column, out_stride_column,
    ROW: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    at = column[:, None] + tl.arange(0, 4)[None, :]
    own = there[:, None] & (at < columns)
    keep = (bits[:, None] >> (4 * ROW + tl.arange(0, 4)[None, :])) & 1
    tl.store(mask[:, None] + at * out_stride_column, keep.to(tl.int8), mask=own)
    if MASKED:
        raw = tl.load(scores[:, None] + at * stride_column, mask=own, other=0)
        kept = tl.where(keep == 1, raw, 0)
        tl.store(masked[:, None] + at * out_stride_column, kept.to(raw.dtype), mask=own)


@triton.jit
def _search(
    scores, mask, masked, bad, blocks, grid_rows, grid_columns, rows, columns,
    stride_matrix, stride_row, stride_column, out_stride_matrix, out_stride_row, out_stride_column,
    BLOCKS: tl.constexpr, ABSOLUTE: tl.constexpr, EXACT: tl.constexpr, MASKED: tl.constexpr,
    MANY: tl.constexpr,
):  # fmt: skip
    # Numbers of blocks in 32 bits, if they fit: a division in 64 takes as long as a third of the search.
    first = tl.program_id(0).to(tl.int64) if MANY else tl.program_id(0)
    block = first * BLOCKS + tl.arange(0, BLOCKS)
    line = block // grid_columns  # of blocks, in all matrices
    matrix = line // grid_rows
    row = (line - matrix * grid_rows).to(tl.int64) * 4
    column = (block - line * grid_columns).to(tl.int64) * 4
    matrix = matrix.to(tl.int64)
    # In 64 bits: three rows may be further than 32 reach.
    stride_row, out_stride_row = tl.cast(stride_row, tl.int64), tl.cast(out_stride_row, tl.int64)
    valid = block < blocks
    one, two = valid & (row < rows), valid & (row + 1 < rows)
    three, four = valid & (row + 2 < rows), valid & (row + 3 < rows)
    source = scores + matrix * stride_matrix + row * stride_row
    a0, a1, a2, a3 = _columns(source, one, column, columns, stride_column, BLOCKS)
    b0, b1, b2, b3 = _columns(source + stride_row, two, column, columns, stride_column, BLOCKS)
    c0, c1, c2, c3 = _columns(
        source + 2 * stride_row, three, column, columns, stride_column, BLOCKS
    )
    d0, d1, d2, d3 = _columns(source + 3 * stride_row, four, column, columns, stride_column, BLOCKS)

    weight = _weight(a0, a1, a2, a3) + _weight(b0, b1, b2, b3)
    weight += _weight(c0, c1, c2, c3) + _weight(d0, d1, d2, d3)
    finite = weight < float("inf")
    tl.atomic_max(bad, 1, mask=tl.min(finite.to(tl.int32), axis=0) == 0)
    factor = tl.where(weight > 2.0**110, 2.0**-8, 1.0)  # no sum of scores overflows

    dropped = tl.full((BLOCKS,), 0, tl.int32)
    if not ABSOLUTE and not EXACT:
        dropped = _negative(a0, a1, a2, a3, 0) | _negative(b0, b1, b2, b3, 1)
        dropped |= _negative(c0, c1, c2, c3, 2) | _negative(d0, d1, d2, d3, 3)
    a0, a1, a2, a3 = _scores(a0, a1, a2, a3, factor, ABSOLUTE, EXACT)
    b0, b1, b2, b3 = _scores(b0, b1, b2, b3, factor, ABSOLUTE, EXACT)
    c0, c1, c2, c3 = _scores(c0, c1, c2, c3, factor, ABSOLUTE, EXACT)
    d0, d1, d2, d3 = _scores(d0, d1, d2, d3, factor, ABSOLUTE, EXACT)
    bits, value = _exactly_two(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3)
    if not EXACT:
        fewer, its = _seven(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3)
        bits = tl.where(its > value, fewer, bits) & ~dropped

    target = matrix * out_stride_matrix + row * out_stride_row
    out, kept = mask + target, masked + target
    _store(out, source, kept, bits, one, column, columns, stride_column, out_stride_column, 0, MASKED)  # fmt: skip
    _store(out + out_stride_row, source + stride_row, kept + out_stride_row, bits, two, column, columns, stride_column, out_stride_column, 1, MASKED)  # fmt: skip
    _store(out + 2 * out_stride_row, source + 2 * stride_row, kept + 2 * out_stride_row, bits, three, column, columns, stride_column, out_stride_column, 2, MASKED)  # fmt: skip
    _store(out + 3 * out_stride_row, source + 3 * stride_row, kept + 3 * out_stride_row, bits, four, column, columns, stride_column, out_stride_column, 3, MASKED)  # fmt: skip


def find_masks(
    scores: torch.Tensor,
    *,
    exact: bool = True,
    absolute: bool = True,
    masked: bool = False,
    blocks_each: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Find the 2:4 masks of matrices, and at will the masked matrices in the same pass.

    Parameters
    ----------
    scores : (K, R, C) Tensor of float16, bfloat16 or float32
        Any strides; ragged edges count as padded by zeros.
    exact : bool
        Exactly two in every line; else at most two.
    absolute : bool
        Take magnitudes.
    masked : bool
    blocks_each : int, optional
        Blocks to a program, a power of 2.

    Returns
    -------
    mask : (K, R, C) bool Tensor
        In the memory order of `scores`.
    masked : Tensor like `scores`, or None
        The scores where the mask keeps them, 0 elsewhere.
    bad : (1,) int32 Tensor
        1 if a score is not finite; the mask means nothing then. Nothing waits for it here.
    """
    mask = torch.empty_like(scores, dtype=torch.bool)
    values = torch.empty_like(scores) if masked else None
    bad = torch.zeros(1, dtype=torch.int32, device=scores.device)
    # Masks of the transpose are transposes of masks: threads walk along what is contiguous.
    turned = scores.stride(1) < scores.stride(2)
    source, target = (t.transpose(1, 2) if turned else t for t in (scores, mask))
    grid, each = grid_of(source, 4), blocks_each or 128
    if mask.numel():
        _search[(triton.cdiv(grid[0], each),)](
            source, target.view(torch.int8), target.view(torch.int8) if values is None else values, bad,
            *grid, *source.stride(), *target.stride(),
            BLOCKS=each, ABSOLUTE=absolute, EXACT=exact, MASKED=masked, MANY=grid[0] > _FEW,
            num_warps=max(1, min(4, each // 32)), enable_fp_fusion=False,
        )  # fmt: skip
    return mask, values, bad
