"""16-bit floats to float32, for a `MatrixSolver` whose kernel takes no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["widened", "widened_strips"]

# Entries that are widened at a time: they are still in the cache when they are solved.
_STRIP = 1 << 17


def widened(scores: NDArray[Any]) -> NDArray[np.floating]:
    """Return float16 and bfloat16 scores as float32; float32 and float64 as they are."""
    if scores.dtype in (np.float32, np.float64):
        return scores
    wide = np.empty(scores.shape, dtype=np.float32)
    _widen(scores, wide)
    return wide


def widened_strips(
    scores: NDArray[Any], mask: NDArray[np.bool_], m: int
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.bool_]]]:
    """Yield strips of whole block rows, widened one after the other in one place, and their masks.

    float32 and float64 are one strip, as they are.
    """
    if scores.dtype in (np.float32, np.float64):
        yield scores, mask
        return
    rows, columns = scores.shape
    step = max(_STRIP // max(columns * m, 1), 1) * m
    buffer = np.empty((min(step, rows), columns), dtype=np.float32)
    for top in range(0, rows, step):
        strip = scores[top : top + step]
        wide = buffer[: len(strip)]
        _widen(strip, wide)
        yield wide, mask[top : top + step]


def _widen(scores: NDArray[Any], wide: NDArray[np.float32]) -> None:
    from ..kernels import widen

    bits, out = scores.view(np.uint16), wide.view(np.int32)
    if scores.dtype == np.float16:
        widen.widen_float16(bits, out)
    else:
        widen.widen_bfloat16(bits, out)
