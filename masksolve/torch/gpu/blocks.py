"""What kernels with a block in a tensor have in common: where its entries lie, and their scores."""

import torch
import triton
import triton.language as tl

__all__ = ["LARGEST_M", "Grid", "count", "entries", "grid_of", "load_finite", "padded"]

#: Largest block edge of these kernels.
LARGEST_M = 32

#: Blocks in all, block rows and block columns of a matrix, rows, columns: as all kernels take them.
Grid = tuple[int, int, int, int, int]


def grid_of(scores: torch.Tensor, m: int) -> Grid:
    """How matrices (K, R, C) fall into m×m blocks."""
    matrices, rows, columns = scores.shape
    grid_rows, grid_columns = -(-rows // m), -(-columns // m)
    return matrices * grid_rows * grid_columns, grid_rows, grid_columns, rows, columns


def padded(m: int, blocks_each: int | None) -> tuple[int, int, int]:
    """Edge of the tensor that holds an m×m block, blocks to a program, and its warps."""
    size = max(2, triton.next_power_of_2(m))
    each = blocks_each or max(1, 32 // size)
    return size, each, max(1, min(4, each * size * size // 512))


@triton.jit
def count(flags, axis: tl.constexpr):
    return tl.sum(flags.to(tl.int32), axis=axis)


@triton.jit
def entries(
    block, blocks, grid_rows, grid_columns, rows, columns, m: tl.constexpr, SIZE: tl.constexpr
):
    """Matrix, row and column of the entries of blocks, and whether there is such an entry."""
    line = tl.arange(0, SIZE)
    matrix = block // (grid_rows * grid_columns)
    row = ((block // grid_columns) % grid_rows * m)[:, None] + line[None, :]
    column = (block % grid_columns * m)[:, None] + line[None, :]
    there = (block < blocks)[:, None] & (line < m)[None, :]
    own_row, own_column = there & (row < rows), there & (column < columns)
    own = own_row[:, :, None] & own_column[:, None, :]
    return matrix[:, None, None], row[:, :, None], column[:, None, :], own


@triton.jit
def load_finite(scores, at, own, bad, ABSOLUTE: tl.constexpr):
    """Scores as float32, 0 where there is none; not finite ones become 0 too, and set `bad`."""
    s = tl.load(scores + at, mask=own, other=0).to(tl.float32)
    finite = tl.abs(s) < float("inf")
    lowest = tl.min(tl.min(tl.min(finite.to(tl.int32), axis=2), axis=1), axis=0)
    tl.atomic_max(bad, 1, mask=lowest == 0)
    s = tl.where(finite, s, 0)
    return tl.abs(s) if ABSOLUTE else s
