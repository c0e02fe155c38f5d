"""Scratch of kernels where vectors lie well: one that crosses a cache line takes twice as long to load.

It is made in Python, once a band: kernels that make arrays take long to compile.
"""

import math

import numpy as np

from .prefetch import LINE

__all__ = ["aligned"]


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
