"""The bound that column prices prove, against the core's."""

import numpy as np
import pytest
import torch

import masksolve as ms
from masksolve.torch.bounds import price_bound


@pytest.mark.parametrize(
    ("shape", "n", "m"), [((2, 8, 12), 2, 4), ((1, 13, 9), 3, 5), ((3, 16, 16), 8, 16)]
)
def test_best_prices_prove_the_best_mask_and_any_prices_a_bound(shape, n, m):
    draw = torch.Generator().manual_seed(0)
    W = torch.randn(shape, generator=draw, dtype=torch.float64).abs()
    solution = ms.solve(W.numpy(), n, m)
    v = np.ldexp(solution.certificate.v.astype(float), -solution.certificate.shift[..., None])
    prices = torch.from_numpy(v).reshape(-1, m)
    assert float(price_bound(W, prices, n, m)) == pytest.approx(solution.objective, rel=1e-10)
    for other in (torch.zeros_like(prices), torch.randn(prices.shape, generator=draw).double()):
        assert float(price_bound(W, other, n, m)) > solution.objective * (1 + 1e-6)


def test_large_matrices_are_bounded_part_by_part(monkeypatch):
    W = torch.rand(2, 40, 24, generator=torch.Generator().manual_seed(1))
    prices = torch.rand(2 * 10 * 6, 4, generator=torch.Generator().manual_seed(2)).double()
    whole = price_bound(W, prices, 2, 4)
    monkeypatch.setattr("masksolve.torch.bounds._ENTRIES", 200)
    assert float(price_bound(W, prices, 2, 4)) == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 0, 4), (1, 4, 0)])
def test_no_blocks_have_no_score(shape):
    assert float(price_bound(torch.ones(shape), torch.ones(0, 4).double(), 2, 4)) == 0


def test_many_small_matrices_are_bounded_together(monkeypatch):
    W = torch.rand(30, 5, 6, generator=torch.Generator().manual_seed(3))
    prices = torch.rand(30 * 2 * 2, 4, generator=torch.Generator().manual_seed(4)).double()
    each = [price_bound(W[k : k + 1], prices[4 * k : 4 * k + 4], 2, 4) for k in range(30)]
    for entries in (1 << 23, 300):
        monkeypatch.setattr("masksolve.torch.bounds._ENTRIES", entries)
        assert float(price_bound(W, prices, 2, 4)) == pytest.approx(float(sum(each)), rel=1e-12)
