"""Masks from bits of words to the flags of a boolean matrix."""

import numpy as np

from .compiling import bare

__all__ = ["store_flags"]

OCTETS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(
    np.uint64
)[:, 0]


@bare
def store_flags(bits, lanes, m, row, mask, top, left):
    """Lanes' mask bits to the rows of a boolean matrix; `row`: scratch for one of them."""
    words = (m + 63) // 64
    bytes_, eights = row.view(np.bool_), m // 8 if m % 8 == 0 else 0
    for i in range(m):
        for l in range(lanes):
            for k in range(eights):
                octet = bits[i * words + k // 8, l] >> np.uint64(8 * (k % 8)) & np.uint64(255)
                row[l * eights + k] = OCTETS[octet]
            for j in range(8 * eights, m):
                bytes_[l * m + j] = bits[i * words + j // 64, l] >> np.uint64(j % 64) & np.uint64(1)
        out = mask[top + i, left : left + lanes * m]
        for c in range(lanes * m):
            out[c] = bytes_[c]
