"""Matrix <-> blocks: axes, ragged edges, bands.

An array of any rank is a batch of matrices over its two `axes`. Every matrix is cut into
m×m blocks; a ragged edge is filled up with zero scores. A *band* is the unit of parallel
work, of memory and of progress: a run of whole block rows (a part of one where a single
block row is already large, several whole matrices where they are small).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import NDArray

from .errors import OptionError, RaggedShapeError, ShapeError

__all__ = ["Band", "Remainder", "Tiling", "make_tiling"]

#: A ragged edge is treated as if padded by zero scores, or refused.
Remainder = Literal["pad", "error"]


class Band(NamedTuple):
    """Half-open ranges of matrices of the batch, block rows and block columns."""

    matrices: slice
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of matrices, block rows and block columns."""
        return (
            self.matrices.stop - self.matrices.start,
            self.rows.stop - self.rows.start,
            self.columns.stop - self.columns.start,
        )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return math.prod(self.shape)

    def each_matrix(self) -> Iterator[Band]:
        """Yield the part of the band that lies in each matrix."""
        for matrix in range(self.matrices.start, self.matrices.stop):
            yield self._replace(matrices=slice(matrix, matrix + 1))


@dataclass(frozen=True)
class Tiling:
    """How an array of shape `shape` falls into m×m blocks; made by `make_tiling`."""

    shape: tuple[int, ...]
    m: int
    axes: tuple[int, int]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the axes that are not part of the matrix."""
        return tuple(size for axis, size in enumerate(self.shape) if axis not in self.axes)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of each matrix."""
        return self.shape[self.axes[0]], self.shape[self.axes[1]]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Matrices in the batch, block rows and block columns of each."""
        rows, columns = self.matrix_shape
        return math.prod(self.batch_shape), -(-rows // self.m), -(-columns // self.m)

    @property
    def block_shape(self) -> tuple[int, ...]:
        """Shape of one value per block: ``(*batch, block_rows, block_columns)``."""
        return (*self.batch_shape, *self.grid[1:])

    @property
    def blocks(self) -> int:
        """Number of blocks in the whole array."""
        return math.prod(self.grid)

    def bands(self, entries: int) -> list[Band]:
        """Cut the array into bands of about `entries` entries, at least one block each."""
        matrices, rows, columns = self.grid
        if self.blocks == 0:
            return []
        budget = max(1, entries // (self.m * self.m))
        column_step = min(columns, budget)
        row_step = min(rows, max(1, budget // columns))
        matrix_step = max(1, budget // (rows * columns))
        return [
            Band(*ranges)
            for matrix in _steps(matrices, matrix_step)
            for row in _steps(rows, row_step)
            for column in _steps(columns, column_step)
            for ranges in [(matrix, row, column)]
        ]

    def gather(self, array: NDArray[Any], band: Band) -> NDArray[Any]:
        """Copy a band of `array` into blocks ``(B, m, m)``, ragged edges filled with zeros."""
        matrices, rows, columns = band.shape
        m = self.m
        raw = np.zeros((matrices, rows * m, columns * m), dtype=array.dtype.newbyteorder("="))
        for target, source in zip(raw, self.views(array, band), strict=True):
            target[: source.shape[0], : source.shape[1]] = source
        blocks = raw.reshape(matrices, rows, m, columns, m).swapaxes(2, 3)
        return np.ascontiguousarray(blocks).reshape(-1, m, m)

    def scatter(self, blocks: NDArray[Any], band: Band, out: NDArray[Any]) -> None:
        """Write blocks ``(B, m, m)`` of a band to their place in `out`: undoes `gather`."""
        matrices, rows, columns = band.shape
        m = self.m
        raw = blocks.reshape(matrices, rows, columns, m, m).swapaxes(2, 3)
        raw = raw.reshape(matrices, rows * m, columns * m)
        for source, target in zip(raw, self.views(out, band), strict=True):
            target[...] = source[: target.shape[0], : target.shape[1]]

    def views(self, array: NDArray[Any], band: Band) -> Iterator[NDArray[Any]]:
        """Yield views of the band's part of each matrix, cropped to the array."""
        stacked = np.moveaxis(array, self.axes, (-2, -1))
        rows = slice(band.rows.start * self.m, band.rows.stop * self.m)
        columns = slice(band.columns.start * self.m, band.columns.stop * self.m)
        for matrix in range(band.matrices.start, band.matrices.stop):
            yield stacked[np.unravel_index(matrix, self.batch_shape)][rows, columns]

    def real_extent(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of each block row, and columns of each block column, that are not padding."""
        rows, columns = self.matrix_shape
        return _extent(rows, self.m), _extent(columns, self.m)


def _extent(size: int, m: int) -> NDArray[np.int64]:
    return np.minimum(m, size - np.arange(0, size, m, dtype=np.int64))


def _steps(stop: int, step: int) -> list[slice]:
    return [slice(start, min(stop, start + step)) for start in range(0, stop, step)]


def make_tiling(
    shape: tuple[int, ...],
    m: int,
    *,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    what: str = "scores",
) -> Tiling:
    """Check the shape and the axes of `what`, and return the tiling.

    Raises
    ------
    ShapeError
        Fewer than two dimensions.
    RaggedShapeError
        A matrix dimension is no multiple of `m` and `remainder` is ``"error"``.
    OptionError
        `axes` are not two different axes of the array, or `remainder` is unknown.
    """
    if remainder not in ("pad", "error"):
        raise OptionError(f'remainder must be "pad" or "error", got {remainder!r}')
    if len(shape) < 2:
        raise ShapeError(
            f"{what} must have at least 2 dimensions (a matrix or a batch of matrices), "
            f"got shape {shape}"
        )
    try:
        first, second = normalize_axis_tuple(axes, len(shape))
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"axes must name two different axes of an array of {len(shape)} dimensions, "
            f"for example (-2, -1), got {axes!r}"
        ) from error
    if remainder == "error":
        for axis in (first, second):
            if shape[axis] % m:
                raise RaggedShapeError(
                    f"axis {axis} has size {shape[axis]}, which leaves a remainder of "
                    f"{shape[axis] % m} when cut into blocks of m={m}; "
                    f'pad it, or use remainder="pad" to treat the edge as padded by zeros'
                )
    return Tiling(tuple(int(size) for size in shape), m, (first, second))
