"""Scratch of kernels where vectors lie well: one that crosses a cache line takes twice as long to load."""

import numpy as np

from .compiling import inner
from .prefetch import LINE

__all__ = ["aligned"]


@inner
def aligned(rows, columns, fill):
    """Make an array (rows, columns), full of `fill` and of its type, at the start of a cache line."""
    size = rows * columns
    raw = np.full(size + LINE, fill)
    skip = -raw.ctypes.data % LINE // raw.itemsize
    return raw[skip : skip + size].reshape(rows, columns)
