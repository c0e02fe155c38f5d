"""Potentials of optimal masks on raw scores: shortest distances in `LANES` residual graphs at once.

For an engine that finds masks without prices. The graphs are those of `masksolve.residual`: an arc
from row to column of cost -q where an entry is not kept, an arc back of cost q where it is; with
`at_most` also the slack, which is open to lines that keep fewer than n.
"""

import functools

import numpy as np
from numba import typeof, types

from .choosing import smaller
from .compiling import compiled, jit, once
from .dealing import call_spread, deals, spread_signature, spreader
from .entries import every_entry
from .hints import apart, use_widest
from .lines import LANES
from .loading import KINDS, LOADING, as_loaded, load, load_scratch, scores_of
from .pointers import POINTER, address, caller
from .scratch import aligned, borrowed

__all__ = ["LARGEST", "potentials_band"]

LARGEST = 8  # m: a sweep is written out
NO_ARC = np.int64(1) << np.int64(60)

_lanes, _flags = types.int64[:, ::1], types.uint8[:, ::1]
_OPEN = types.void(_flags, types.int64, _lanes)
_SWEEP = types.void(*[_lanes] * 5, types.int64[::1], types.int64[::1])


def _arcs_signature(scores):
    return types.void(scores[:, ::1], _flags, _lanes, _lanes)


_call_arcs = caller(lambda *given: _arcs_signature(given[0].dtype), raises=False)
_call_open = caller(_OPEN, raises=False)
_call_sweep = caller(_SWEEP, raises=False)


@functools.cache
def _arcs(scores):
    """The kernel ``arcs(Q, kept, forward, back)``: what the arcs of each entry cost."""
    return every_entry(
        "_arcs",
        "Q, kept, forward, back",
        "forward[{k}, l] = choose(kept[{k}, l] != 0, NO_ARC, -np.int64(Q[{k}, l])); "
        "back[{k}, l] = choose(kept[{k}, l] != 0, np.int64(Q[{k}, l]), NO_ARC)",
        _arcs_signature(scores),
        NO_ARC=NO_ARC,
    )


def _written(name, source, signature):
    """Compile a kernel of this module from its text."""
    scope = {
        "np": np,
        "apart": apart,
        "smaller": smaller,
        "use_widest": use_widest,
        "NO_ARC": NO_ARC,
        "__name__": __name__,
    }
    return compiled(source, name, __file__, scope, signature)


@functools.cache
def _opener(m):
    """The kernel ``open_lines(kept, n, open_)``: 0 for each row, then each column, with less than n, else no arc."""
    name = f"_open_{m}"
    lines = [[i * m + j for j in range(m)] for i in range(m)]
    sums = [
        " + ".join(f"np.int64(kept[{k}, l])" for k in line)
        for line in (*lines, *zip(*lines, strict=True))
    ]
    body = "\n        ".join(
        f"open_[{k}, l] = NO_ARC * np.int64({total} >= n)" for k, total in enumerate(sums)
    )
    source = f"""
def {name}(kept, n, open_):
    apart()
    use_widest()
    for l in range({LANES}):
        {body}
"""
    return _written(name, source, _OPEN)


def _least(*terms):
    """The least of them, as an expression."""
    return functools.reduce("smaller({}, {})".format, terms)


@functools.cache
def _sweeper(m, at_most):
    """The kernel ``sweep(forward, back, open_, rows, columns, slack, moved)``: relax every arc once, in place.

    First those from rows to columns, then those back; `moved`: not 0 where a distance of the lane did.
    """
    name, lines = f"_sweep_{m}", range(m)
    body = [f"r{k}, c{k} = rows[{k}, l], columns[{k}, l]" for k in lines]
    own = ["slack[l]"] if at_most else []
    for j in lines:
        arcs = [f"r{i} + forward[{i * m + j}, l]" for i in lines]
        body.append(f"d{j} = {_least(f'c{j}', *own, *arcs)}")
    for i in lines:
        arcs = [f"d{j} + back[{i * m + j}, l]" for j in lines]
        body.append(f"e{i} = {_least(f'r{i}', *arcs)}")
    changed, ends = [f"(c{k} ^ d{k})" for k in lines], "e"
    if at_most:
        arcs = [f"d{j} + open_[{m + j}, l]" for j in lines]
        body += ["s = slack[l]", f"t = {_least('s', *(f'e{i}' for i in lines), *arcs)}"]
        body += [f"f{i} = smaller(e{i}, t + open_[{i}, l])" for i in lines]
        body.append("slack[l] = t")
        changed.append("(s ^ t)")
        ends = "f"
    changed += [f"(r{k} ^ {ends}{k})" for k in lines]
    body += [f"rows[{k}, l], columns[{k}, l] = {ends}{k}, d{k}" for k in lines]
    body.append(f"moved[l] = {' | '.join(changed)}")
    body = "\n        ".join(body)
    source = f"""
def {name}(forward, back, open_, rows, columns, slack, moved):
    apart()
    use_widest()
    for l in range({LANES}):
        {body}
"""
    return _written(name, source, _SWEEP)


