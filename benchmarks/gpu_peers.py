"""TSENOR on a GPU, re-expressed from its paper in batched PyTorch: no code of theirs is here.

Every function takes all blocks of a matrix at once, (B, m, m), as `blocks_of` makes them. What it
computes is what `benchmarks.peers` computes on the CPU, with the same better choices for the peer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "ITERATIONS",
    "REGULARISATION",
    "Project",
    "blocks_of",
    "fill",
    "project",
    "round_greedily",
    "transport",
    "tsenor",
]

#: As on the CPU: Dykstra iterations, and the weight of the entropy relative to a block's largest.
ITERATIONS, REGULARISATION = 100, 0.02

#: One iteration of the transport: `project`, or what ``torch.compile`` made of it.
Project = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def blocks_of(matrix: Tensor, m: int) -> Tensor:
    """Return the m×m blocks of a matrix, row by row of blocks: (B, m, m), contiguous."""
    rows, columns = matrix.shape[0] // m, matrix.shape[1] // m
    return matrix.reshape(rows, m, columns, m).transpose(1, 2).reshape(-1, m, m)


def tsenor(W: Tensor, n: int, m: int, project: Project | None = None) -> Tensor:
    """Find a mask as TSENOR (Meng, Makni, Mazumder, NeurIPS 2025) does: transport, rounding, swaps."""
    scores = blocks_of(W.float().abs(), m)
    mask, rows, columns = round_greedily(transport(scores, n, project), n)
    fill(mask, scores, rows, columns)
    grid = mask.reshape(W.shape[0] // m, W.shape[1] // m, m, m)
    return grid.transpose(1, 2).reshape(W.shape)


def project(S: Tensor, Q: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Project on row sums of n, on column sums of n, and on [0, 1] with its dual Q; all as logarithms."""
    S = S - S.logsumexp(2, keepdim=True) + math.log(n)
    S = S - S.logsumexp(1, keepdim=True) + math.log(n)
    free = S + Q
    S = free.clamp(max=0)
    return S, free - S


def transport(scores: Tensor, n: int, iterate: Project | None = None) -> Tensor:
    r"""Return log(S Q) of the entropic optimal transport of every block.

    :math:`\max_S \langle S, |W| \rangle + H(S)/\tau` with all row and column sums n and S in [0, 1],
    by Dykstra's alternating projections in float32 (algorithm 1). Where S = 1, the dual Q tells
    entries apart, so that rounding need not go by chance.
    """
    top = scores.amax((1, 2), keepdim=True).clamp_min(1e-30)
    S = (scores - top) / (REGULARISATION * top)
    Q = torch.zeros_like(S)
    for _ in range(ITERATIONS):
        S, Q = (iterate or project)(S, Q, n)
    return S + Q


def round_greedily(T: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep entries from the largest down while their row and column have room (algorithm 2).

    All blocks take their next entry at once. Returns the mask (B, m, m), and the room that is left
    in rows and in columns, (B, m).
    """
    count, m, _ = T.shape
    order = T.flatten(1).argsort(1, descending=True).T.contiguous()
    mask = torch.zeros(count, m * m, dtype=torch.bool, device=T.device)
    rows, columns = torch.full((2, count, m), n, dtype=torch.int8, device=T.device)
    for place in order[..., None]:
        row, column = place // m, place % m
        in_row, in_column = rows.gather(1, row), columns.gather(1, column)
        kept = (in_row > 0) & (in_column > 0)
        mask.scatter_(1, place, kept)
        rows.scatter_(1, row, in_row - kept.to(torch.int8))
        columns.scatter_(1, column, in_column - kept.to(torch.int8))
    return mask.view(count, m, m), rows, columns


def fill(mask: Tensor, scores: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Give lines that have room one entry more by the best swap, until none has; all in place.

    A swap keeps (i, c) and (a, j) for (a, c), where row i and column j have room.
    """
    m = mask.shape[1]
    while len(block := (rows > 0).any(1).nonzero().squeeze(1)):
        i, j = (room[block].argmax(1) for room in (rows, columns))
        x, w = mask[block], scores[block]
        each = torch.arange(len(block), device=mask.device)
        gain = w[each, i][:, None, :] + w[each, :, j][:, :, None] - w
        allowed = x & ~x[each, i][:, None, :] & ~x[each, :, j][:, :, None]
        best = gain.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1)
        a, c = best // m, best % m
        swap = x[each, i, j]  # else the entry where they meet is free
        x[each, a, c] &= ~swap
        x[each, i, c] |= swap
        x[each, a, j] |= swap
        x[each, i, j] = True
        mask[block] = x
        rows[block, i] -= 1
        columns[block, j] -= 1
