"""What is asked for ahead is what is read next, and lies within the matrix."""

import numpy as np
import pytest
from numba import config

from masksolve.kernels import prefetch


@pytest.mark.skipif(not config.DISABLE_JIT, reason="compiled, a prefetch leaves nothing to see")
@pytest.mark.parametrize("shape", [(8, 64), (12, 80), (4, 16), (8, 33)])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_next_part_is_asked_for(shape, kind, monkeypatch):
    W, height, width = np.zeros(shape, kind), 4, 32
    parts = [(t, c) for t in range(0, shape[0], height) for c in range(0, shape[1], width)]
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        asked = np.zeros(shape, bool)

        def ask(matrix, i, j, asked=asked):
            assert matrix is W
            asked[i, j : j + prefetch.LINE // W.itemsize] = True

        monkeypatch.setattr(prefetch, "prefetch", ask)
        prefetch.prefetch_next(W, *part, height, width)
        read = np.zeros(shape, bool)
        if after is not None:
            read[after[0] : after[0] + height, after[1] : after[1] + width] = True
        np.testing.assert_array_equal(asked, read)