def _scratch(m, scores):
    """What blocks are loaded by, with their exact scores; their flags; their graphs and the distances there."""
    loaded = load_scratch(m, scores), aligned((m * m, LANES), scores), aligned(LANES, np.float32)
    flags = tuple(aligned((m, m * LANES), np.uint8) for _ in range(2))
    arcs = aligned((m * m, LANES), np.int64), aligned((m * m, LANES), np.int64)
    lines = aligned((2 * m, LANES), np.int64), aligned((m, LANES), np.int64)
    lane = aligned(LANES, np.int64), aligned(LANES, np.int64)
    return loaded, flags, (*arcs, *lines, aligned((m, LANES), np.int64), *lane)


def _potentials(W, loading, flags, scratch, m, n, at_most, how, u, v):
    """Potentials of a band's masks; see `potentials_band`."""
    (raw, Q, largest), strips, graph = scratch
    spread, first, arcs, open_lines, sweep = how
    forward, back, open_, rows, columns, slack, moved = graph
    across = W.shape[1] // m
    for i in range(W.shape[0] // m):
        for left in range(0, across, LANES):
            lanes = min(LANES, across - left)
            if not load(loading, W, i * m, left * m, raw, Q, largest):
                return False
            for r in range(m):
                row = flags[i * m + r, left * m : (left + lanes) * m]
                strips[first][r, : len(row)] = row
            call_spread(spread, (strips,))
            kept = strips[0].reshape(m * m, LANES)
            _call_arcs(arcs, (Q, kept, forward, back))
            if at_most:
                _call_open(open_lines, (kept, n, open_))
            rows[:] = 0
            columns[:] = 0
            slack[:] = NO_ARC  # any row reaches it
            # More sweeps than there are nodes: a negative cycle, no potentials.
            for _ in range(2 * m + 3):
                _call_sweep(sweep, (forward, back, open_, rows, columns, slack, moved))
                still = np.int64(0)
                for l in range(lanes):
                    still |= moved[l]
                if still == 0:
                    break
            for l in range(lanes):
                b = i * across + left + l
                zero = slack[l] if at_most else 0
                for k in range(m):
                    u[b, k], v[b, k] = rows[k, l] - zero, zero - columns[k, l]
    return True


@functools.cache
def _engine(kind):
    i64 = types.int64
    entries, scores = types.Array(KINDS[kind][0], 2, "C", readonly=True), scores_of(kind)
    flags, prices = types.Array(types.uint8, 2, "C", readonly=True), i64[:, ::1]
    how = types.Tuple((POINTER, i64, POINTER, POINTER, POINTER))
    given = entries, LOADING, flags, typeof(_scratch(4, scores)), i64, i64, types.boolean, how
    return jit(_potentials, types.boolean(*given, prices, prices))


@once
def _prepare(kind, m, at_most):
    """The engine, and how it is to work: the kernels of flags, the strip they begin in, those of graphs."""
    scores = KINDS[kind][1]
    spread = address(spreader(m, types.uint8), spread_signature(types.uint8))
    arcs = address(_arcs(scores), _arcs_signature(scores))
    graph = address(_opener(m), _OPEN), address(_sweeper(m, at_most), _SWEEP)
    return _engine(kind), (spread, len(deals(m)) % 2, arcs, *graph)


def potentials_band(W, n, m, mask, u, v, *, absolute, at_most):
    """Find the potentials of the optimal masks of a matrix; False if a score is not finite.

    W: of a dtype in `loading.KINDS`, (k*m, c*m), m <= `LARGEST`; mask: bool, likewise; u, v: int64
    (k*c, m), to write, blocks in row-major order. All C-contiguous. Where a mask is not optimal, u
    and v mean nothing.
    """
    if m > LARGEST:
        raise ValueError(f"potentials of {m}x{m} blocks: a sweep is written out for m <= {LARGEST}")
    engine, how = _prepare(W.dtype.name, m, at_most)
    entries, loading, scores = as_loaded(W, m, absolute=absolute)
    with borrowed(_scratch, m, scores) as scratch:
        return engine(entries, loading, mask.view(np.uint8), scratch, m, n, at_most, how, u, v)
