"""16-bit floats, as their bits, to float32 without error; infinity and NaN stay what they are."""

import numpy as np
from numba import types

from .compiling import inner, jit, once

__all__ = ["bits_of_bfloat16", "bits_of_float16", "widen_bfloat16", "widen_float16"]


@inner
def bits_of_bfloat16(bits):
    """Bits of a bfloat16 to those of the same float32: they are its upper half."""
    return np.int32(np.uint32(bits) << np.uint32(16))


@inner
def bits_of_float16(bits):
    """Bits of a float16 to those of the same float32.

    Exponent and fraction move to their places, then 2**112 makes up for the bias. The product
    is exact, for subnormal numbers too.
    """
    half = np.uint32(bits)
    size = np.uint32(half & np.uint32(0x7FFF))
    moved = np.uint32(size << np.uint32(13))
    scaled = np.float32(moved.view(np.float32) * np.float32(2.0**112))
    special = np.uint32(np.uint32(0x7F800000) | moved)
    sign = np.uint32((half & np.uint32(0x8000)) << np.uint32(16))
    return np.int32(sign | (special if size >= np.uint32(0x7C00) else scaled.view(np.uint32)))


def _widen_bfloat16(bits, out):
    for i in range(bits.shape[0]):
        source, target = bits[i], out[i]
        for j in range(len(source)):
            target[j] = bits_of_bfloat16(source[j])


def _widen_float16(bits, out):
    for i in range(bits.shape[0]):
        source, target = bits[i], out[i]
        for j in range(len(source)):
            target[j] = bits_of_float16(source[j])


@once
def _kernel(widen, layout):
    bits = types.Array(types.uint16, 2, layout, readonly=True)
    return jit(widen, types.void(bits, types.int32[:, ::1]))


def widen_bfloat16(bits, out):
    """Widen a matrix of bfloat16 bits, uint16; `out`: the bits of float32, int32, C-contiguous."""
    _kernel(_widen_bfloat16, "C" if bits.flags.c_contiguous else "A")(bits, out)


def widen_float16(bits, out):
    """Widen a matrix of float16 bits, uint16; `out`: the bits of float32, int32, C-contiguous."""
    _kernel(_widen_float16, "C" if bits.flags.c_contiguous else "A")(bits, out)
