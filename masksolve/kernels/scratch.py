"""Scratch of kernels where vectors lie well: one that crosses a cache line takes twice as long to load.

It is made in Python, once a band: kernels that make arrays take long to compile.
"""

import numpy as np

from .prefetch import LINE

__all__ = ["aligned"]


def aligned(shape, dtype, fill=0):
    """Make an array, full of `fill`, that starts with a cache line."""
    size = int(np.prod(shape))
    raw = np.full(size + LINE, fill, dtype)
    skip = -raw.ctypes.data % LINE // raw.itemsize
    return raw[skip : skip + size].reshape(shape)
