"""Scratch of kernels where vectors lie well: one that crosses a cache line takes twice as long to load.

It is made in Python, since kernels that make arrays take long to compile, and kept for the next band, since
making it takes as long as hundreds of blocks.
"""

import math
from contextlib import contextmanager

import numpy as np

from .prefetch import LINE

__all__ = ["aligned", "borrowed"]

LARGEST_KEPT = 64  # m; blocks beyond take so long that scratch does not matter, but for its size

_IDLE = {}


def aligned(shape, dtype, fill=0):
    """Make an array, full of `fill`, that starts with a cache line."""
    shape = shape if isinstance(shape, tuple) else (shape,)
    dtype = np.dtype(dtype)
    raw = np.zeros(math.prod(shape) * dtype.itemsize + LINE, np.uint8)
    skip = -raw.__array_interface__["data"][0] % LINE
    array = np.ndarray(shape, dtype, raw, skip)
    if fill:
        array[...] = fill
    return array


@contextmanager
def borrowed(make, m, *others):
    """Lend what ``make(m, *others)`` makes: a set that another band has used, if one lies idle.

    In it is what that band left there: parts that are filled when made, and only read, are as they
    were, so all that they depend on must be among the arguments. So many sets are kept as bands
    were ever solved at once.
    """
    idle = _IDLE.setdefault((make, m, *others), [])
    try:
        scratch = idle.pop()  # as one step, like `append`: no lock
    except IndexError:
        scratch = make(m, *others)
    yield scratch
    if m <= LARGEST_KEPT:
        idle.append(scratch)
