"""Peers from the literature, re-expressed from their papers: no code of theirs is here.

Each is a function ``(array, n, m, workers) -> bool array`` over a 2-D matrix whose sides are
multiples of m, run over bands of block rows on `workers` threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TSENOR", "Tsenor", "all_patterns", "threshold", "tsenor"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_BAND_ENTRIES = 1 << 18


def threshold(array: Array, workers: int, out: Mask | None = None) -> Mask:
    """Threshold a C-contiguous matrix into a boolean array: the memory limit.

    float16 and bfloat16 are compared by their bits, which LLVM does at full speed.
    """
    from .kernels import threshold as kernel

    values = array.reshape(-1)
    limit: Any = np.array(0.5, array.dtype)
    if array.dtype.itemsize == 2:
        values, limit = values.view(np.int16), limit.view(np.int16)
    mask = np.empty(array.shape, np.bool_) if out is None else out
    flat = mask.reshape(-1)
    parts = np.linspace(0, values.size, workers + 1).astype(int)

    def one(part: int) -> None:
        chosen = slice(parts[part], parts[part + 1])
        kernel(values[chosen], limit[()], flat[chosen])

    _on_threads(one, range(workers), workers)
    return mask


def all_patterns(array: Array, n: int, m: int, workers: int) -> Mask:
    """Score every exact pattern on every block and take the best: 90 filters for 2:4.

    The search of Hu et al. (ICML 2024, section 5.2) [H24]: a convolution of the magnitudes
    with all masks, stride m, in float32, then an argmax.
    """
    filters = _filters(n, m)
    weights = np.ascontiguousarray(filters.reshape(len(filters), -1).T, np.float32)

    def solve(blocks: NDArray[np.float32]) -> Mask:
        flat = blocks.reshape(len(blocks), -1)
        best = np.empty(len(flat), np.intp)
        step = 2048  # products that stay in the cache
        for start in range(0, len(flat), step):
            part = slice(start, start + step)
            best[part] = (flat[part] @ weights).argmax(axis=1)
        return filters[best]

    return _over_bands(array, m, workers, solve)


# Not `masksolve.diversity.enumerate_masks`: a peer owes nothing to what it is measured against.
@lru_cache(maxsize=8)
def _filters(n: int, m: int) -> Mask:
    rows = [np.isin(np.arange(m), kept) for kept in combinations(range(m), n)]
    masks = np.array(list(product(rows, repeat=m)))
    found: Mask = masks[(masks.sum(axis=1) == n).all(axis=1)]
    return found


@dataclass(frozen=True)
class Tsenor:
    """Settings of the TSENOR re-expression.

    Parameters
    ----------
    iterations : int
        Dykstra iterations.
    compiled : bool
        A fused Numba kernel in float64 with T = S * Q, the same iterates without a single
        exponential or logarithm; or, as the paper has it, tensor operations on log S and
        log Q in float32, in NumPy.
    regularisation : float
        Weight of the entropy, relative to the largest magnitude of the block: the paper's
        ``tau`` is ``1 / (regularisation * max|W|)``.
    """

    iterations: int
    compiled: bool
    regularisation: float


#: The settings that are measured. On Gaussian blocks regularisation 0.02 has the smallest error
#: at 100 iterations, and 0.01 at 300.
TSENOR = {
    "tsenor-100/numba": Tsenor(100, True, 0.02),
    "tsenor-300/numba": Tsenor(300, True, 0.01),
    "tsenor-100/numpy": Tsenor(100, False, 0.02),
}


def tsenor(array: Array, n: int, m: int, workers: int, settings: Tsenor) -> Mask:
    r"""Find masks as TSENOR (Meng, Makni, Mazumder, NeurIPS 2025) [T25] does.

    Entropic optimal transport on every block, :math:`\max_S \langle S, |W| \rangle + H(S)/\tau`
    with all row and column sums n and S in [0, 1], by Dykstra's alternating projections
    (algorithm 1); then greedy rounding of S from its largest entry down, then swaps that fill
    the lines left short (algorithm 2).

    Notes
    -----
    Where the paper leaves or limits something, the peer is given the better choice: entries
    with S = 1 are ordered by their dual Q, not by chance, and swaps go on until every line
    keeps exactly n, where the paper stops after a number of steps and may keep fewer.
    """
    from .kernels import round_blocks

    def solve(blocks: NDArray[np.float32]) -> Mask:
        order = (_transport_compiled if settings.compiled else _transport_tensors)(
            blocks, n, settings
        )
        mask = np.empty(blocks.shape, np.bool_)
        round_blocks(_order(order.reshape(len(blocks), -1)), blocks, n, mask)
        return mask

    if n in (0, m):
        return np.full(array.shape, n == m)
    return _over_bands(array, m, workers, solve)


def _log_start(blocks: NDArray[np.float32], settings: Tsenor) -> NDArray[np.float32]:
    """Return tau*(|W| - max|W|), the logarithm of the start up to a factor."""
    top = blocks.max(axis=(1, 2), keepdims=True)
    scale = np.divide(1 / settings.regularisation, top, where=top > 0, out=np.zeros_like(top))
    start: NDArray[np.float32] = (blocks - top) * scale
    return start


def _transport_compiled(
    blocks: NDArray[np.float32], n: int, settings: Tsenor
) -> NDArray[np.float64]:
    """Return T = S * Q of every block, on groups of blocks that lie innermost in memory."""
    from .kernels import LANES, dykstra

    count, m = blocks.shape[:2]
    groups = -(-count // LANES)
    start = np.zeros((groups * LANES, m, m))
    start[:count] = _log_start(blocks, settings)
    T = np.ascontiguousarray(start.reshape(groups, LANES, m, m).transpose(0, 2, 3, 1))
    np.exp(T, out=T)
    dykstra(T, n, settings.iterations)
    return T.transpose(0, 3, 1, 2).reshape(-1, m, m)[:count]


def _transport_tensors(
    blocks: NDArray[np.float32], n: int, settings: Tsenor
) -> NDArray[np.float64]:
    """Return log(S * Q), raised to be positive, by tensor operations in float32."""
    count, m = blocks.shape[:2]
    total = np.empty(blocks.shape, np.float32)
    step = max(1, (1 << 15) // (m * m))  # a few arrays of 128 KiB: they stay in the cache
    for first in range(0, count, step):
        part = slice(first, first + step)
        S = _log_start(blocks[part], settings)
        Q = np.zeros_like(S)
        buffer = np.empty_like(S)
        for _ in range(settings.iterations):
            for axis in (2, 1):
                top = S.max(axis=axis, keepdims=True)
                np.subtract(S, top, out=buffer)
                np.exp(buffer, out=buffer)
                sums = buffer.sum(axis=axis, keepdims=True)
                top += np.log(sums, out=sums)
                top -= np.float32(np.log(n))
                S -= top
            np.add(S, Q, out=Q)
            np.minimum(Q, 0, out=S)
            total[part] = Q
            Q -= S
    positive: NDArray[np.float64] = total - total.min(initial=0).astype(np.float64) + 1
    return positive


def _order(keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort each row of positive doubles, each with its index, from the last, in the low bits."""
    size = keys.shape[1]
    low = (1 << (size - 1).bit_length()) - 1
    order: NDArray[np.int64] = np.ascontiguousarray(keys).view(np.int64) & ~low
    order |= np.arange(size - 1, -1, -1)
    order.sort(axis=1)
    return order


def _over_bands(
    array: Array, m: int, workers: int, solve: Callable[[NDArray[np.float32]], Mask]
) -> Mask:
    rows, columns = array.shape
    mask = np.empty(array.shape, np.bool_)
    grid = array.reshape(rows // m, m, columns // m, m)
    answer = mask.reshape(grid.shape)
    step = max(1, _BAND_ENTRIES // (m * columns))

    def one(start: int) -> None:
        band = grid[start : start + step].transpose(0, 2, 1, 3).astype(np.float32, order="C")
        np.abs(band, out=band)
        found = solve(band.reshape(-1, m, m)).reshape(band.shape)
        answer[start : start + step] = found.transpose(0, 2, 1, 3)

    _on_threads(one, range(0, len(grid), step), workers)
    return mask


def _on_threads(work: Callable[[int], None], parts: range, workers: int) -> None:
    if workers == 1 or len(parts) == 1:
        for part in parts:
            work(part)
        return
    for _ in _pool(workers).map(work, parts):
        pass


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    """Keep the threads from one call to the next: the limit pays for nothing it can avoid."""
    return ThreadPoolExecutor(workers, thread_name_prefix="benchmarks")
