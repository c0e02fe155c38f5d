"""Masks from bits of words to the flags of a boolean matrix."""

import numpy as np

from .compiling import bare
from .hints import apart, use_widest

__all__ = ["store_flags"]


@bare
def _octet(word, first):
    """Eight bits of a word from bit `first` on, one to a byte."""
    x = word >> np.uint64(first) & np.uint64(0xFF)
    x = (x | x << np.uint64(28)) & np.uint64(0x0000000F0000000F)
    x = (x | x << np.uint64(14)) & np.uint64(0x0003000300030003)
    return (x | x << np.uint64(7)) & np.uint64(0x0101010101010101)


@bare
def _store_row(words, eights, out):
    """One row of a mask, words[w, l], as octets; the usual counts in a straight line, for LLVM to vectorise."""
    apart()
    use_widest()
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    lanes = np.uint64(words.shape[1])
    if eights == 1:
        for l in range(lanes):
            out[l] = _octet(words[0, l], 0)
    elif eights == 2:
        for l in range(lanes):
            out[two * l] = _octet(words[0, l], 0)
            out[two * l + one] = _octet(words[0, l], 8)
    elif eights == 4:
        for l in range(lanes):
            out[four * l] = _octet(words[0, l], 0)
            out[four * l + one] = _octet(words[0, l], 8)
            out[four * l + two] = _octet(words[0, l], 16)
            out[four * l + three] = _octet(words[0, l], 24)
    else:
        for k in range(eights):
            for l in range(lanes):
                out[eights * l + k] = _octet(words[k // 8, l], 8 * (k % 8))


@bare
def store_flags(bits, lanes, m, mask, top, left):
    """Lanes' mask bits, bit j % 64 of bits[i * words + j // 64, l], to the rows of a boolean matrix."""
    words = (m + 63) // 64
    for i in range(m):
        out = mask[top + i, left : left + lanes * m]
        if m % 8 == 0:
            # Words at any address: LLVM takes them for aligned, which x86 and ARM do not ask for.
            _store_row(bits[i * words : (i + 1) * words, :lanes], m // 8, out.view(np.uint64))
        else:
            for l in range(lanes):
                for j in range(m):
                    bit = bits[i * words + j // 64, l] >> np.uint64(j % 64) & np.uint64(1)
                    out[l * m + j] = bit != 0
