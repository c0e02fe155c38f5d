"""What column prices prove of the masks of a tensor, by PyTorch's operators: knows no kernel and no solver."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["price_bound"]

#: Entries that are looked at at a time, in float64.
_ENTRIES = 1 << 23


def price_bound(matrices: Tensor, prices: Tensor, n: int, m: int) -> Tensor:
    r"""Bound what any exact n:m mask of matrices keeps, by weak duality.

    .. math:: \sum_b n \Big(\sum_i u_i + \sum_j v_j\Big) + \sum_{ij} \max(0, s_{ij} - u_i - v_j)

    over all blocks b, for the best row prices: :math:`u_i`, the n-th largest of :math:`s_{ij} - v_j`.

    Parameters
    ----------
    matrices : (K, R, C) Tensor
        The scores s. Ragged edges count as padded by zeros.
    prices : (blocks, m) float64 Tensor
        Any numbers v: all prove a bound, the better the tighter.
    n, m : int

    Returns
    -------
    () float64 Tensor
        On the device of the scores, which nothing waits for. True but for the rounding of float64.
    """
    count, rows, columns = matrices.shape
    down, across = -(-rows // m), -(-columns // m)
    bound = n * prices.sum()
    if not prices.numel():
        return bound
    v = prices.view(count, down, 1, across, m)
    rows_each = max(1, _ENTRIES // (m * across * m))  # of blocks; many small matrices at once
    step, some = min(rows_each, down), max(1, rows_each // down)
    for k in range(0, count, some):
        for first in range(0, down, step):
            part = matrices[k : k + some, first * m : (first + step) * m].double()
            part = functional.pad(part, (0, -columns % m, 0, -part.shape[1] % m))
            blocks = part.view(len(part), -1, m, across, m)
            residual = blocks - v[k : k + some, first : first + step]
            u = residual.topk(n, dim=-1).values[..., -1:]
            bound = bound + n * u.sum() + (residual - u).clamp(min=0).sum()
    return bound
