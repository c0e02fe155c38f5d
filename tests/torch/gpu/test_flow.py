"""n:m by dual ascent and paths in integers: optimal for them, whatever the scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import masksolve as ms

from .cases import best, blocks_of, kept, kinds, many, matrices, views

flow = pytest.importorskip("masksolve.torch.gpu.flow")
find_masks, Start = flow.find_masks, flow.Start

PATTERNS = [(1, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 8), (7, 8), (5, 12), (8, 16), (3, 17)]


def integers(blocks):
    """What the kernel makes of blocks of scores: 24 bits relative to the largest of each."""
    blocks = blocks.astype(np.float64)
    least = 2.0**-126  # below that float32 has fewer bits
    scale = 24 - np.frexp(np.abs(blocks).max(axis=(1, 2), initial=least))[1]
    return np.floor(np.ldexp(blocks, scale[:, None, None]) + 0.5).astype(np.int64), scale


def assert_optimal(W, mask, n, m, absolute=True):
    """The mask is valid and, for the integers, optimal; so for the scores to half a unit an entry."""
    ms.check_mask(mask.cpu().numpy(), n, m)
    blocks = blocks_of((W.abs() if absolute else W).cpu().double().numpy(), m)
    q, scale = integers(blocks)
    assert (kept(q, mask, m) == best(q, n)).all()
    # The mask and the best one keep n * m entries each, of which each is off by half a unit.
    gap = best(blocks, n) - kept(blocks, mask, m)
    assert (gap <= np.ldexp(n * m * (1 + 1e-9), -scale)).all()


def assert_proof(W, mask, prices, n, m):
    """Weak duality, in integers: with the best row prices the bound is what the mask keeps."""
    q, scale = integers(blocks_of(W.abs().cpu().numpy(), m))
    scaled = np.ldexp(prices.cpu().numpy(), scale[:, None])
    v = scaled.astype(np.int64)
    assert (v == scaled).all()
    residual = q - v[:, None, :]
    u = np.sort(residual, axis=2)[:, :, m - n]
    slack = np.maximum(residual - u[:, :, None], 0).sum(axis=(1, 2))
    assert (n * (u.sum(axis=1) + v.sum(axis=1)) + slack == kept(q, mask, m)).all()


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_optimal_for_every_kind_of_scores(n, m, absolute, device):
    edge = m + 2 if m < 16 else m  # ragged edges as well, where blocks are cheap
    W = kinds(edge, edge - 3 if m > 4 else edge).to(device)
    mask, prices, bad = find_masks(
        W, n, m, absolute=absolute, want_prices=absolute, blocks_each=many(64)
    )
    assert not bad.item()
    assert_optimal(W, mask, n, m, absolute)
    if absolute:
        assert_proof(W, mask, prices, n, m)


def test_16_32(device):
    W = kinds(32, 32)[:2].to(device)
    mask, prices, bad = find_masks(W, 16, 32, want_prices=True, blocks_each=many(2))
    assert not bad.item()
    assert_optimal(W, mask, 16, 32)
    assert_proof(W, mask, prices, 16, 32)


def test_scores_of_24_bits_are_solved_exactly(device):
    draw = torch.Generator().manual_seed(3)
    top = torch.tensor([1, 100, 2**13, 2**23, 2**24])[:, None, None]
    W = (torch.rand(5, 16, 16, generator=draw) * top).floor()
    for n, m in ((2, 4), (4, 8)):
        mask, _, _ = find_masks(W.to(device), n, m, blocks_each=many(64))
        certified = ms.certify_mask(W.numpy(), mask.cpu().numpy(), n, m)
        assert (certified.objective == certified.bound).all()


@given(st.data())
@settings(max_examples=6)
def test_any_pattern_and_scores(data):
    m = data.draw(st.integers(2, 7))
    n = data.draw(st.integers(1, m - 1))
    W = data.draw(matrices(2 * m))
    mask, prices, bad = find_masks(W, n, m, want_prices=True, blocks_each=many(4))
    assert not bad.item()
    assert_optimal(W, mask, n, m)
    assert_proof(W, mask, prices, n, m)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_are_read_as_float32(dtype, device):
    W = kinds(5, 7)[[0, 1, 5, 6]].to(device, dtype).nan_to_num(0, 1, 1)
    masks = [find_masks(scores, 2, 4, blocks_each=many(32))[0] for scores in (W, W.float())]
    assert torch.equal(*masks)


def test_strides_and_programs_change_nothing(device):
    W = kinds(8, 7)[[0, 1]]
    mask, prices, _ = find_masks(W.to(device), 3, 5, want_prices=True, blocks_each=many(64))
    for name, view in views(W.to(device)).items():
        found, _, bad = find_masks(view, 3, 5, blocks_each=many(64))
        assert not bad.item(), name
        assert torch.equal(found, mask), name
    for each in (None, 1):
        found, again, _ = find_masks(W.to(device), 3, 5, want_prices=True, blocks_each=each)
        assert torch.equal(found, mask)
        assert torch.equal(again, prices)
    rows = W[:1, :1].expand(1, 10, 7)
    assert_optimal(rows, find_masks(rows.to(device), 3, 5)[0], 3, 5)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (3, 7)])
def test_warm_start(n, m, device):
    W = kinds(2 * m, m)[[0, 1, 3, 5, 7, 9]]
    old, prices, _ = find_masks(W.to(device), n, m, want_prices=True, blocks_each=many(64))
    noise = torch.randn(W.shape, generator=torch.Generator().manual_seed(1))
    moved = (W * (1 + noise / 100)).clamp(-3e38, 3e38).to(device)
    nonsense = torch.full_like(prices, torch.inf).where(prices > 0, -prices * 1e9)
    for start in (prices, prices.roll(3, 0), nonsense):
        mask, again, bad = find_masks(
            moved, n, m, start=Start(start, old), want_prices=True, blocks_each=many(64)
        )
        assert not bad.item()
        assert_optimal(moved, mask, n, m)
        assert_proof(moved, mask, again, n, m)


def paths_of(W, n, m, start=None):
    """The answer, and how many augmenting paths each block took."""
    blocks = W.shape[0] * -(-W.shape[1] // m) * -(-W.shape[2] // m)
    paths = torch.full((blocks,), -1, dtype=torch.int32, device=W.device)
    mask, prices, _ = find_masks(
        W, n, m, start=start, want_prices=True, paths=paths, blocks_each=many(64)
    )
    assert (paths >= 0).all()
    return Start(prices, mask), paths.double().mean().item()


def test_the_ascent_leaves_little_to_paths(device):
    W = torch.randn(40, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    _, few = paths_of(W, 4, 8)
    assert few < 1  # 0.5; without the ascent, 4
    for ties in (torch.zeros_like(W), torch.ones_like(W)):
        assert paths_of(ties, 4, 8)[1] == 0, "rows that are all alike keep columns that differ"


def test_what_old_prices_prove_is_only_looked_at(device):
    kinds_of = kinds(8, 8)[[0, 1, 2, 3, 4, 5, 6, 9]].to(device)
    first, some = paths_of(kinds_of, 4, 8)
    again, none = paths_of(kinds_of, 4, 8, start=first)
    assert some > 0
    assert none == 0
    assert torch.equal(again.mask, first.mask)
    assert torch.equal(again.prices, first.prices)


def test_a_warm_answer_does_not_depend_on_the_blocks_beside_it(device):
    draw = torch.Generator().manual_seed(0)
    W = torch.randint(0, 3, (16, 4, 4), generator=draw).float().to(device)
    old, prices, _ = find_masks(W, 2, 4, want_prices=True)
    moved = W.clone()
    moved[::2] = torch.randint(0, 3, (8, 4, 4), generator=draw).float().to(device)
    start = Start(prices, old)
    alone, beside = (
        find_masks(moved, 2, 4, start=start, want_prices=True, blocks_each=each) for each in (1, 16)
    )
    assert torch.equal(alone[0], beside[0])
    assert torch.equal(alone[1], beside[1])
    assert torch.equal(beside[0][1::2], old[1::2]), "what is proven stays as it is"
    assert torch.equal(beside[1][1::2], prices[1::2])
    assert_optimal(moved, beside[0], 2, 4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_told(value, device):
    W = torch.ones(2, 9, 7, device=device)
    W[1, 8, 6] = value
    assert find_masks(W, 2, 4)[2].item() == 1
    assert find_masks(W[:, :8], 2, 4)[2].item() == 0


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_has_a_mask_of_nothing(shape, device):
    mask, prices, bad = find_masks(torch.ones(shape, device=device), 2, 4, want_prices=True)
    assert mask.shape == shape
    assert prices.numel() == bad.item() == 0
