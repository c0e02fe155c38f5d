"""Greedy by rounds: entry for entry the core's mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import masksolve as ms

from .cases import kinds, many, matrices, views

find_masks = pytest.importorskip("masksolve.torch.gpu.greedy").find_masks

OPTIONS = [(exact, absolute) for exact in (True, False) for absolute in (True, False)]
PATTERNS = [(1, 2), (2, 3), (2, 4), (3, 4), (3, 5), (4, 8), (5, 12), (8, 16)]


def core(W, n, m, exact, absolute):
    degree = "exact" if exact else "at_most"
    found = ms.find_mask(W.cpu().numpy(), n, m, method="greedy", degree=degree, absolute=absolute)
    return torch.from_numpy(found).to(W.device)


@pytest.mark.parametrize(("exact", "absolute"), OPTIONS)
@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_masks_are_those_of_the_core(n, m, exact, absolute, device):
    edge = 2 * m + 1 if m < 12 else m
    W = kinds(edge, edge - 2).to(device)
    mask, bad = find_masks(W, n, m, exact=exact, absolute=absolute, blocks_each=many(128))
    assert not bad.item()
    assert torch.equal(mask, core(W, n, m, exact, absolute))


def test_equal_exchanges_are_told_apart_alike(device):
    """The first row that hands an entry over, then the first column."""
    W = torch.tensor(
        [
            [1, 2, 1, 2, 1, 1, 0, 1], [0, 2, 2, 2, 0, 1, 0, 0], [2, 0, 2, 1, 0, 1, 0, 2],
            [2, 2, 1, 1, 2, 1, 1, 0], [2, 2, 2, 2, 1, 1, 1, 0], [2, 1, 1, 2, 2, 2, 0, 0],
            [2, 2, 1, 2, 1, 0, 1, 1], [1, 1, 0, 2, 1, 2, 2, 1],
        ],
        dtype=torch.float32,
    )[None]  # fmt: skip
    mask, _ = find_masks(W.to(device), 4, 8, blocks_each=1)
    assert torch.equal(mask.cpu(), core(W, 4, 8, True, True))


def test_32(device):
    W = kinds(32, 32)[:2].to(device)
    for n, exact in ((16, True), (3, False)):
        mask, _ = find_masks(W, n, 32, exact=exact, blocks_each=many(2))
        assert torch.equal(mask, core(W, n, 32, exact, True))


def test_diagonals_instead(device):
    """Random scores with this block among them, whose completed mask keeps less than 2/3."""
    draw = torch.Generator().manual_seed(0)
    W = torch.randint(0, 5, (64, 3, 3), generator=draw).float()
    W[5] = torch.tensor([[1, 1, 2], [1, 0, 2], [2, 2, 3]])
    mask, _ = find_masks(W.to(device), 2, 3, blocks_each=many(64))
    assert torch.equal(mask.cpu(), core(W, 2, 3, True, True))
    assert 3 * W[5][mask[5].cpu()].sum() >= 2 * W[5].sum()


@given(st.data())
@settings(max_examples=8)
def test_any_pattern_and_scores(data):
    m = data.draw(st.integers(2, 6))
    n = data.draw(st.integers(1, m - 1))
    W = data.draw(matrices(2 * m))
    exact, absolute = data.draw(st.sampled_from(OPTIONS))
    mask, bad = find_masks(W, n, m, exact=exact, absolute=absolute, blocks_each=many(4))
    assert not bad.item()
    assert torch.equal(mask, core(W, n, m, exact, absolute))


def test_strides_dtypes_and_programs_change_nothing(device):
    W = kinds(8, 7)[[0, 1, 6]]
    expected = core(W, 3, 5, True, True)
    for name, view in views(W.to(device)).items():
        found, bad = find_masks(view, 3, 5, blocks_each=many(16))
        assert not bad.item(), name
        assert torch.equal(found.cpu(), expected), name
    for each in (None, 1, 4):
        assert torch.equal(find_masks(W.to(device), 3, 5, blocks_each=each)[0].cpu(), expected)
    for dtype in (torch.float16, torch.bfloat16):
        short = W.to(device, dtype)
        assert torch.equal(find_masks(short, 3, 5)[0], core(short.float(), 3, 5, True, True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_told(value, device):
    W = torch.ones(2, 9, 7, device=device)
    W[1, 8, 6] = value
    assert find_masks(W, 2, 4)[1].item() == 1
    assert find_masks(W[:, :8], 2, 4)[1].item() == 0


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_has_a_mask_of_nothing(shape, device):
    mask, bad = find_masks(torch.ones(shape, device=device), 2, 4)
    assert mask.shape == shape
    assert bad.item() == 0
