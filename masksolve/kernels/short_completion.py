"""Completion of masks of `short_keys` on `LANES` blocks at once, by the rule of `completion`.

Sums of three scores are found in the floats that the scores are. Those of float64 are exact, and so are
those of float32 scores that fit into keys. Else, where the best is not ahead of the second best by
more than rounding can be, the block stays *unsure*, as it was, and is left to `completion`; so are the
few that may hold less than their share of all scores.
"""

import numpy as np
from numba import types

from .choosing import choose, larger, smaller
from .compiling import compiled, once
from .fixed_point import SCORE_BITS
from .hints import apart, use_widest
from .lines import LANES, ones, tree
from .pointers import address, caller
from .scratch import aligned

__all__ = ["call_complete", "complete_scratch", "completer"]

FAR = 2.0 ** (SCORE_BITS + 20)  # from all scores and their sums
#: What rounding can do to two sums of three float32 scores of up to 2**40, each in two steps.
MARGIN = 2.0 ** (SCORE_BITS - 21)
#: And to m times one sum of m * m of them less n times another, where m <= 16.
SUMS_MARGIN = 2.0 ** (SCORE_BITS - 2)
ROWS = 4  # that are gone through at once

_flag, _word, _half = types.boolean, types.uint64, types.uint32


def _scratch_type(scores):
    lines, places = types.UniTuple(scores[:, ::1], 4), types.UniTuple(_half[::1], 6)
    return types.Tuple((_half[:, ::1], lines, _word[:, ::1], places, _flag[::1]))


def _signature(scores):
    kept = types.int32[::1], _word[::1], _flag[::1], _word[:, ::1], _flag[::1]
    return types.void(scores[:, ::1], types.int64, *kept, _scratch_type(scores))


call_complete = caller(lambda *given: _signature(given[0].dtype), raises=False)


def complete_scratch(m, scores):
    """Of lanes: rows of their masks; scores of two rows, gains of all, sums; room; places; a flag."""
    rows, sums = aligned((m, LANES), np.uint32), aligned((2, LANES), scores)
    lines = (*(aligned((m, LANES), scores) for _ in range(3)), sums)
    places = tuple(aligned(LANES, np.uint32) for _ in range(6))
    return rows, lines, aligned((2, LANES), np.uint64), places, aligned(LANES, np.bool_)


def _best(name, value, place):
    """Lines that take one more value into the best, the second best and the place of the best."""
    return f"""
            {name}_next = larger({name}_next, smaller({name}_best, {value}))
            {name}_at = choose({value} > {name}_best, half({place}), {name}_at)
            {name}_best = larger({name}_best, {value})"""


def _begin(*names):
    """Lines that begin with no value."""
    return "; ".join(f"{n}_best, {n}_next, {n}_at = least, least, nothing" for n in names)


def _best_of(name, count):
    return tree("larger({}, {})", [f"{name}{k}" for k in range(count)])


def _each(m, lines):
    """Lines for each column q, one after the other: a loop over the lanes alone LLVM would unroll."""
    return "".join(lines(q) for q in range(m))


def _take_row(m, which):
    """Lines that copy the scores and the kept columns of row which[l] of each lane to `score` and `kept`.

    Of all rows one after the other: LLVM fetches no vectors from places that differ by lane.
    """
    some = min(m, ROWS)
    is_it = "; ".join(f"is{r} = {which}[l] == half(first + {r})" for r in range(some))
    words = "; ".join(f"x = choose(is{r}, rows[first + {r}, l], x)" for r in range(some))
    lines = _each(
        m,
        lambda q: (
            f"""
                x = score[{q}, l]; {"; ".join(f"x = choose(is{r}, Q[(first + {r}) * {m} + {q}, l], x)" for r in range(some))}
                score[{q}, l] = x"""
        ),
    )
    return f"""
        for part in range(0, {m}, {some}):
            first = min(part, {m - some})
            for l in range({LANES}):
                {is_it}
                x = kept_[l]; {words}; kept_[l] = x{lines}"""


def _gains(m):
    """Lines that find what row p gains at most by an exchange with row own[l]."""
    lines = _each(
        m,
        lambda q: (
            f"""
            x = Q[p * {m} + {q}, l]
            by{q} = choose(half(kept & bit{q}) != nothing, own_score[{q}, l] - x, -far)
            to{q} = choose(half(free & bit{q}) != nothing, x, -far)"""
        ),
    )
    return f"""{lines}
            gain[p, l] = {_best_of("by", m)} + {_best_of("to", m)}"""


def _places(m):
    """Lines that find the columns of the exchange with row from_[l]."""
    return _each(
        m,
        lambda q: (
            f"""
            x = score[{q}, l]
            y = choose(half(kept & bit{q}) != nothing, own_score[{q}, l] - x, -far)
            z = choose(half(free & bit{q}) != nothing, x, -far){_best("by", "y", q)}{_best("to", "z", q)}"""
        ),
    )


