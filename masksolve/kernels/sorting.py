"""Sort the keys of several blocks side by side: a bitonic network, its short strides in straight lines.

Key k of lane l is ``keys[k * lanes + l]``, so one comparator on all lanes is a vector `min` and `max`.
The count of keys is a power of two, at least `RUN`.
"""

import numpy as np
from numba import types

from .choosing import larger, smaller
from .compiling import compiled, once
from .hints import use_widest

__all__ = ["sort_kernel", "sort_signature", "sort_size"]

RUN = 16  # keys that a straight-line network holds in registers


def _sorting(size):
    """Comparators (i, j), smaller key to i, of Batcher's odd-even merge sort."""
    pairs, p = [], 1
    while p < size:
        k = p
        while k:
            for j in range(k % p, size - k, 2 * k):
                pairs += [(i, i + k) for i in range(j, j + k) if i // (2 * p) == (i + k) // (2 * p)]
            k //= 2
        p *= 2
    return pairs


def _merging(size):
    """Comparators that sort a bitonic sequence."""
    pairs, d = [], size // 2
    while d:
        pairs += [(i, i + d) for i in range(size) if not i & d]
        d //= 2
    return pairs


def _compare(i, j, down):
    """The smaller key to a_i, or with `down` the larger."""
    first, second = ("larger", "smaller") if down else ("smaller", "larger")
    return f"a{i}, a{j} = {first}(a{i}, a{j}), {second}(a{i}, a{j})"


def _network_source(distance, pairs, down, indent):
    """Lines that put keys from `at` on, so far apart, through comparators.

    The distances are written out, so that LLVM sees that it may take many keys at once.
    """
    ways = range(max(j for _, j in pairs) + 1)
    load = [f"a{k} = keys[at + np.uint64({k * distance})]" for k in ways]
    work = [_compare(i, j, down) for i, j in pairs]
    save = [f"keys[at + np.uint64({k * distance})] = a{k}" for k in ways]
    return ("\n" + indent * " ").join(load + work + save)


def _straight(name, pairs, key, lanes, down):
    """Kernel ``(keys, first, last, step)``: each step-th run of keys[first:last] through a network."""
    name = f"{name}_{'down' if down else 'up'}_{lanes}"
    source = f"""
def {name}(keys, first, last, step):
    use_widest()
    for start in range(first, last, step * {RUN * lanes}):
        for l in range(np.uint64({lanes})):
            at = np.uint64(start) + l
            {_network_source(lanes, pairs, down, 12)}
"""
    signature = types.void(key[::1], types.int64, types.int64, types.int64)
    return compiled(source, name, __file__, _SCOPE, signature)


_SCOPE = {
    "np": np,
    "larger": larger,
    "smaller": smaller,
    "use_widest": use_widest,
    "__name__": __name__,
}


def sort_size(keys):
    """How many keys a kernel sorts that is to sort so many."""
    size = RUN
    while size < keys:
        size *= 2
    return size


def sort_signature(key):
    """Signature of `sort_kernel`: it sorts every lane in place, smallest key first."""
    return types.void(key[::1])


def _merge_source(half, lanes, down):
    """Lines that merge two runs of `half` keys from `start` on, one upwards, the other downwards."""
    lines, d = [], half
    while d >= RUN:
        two = d >= 2 * RUN  # two strides at once: less to load and to store
        pairs = [(0, 2), (1, 3), (0, 1), (2, 3)] if two else [(0, 1)]
        d = d // 2 if two else d
        lines += [
            f"for s in range(start, start + {2 * half * lanes}, {d * lanes * (4 if two else 2)}):",
            f"    for t in range(np.uint64({d * lanes})):",
            "        at = np.uint64(s) + t",
            f"        {_network_source(d * lanes, pairs, down, 24)}",
        ]
        d //= 2
    lines.append(f"merge_{'down' if down else 'up'}(keys, start, start + {2 * half * lanes}, 1)")
    return "\n                ".join(lines)


@once
def sort_kernel(key, lanes, size):
    """Compile the sort of `size` keys of a Numba type on `lanes` lanes, a power of two, `RUN` or more.

    Processors find the smaller of two floats faster than that of two integers.
    """
    whole, half, merges = size * lanes, RUN, ""
    while half < size:
        both = 2 * half * lanes
        merges += f"""
    for start in range(0, {whole}, {both}):
            if start & {both}:
                {_merge_source(half, lanes, True)}
            else:
                {_merge_source(half, lanes, False)}"""
        half *= 2
    name = f"sort_{lanes}_{size}"
    source = f"""
def {name}(keys):
    use_widest()
    # Invariant: before each merge its runs are sorted, upwards and downwards in turn.
    sort_up(keys, 0, {whole}, 2)
    sort_down(keys, {RUN * lanes}, {whole}, 2){merges}
"""
    straight = {
        f"{name}_{way}": _straight(name, pairs, key, lanes, way == "down")
        for name, pairs in (("sort", _sorting(RUN)), ("merge", _merging(RUN)))
        for way in ("up", "down")
    }
    return compiled(source, name, __file__, _SCOPE | straight, sort_signature(key))
