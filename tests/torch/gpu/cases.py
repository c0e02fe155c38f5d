"""Scores of all kinds, and what a kernel's mask keeps of them."""

import numpy as np
import torch
from hypothesis import strategies as st

import masksolve as ms


def many(blocks):
    """Blocks to a program: in the interpreter many cost little more than one; a GPU knows best."""
    return None if torch.cuda.is_available() else blocks


@st.composite
def matrices(draw, most):
    """A matrix (1, R, C) of float32, of small integers or of anything finite; R and C up to `most`."""
    rows, columns = draw(st.integers(1, most)), draw(st.integers(1, most))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    numbers = draw(st.sampled_from([st.integers(-2, 2), finite]))
    values = draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    W = torch.tensor(values, dtype=torch.float32).reshape(1, rows, columns)
    return W.cuda() if torch.cuda.is_available() else W


def kinds(rows, columns, seed=0):
    """Matrices (K, rows, columns) of float32, each of a kind of its own."""
    draw = torch.Generator().manual_seed(seed)
    shape = rows, columns
    normal = torch.randn(*shape, generator=draw)
    steps = torch.randint(-3, 4, shape, generator=draw).float()
    return torch.stack([
        normal,
        steps,
        steps * (torch.rand(shape, generator=draw) < 0.2),  # mostly zeros
        torch.zeros(shape),
        torch.ones(shape),
        torch.randint(-(2**24) + 1, 2**24, shape, generator=draw).float(),
        normal / torch.randn(*shape, generator=draw) ** 2,  # heavy tails
        normal.sign() * 3e38 * torch.rand(*shape, generator=draw),
        normal * 1e-30,
        normal * 1e-40,  # denormal
        torch.arange(1.0, rows + 1)[:, None] * torch.arange(1.0, columns + 1),
        (-3 * normal).exp() - 1,
    ])  # fmt: skip


def views(W):
    """Views of all kinds with W's values, by name."""
    matrices, rows, columns = W.shape
    wide = torch.full(
        (matrices, rows + 2, 2 * columns + 2), torch.nan, dtype=W.dtype, device=W.device
    )
    wide[:, 1:-1, 1 : 2 * columns : 2] = W
    width = wide.shape[2]
    return {
        "transposed": W.mT.contiguous().mT,
        "batch last": W.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "between NaN": wide[:, 1:-1, 1 : 2 * columns : 2],
        "as strided": wide.as_strided(W.shape, ((rows + 2) * width, width, 2), width + 1),
    }


def blocks_of(array, m):
    """Blocks (B, m, m) of matrices (K, R, C), padded by zeros."""
    count, rows, columns = array.shape
    padded = np.pad(array, ((0, 0), (0, -rows % m), (0, -columns % m)))
    grid = padded.reshape(count, padded.shape[1] // m, m, padded.shape[2] // m, m)
    return grid.swapaxes(2, 3).reshape(-1, m, m)


def kept(blocks, mask, m):
    """What a mask (K, R, C) keeps of each block."""
    return np.where(blocks_of(mask.cpu().numpy(), m), blocks, 0).sum(axis=(1, 2))


def best(blocks, n, degree="exact"):
    """What the best masks keep of blocks of float64 or int64 scores, signs included."""
    mask = ms.find_mask(blocks, n, blocks.shape[1], degree=degree, absolute=False)
    return np.where(mask, blocks, 0).sum(axis=(1, 2))
