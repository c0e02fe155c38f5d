"""Every 16-bit float there is."""

import ml_dtypes
import numpy as np
import pytest

from masksolve.kernels import widen


@pytest.mark.parametrize(
    ("dtype", "kernel"),
    [(np.float16, widen.widen_float16), (ml_dtypes.bfloat16, widen.widen_bfloat16)],
)
def test_every_number_is_widened_without_error(dtype, kernel):
    bits = np.arange(2**16, dtype=np.uint16).reshape(64, 1024)
    out = np.zeros(bits.shape, np.float32)
    with np.errstate(all="ignore"):
        kernel(bits, out.view(np.int32))
        expected = bits.view(dtype).astype(np.float32)
    nan = np.isnan(expected)
    assert (np.isnan(out) == nan).all()
    assert (out[~nan].view(np.uint32) == expected[~nan].view(np.uint32)).all()
