"""Rows of blocks that lie side by side to lanes: a transposition by shuffles instead of single loads."""

import functools

import numpy as np
from numba import types

from .compiling import bare, compiled
from .hints import apart, use_widest
from .pointers import caller

__all__ = ["call_spread", "deals", "spread_signature", "spreader"]


@bare
def _deal4(source, target):
    """Deal each row out to four, one after the other in `target`: LLVM makes it a few shuffles."""
    apart()
    use_widest()
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    step = np.uint64(source.shape[1]) // four
    for i in range(len(source)):
        for x in range(step):
            target[i, x] = source[i, four * x]
            target[i, step + x] = source[i, four * x + one]
            target[i, two * step + x] = source[i, four * x + two]
            target[i, three * step + x] = source[i, four * x + three]


@bare
def _deal(source, target, ways):
    """Deal each row out to so many, one after the other in `target`."""
    apart()
    step = source.shape[1] // ways
    for i in range(len(source)):
        for k in range(ways):
            for x in range(step):
                target[i, k * step + x] = source[i, x * ways + k]


def deals(m):
    """Into how many rows are dealt out, step by step, to be dealt out to m."""
    return {8: (4, 2), 16: (4, 4), 32: (4, 4, 2)}.get(m, (m,))


def spread_signature(scores):
    """Signature of a `spreader` for scores of that Numba type."""
    return types.void(types.UniTuple(scores[:, ::1], 2))


call_spread = caller(lambda strips: spread_signature(strips[0].dtype), raises=False)


@functools.cache
def spreader(m, scores):
    """The kernel ``spread(strips)``: rows of blocks side by side, row[l * m + k], to row[k * LANES + l].

    The rows come in strips[1] if `deals` has an odd number of steps, else in strips[0], and go to
    strips[0].
    """
    steps, name = deals(m), f"_spread_{m}"
    body = "".join(
        f"""
    first, second = strips[{(len(steps) - k) % 2}], strips[{(len(steps) - k + 1) % 2}]
    {"deal4(first, second)" if ways == 4 else f"deal(first, second, {ways})"}"""
        for k, ways in enumerate(steps)
    )
    source = f"""
def {name}(strips):{body}
"""
    scope = {"deal": _deal, "deal4": _deal4, "__name__": __name__}
    return compiled(source, name, __file__, scope, spread_signature(scores))
