"""Masks from bits to flags: every size of block, every number of lanes, wherever the mask lies in memory."""

import numpy as np
import pytest
from numba import njit

from masksolve.kernels.flags import call_store, storer
from masksolve.kernels.lines import LANES


@njit
def store(kernel, arguments):
    """The kernel: what only kernels call has no entry for Python."""
    call_store(kernel, arguments)


@pytest.mark.parametrize("m", [1, 3, 8, 12, 16, 24, 32, 40, 64, 65, 72, 128])
@pytest.mark.parametrize("lanes", [1, 5, LANES])
def test_flags_are_the_bits(m, lanes):
    rng = np.random.default_rng(m * LANES + lanes)
    flags = rng.random((m, LANES, m)) < 0.5
    words = (m + 63) // 64
    padded = np.zeros((m, LANES, 64 * words), bool)
    padded[:, :, :m] = flags
    packed = np.packbits(padded, axis=2, bitorder="little").view(np.uint64)
    bits = np.ascontiguousarray(packed.transpose(0, 2, 1)).reshape(m * words, LANES)

    height, width, top, left = m + 2, (lanes + 2) * m, 1, m
    memory = np.ones(height * width + 1, bool)
    mask = memory[1:].reshape(height, width)  # at an odd address
    store(storer(m), (bits, lanes, mask, top, left))

    expected = np.ones((height, width), bool)
    expected[top : top + m, left : left + lanes * m] = flags[:, :lanes].reshape(m, lanes * m)
    np.testing.assert_array_equal(mask, expected)
    assert memory[0]