def _source(m):
    sums = _each(
        m,
        lambda q: (
            f"""
            x = Q[i * {m} + {q}, l]
            total += x
            held += choose(half(kept & bit{q}) != nothing, x, zero)"""
        ),
    )
    can = _each(
        m,
        lambda q: (
            f"""
        can = half(can | half(column_room[l] >> word({4 * q + 3}) & one) << half({q}))"""
        ),
    )
    own = _each(
        m,
        lambda q: (
            f"""
            own_score[{q}, l] = choose(half(kept & bit{q}) != nothing, -far, score[{q}, l])"""
        ),
    )
    row_bests = "".join(f"\n            x = gain[{p}, l]{_best('row', 'x', p)}" for p in range(m))
    return f"""
def complete_{m}(Q, n, lost, state, skip, bits, unsure, scratch):
    apart()
    use_widest()
    rows, (own_score, score, gain, sums), room, places, lacking = scratch
    row_room, column_room = room[0], room[1]
    own, from_, by, to, open_, kept_ = places
    words = rows.reshape(rows.size)
    {"; ".join(f"bit{q} = half({1 << q})" for q in range(m))}
    zero = Q[0, 0] - Q[0, 0]
    far, margin, sums_margin, tied = zero + FAR, zero + MARGIN, zero + SUMS_MARGIN, zero - one_
    least = -far - far
    for i in range({m}):
        for l in range({LANES}):
            rows[i, l] = half(bits[i, l])
    for l in range({LANES}):
        row_room[l], column_room[l] = state[l], state[{LANES} + l]
        lacking[l] = (row_room[l] & tops != none) & ~skip[l]
        unsure[l] = False
        can = nothing{can}
        open_[l] = can
    while True:
        busy = none
        for l in range({LANES}):
            left = row_room[l] & tops
            left = choose(lacking[l] & ~unsure[l], left, none)
            busy |= left
            some = choose(left == none, one, left)
            lower = word(ones(~some & (some - one)))
            own[l] = choose(left == none, half({m}), half(lower >> two))
        if busy == none:
            break{_take_row(m, "own")}
        for l in range({LANES}):
            kept = kept_[l]{own}
        for p in range({m}):
            for l in range({LANES}):
                kept = rows[p, l]
                free = half(open_[l] & ~kept){_gains(m).replace(chr(10), chr(10) + "    ")}
        for l in range({LANES}):
            {_begin("row")}{row_bests}
            from_[l] = row_at
            sums[0, l] = row_best - row_next{_take_row(m, "from_")}
        for l in range({LANES}):
            kept = kept_[l]
            free = half(open_[l] & ~kept)
            {_begin("by", "to")}{_places(m)}
            by[l], to[l] = by_at, to_at
            ahead = smaller(sums[0, l], smaller(by_best - by_next, to_best - to_next))
            fine = (ahead > choose(lost[l] != 0, margin, tied)) & (by_best > -far * half_) & (to_best > -far * half_)
            unsure[l] |= (own[l] < half({m})) & ~fine
        for l in range({LANES}):
            moves = (own[l] < half({m})) & ~unsure[l]
            i, p, amount = choose(moves, own[l], nothing), choose(moves, from_[l], nothing), word(moves)
            q, j = half(amount) << by[l], half(amount) << to[l]
            words[i * lanes + l] ^= half(q)
            words[p * lanes + l] ^= half(q ^ j)
            row_room[l] -= amount << word(i * four)
            column_room[l] -= amount << word(to[l] * four)
            full = (column_room[l] >> word(to[l] * four + three) & one) == none
            open_[l] &= half(~choose(full, half(j), nothing))
    for l in range({LANES}):
        sums[0, l] = sums[1, l] = zero
    for i in range({m}):
        for l in range({LANES}):
            kept, total, held = rows[i, l], sums[0, l], sums[1, l]{sums}
            sums[0, l], sums[1, l] = total, held
    for l in range({LANES}):
        over = sums[1, l] * (zero + {m}) - sums[0, l] * (zero + n)
        unsure[l] |= lacking[l] & ~(over > sums_margin)
    for i in range({m}):
        for l in range({LANES}):
            bits[i, l] = choose(lacking[l] & ~unsure[l], word(rows[i, l]), bits[i, l])
"""


@once
def completer(m, scores):
    """The kernel ``complete(Q, n, lost, state, skip, bits, unsure, scratch)`` for exact scores of that type.

    `lost`, `state` and bits[i, l], row i of the mask of lane l, are what `descend_short` left. The lanes in
    `skip` are left alone; those that are `unsure` then, too.
    """
    exact = scores is types.float64
    scope = {
        "np": np, "apart": apart, "use_widest": use_widest, "__name__": __name__,
        "choose": choose, "larger": larger, "smaller": smaller, "ones": ones,
        "word": np.uint64, "half": np.uint32, "nothing": np.uint32(0), "half_": np.float32(0.5),
        "none": np.uint64(0), "one": np.uint64(1), "two": np.uint64(2), "three": np.uint64(3),
        "four": np.uint64(4), "lanes": np.uint64(LANES),
        "tops": np.uint64(0x8888888888888888 & ((1 << 4 * m) - 1)),
        "FAR": np.float32(FAR), "MARGIN": np.float32(-1 if exact else MARGIN),
        "SUMS_MARGIN": np.float32(-1 if exact else SUMS_MARGIN), "one_": np.float32(1),
    }  # fmt: skip
    signature, name = _signature(scores), f"complete_{m}"
    return address(compiled(_source(m), name, __file__, scope, signature), signature)
