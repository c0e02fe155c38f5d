"""16-bit floats to float32, for proofs of raw matrices, whose kernels take no others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["widened"]


def widened(scores: NDArray[Any]) -> NDArray[np.floating]:
    """Return float16 and bfloat16 scores as float32; float32 and float64 as they are."""
    if scores.dtype in (np.float32, np.float64):
        return scores
    wide = np.empty(scores.shape, dtype=np.float32)
    _widen(scores, wide)
    return wide


def _widen(scores: NDArray[Any], wide: NDArray[np.float32]) -> None:
    from ..kernels import widen

    bits, out = scores.view(np.uint16), wide.view(np.int32)
    if scores.dtype == np.float16:
        widen.widen_float16(bits, out)
    else:
        widen.widen_bfloat16(bits, out)
