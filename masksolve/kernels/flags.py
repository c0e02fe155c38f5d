"""Masks from bits of words to the flags of a boolean matrix."""

import numpy as np
from numba import types

from .compiling import bare, compiled, once
from .hints import apart, use_widest
from .pointers import address, caller

__all__ = ["call_store", "storer"]

_i64 = types.int64
STORE = types.void(types.uint64[:, ::1], _i64, types.boolean[:, ::1], _i64, _i64)
STRAIGHT = 4  # octets a row that are written out, for LLVM to vectorise

call_store = caller(STORE, raises=False)


@bare
def _octet(word, first):
    """Eight bits of a word from bit `first` on, one to a byte."""
    x = word >> first & np.uint64(0xFF)
    x = (x | x << np.uint64(28)) & np.uint64(0x0000000F0000000F)
    x = (x | x << np.uint64(14)) & np.uint64(0x0003000300030003)
    return (x | x << np.uint64(7)) & np.uint64(0x0101010101010101)


def _octets_source(name, m):
    """By octets; words at any address: LLVM takes them for aligned, which x86 and ARM do not ask for."""
    many, words = m // 8, (m + 63) // 64
    if many <= STRAIGHT:
        body = "; ".join(
            f"out[word({many}) * l + word({k})] = octet(bits[i, l], word({8 * k}))"
            for k in range(many)
        )
    else:
        body = f"""for k in range(word({many})):
                row = bits[word(i * {words}) + k // word(8), l]
                out[word({many}) * l + k] = octet(row, word(8) * (k % word(8)))"""
    return f"""
def {name}(bits, lanes, mask, top, left):
    apart()
    use_widest()
    for i in range({m}):
        out = mask[top + i, left : left + lanes * {m}].view(word)
        for l in range(word(lanes)):
            {body}
"""


def _bits_source(name, m):
    words = (m + 63) // 64
    return f"""
def {name}(bits, lanes, mask, top, left):
    for i in range({m}):
        for l in range(lanes):
            for j in range({m}):
                bit = bits[i * {words} + j // 64, l] >> word(j % 64) & word(1)
                mask[top + i, left + l * {m} + j] = bit != 0
"""


@once
def storer(m):
    """Address of the kernel ``store(bits, lanes, mask, top, left)`` for blocks side by side from there on.

    It writes the lanes' mask bits, bit j % 64 of bits[i * words + j // 64, l], to the rows of a mask.
    """
    name = f"_store_{m}"
    source = (_bits_source if m % 8 else _octets_source)(name, m)
    scope = {
        "apart": apart,
        "octet": _octet,
        "use_widest": use_widest,
        "word": np.uint64,
        "__name__": __name__,
    }
    return address(compiled(source, name, __file__, scope, STORE), STORE)
