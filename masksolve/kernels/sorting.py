"""Sort the keys of several blocks side by side: a bitonic network, its short strides in straight lines.

Key k of lane l is ``keys[k * lanes + l]``, so one comparator on all lanes is a vector `min` and `max`.
The count of keys is a power of two, at least `RUN`.
"""

import functools

import numpy as np
from numba import types

from .compiling import COMPILING, compiled

__all__ = ["RUN", "sort_kernel", "sort_signature"]

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


def _straight(name, pairs, key, lanes):
    """Kernel ``(keys, first, last, step, turn)``: each step-th run of keys[first:last] through a network.

    turn = 0 sorts upwards, turn = -1 downwards: it turns round the order of all integers.
    """
    load = [f"a{k} = key(keys[at + np.uint64({k * lanes})] ^ turn)" for k in range(RUN)]
    work = [f"a{i}, a{j} = min(a{i}, a{j}), max(a{i}, a{j})" for i, j in pairs]
    save = [f"keys[at + np.uint64({k * lanes})] = a{k} ^ turn" for k in range(RUN)]
    body = "\n            ".join(load + work + save)
    source = f"""
def {name}_{lanes}(keys, first, last, step, turn):
    for start in range(first, last, step * {RUN * lanes}):
        for l in range(np.uint64({lanes})):
            at = np.uint64(start) + l
            {body}
"""
    signature = types.void(key[::1], types.int64, types.int64, types.int64, key)
    return compiled(source, f"{name}_{lanes}", __file__, _scope(key), signature)


def _scope(key, **kernels):
    # Without a cast Numba makes int64 of all that it computes with int32.
    return {"np": np, "key": np.dtype(str(key)).type, "__name__": __name__, **kernels}


def sort_signature(key):
    """Signature of `sort_kernel`: it sorts every lane in place, smallest key first."""
    return types.void(key[::1])


@functools.cache
def sort_kernel(key, lanes):
    """Compile the sort of `lanes` lanes of keys of a Numba integer type; a register holds them."""
    source = f"""
def sort_{lanes}(keys):
    # Invariant: before each round the runs of `half` keys are sorted, upwards and downwards in turn.
    size, run = len(keys), {RUN * lanes}  # no slices in here: each would touch an atomic reference count
    sort_runs(keys, 0, size, 2, key(0))
    sort_runs(keys, run, size, 2, key(-1))
    half = run
    while half < size:
        for start in range(0, size, 2 * half):
            turn = -(start // (2 * half) % 2)
            d = half
            while d >= run:
                up, down = (0, d) if turn == 0 else (d, 0)
                for s in range(start, start + 2 * half, 2 * d):
                    low, high = np.uint64(s + up), np.uint64(s + down)
                    for t in range(np.uint64(d)):
                        a, b = keys[low + t], keys[high + t]
                        keys[low + t], keys[high + t] = min(a, b), max(a, b)
                d //= 2
            merge_runs(keys, start, start + 2 * half, 1, key(turn))
        half *= 2
"""
    with COMPILING:
        sort_runs = _straight("sort_runs", _sorting(RUN), key, lanes)
        merge_runs = _straight("merge_runs", _merging(RUN), key, lanes)
        scope = _scope(key, sort_runs=sort_runs, merge_runs=merge_runs)
        return compiled(source, f"sort_{lanes}", __file__, scope, sort_signature(key))
