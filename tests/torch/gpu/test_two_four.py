"""2:4 among all masks: the best, as far as float32 can tell sums of scores apart."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import masksolve as ms

from .cases import best, blocks_of, kept, kinds, many, views

two_four = pytest.importorskip("masksolve.torch.gpu.two_four")
find_masks = two_four.find_masks

OPTIONS = [(exact, absolute) for exact in (True, False) for absolute in (True, False)]


def assert_best(W, mask, exact, absolute):
    r"""The mask is valid, and no other keeps more than rounding can hide.

    Eight of 16 scores are summed up in a tree of three levels, so the sum is off by at most
    3 * 2^-24 of the magnitudes, and of two masks compared each may be. Masks of seven are
    compared by T - cost: no term on the way exceeds 3 T, T being the sum of magnitudes, and at
    most 12 roundings of half a unit, 2^-24 of such a term, lie upon any path to the result.
    """
    degree = "exact" if exact else "at_most"
    ms.check_mask(mask.cpu().numpy(), 2, 4, degree=degree)
    blocks = blocks_of((W.abs() if absolute else W).cpu().double().numpy(), 4)
    gap = best(blocks, 2, degree) - kept(blocks, mask, 4)
    total = np.abs(blocks).sum(axis=(1, 2))
    # Of denormals, and of scores that are scaled down since they are huge, float32 has 2^-149.
    allowed = (6 if exact else 2 * 12 * 3) * 2.0**-24 * total
    allowed += np.where(total > 2.0**118, 16 * 2.0**-141, 0)
    assert (gap <= allowed).all()
    small = (blocks == np.rint(blocks)).all(axis=(1, 2)) & (total < 2**22)  # no sum is rounded
    assert (gap[small] == 0).all()


@pytest.mark.parametrize(("exact", "absolute"), OPTIONS)
def test_best_for_every_kind_of_scores(exact, absolute, device):
    for shape in ((44, 40), (7, 5), (1, 1)):
        W = kinds(*shape).to(device)
        mask, masked, bad = find_masks(
            W, exact=exact, absolute=absolute, masked=True, blocks_each=many(512)
        )
        assert not bad.item()
        assert_best(W, mask, exact, absolute)
        assert torch.equal(masked, W * mask)


@pytest.mark.parametrize(("exact", "absolute"), OPTIONS)
def test_every_pattern_of_ones_and_zeros(exact, absolute, device):
    bits = (torch.arange(2**16)[:, None] >> torch.arange(16) & 1).float()
    W = (bits if absolute else 2 * bits - 1).reshape(-1, 4, 4).to(device)
    mask, _, _ = find_masks(W, exact=exact, absolute=absolute, blocks_each=many(16384))
    assert_best(W, mask, exact, absolute)


@settings(max_examples=40)
@given(
    st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=16, max_size=16),
    st.sampled_from(OPTIONS),
)
def test_any_block(values, options):
    exact, absolute = options
    W = torch.tensor(values).reshape(1, 4, 4)
    W = W.cuda() if torch.cuda.is_available() else W
    mask, _, bad = find_masks(W, exact=exact, absolute=absolute, blocks_each=many(1))
    assert not bad.item()
    assert_best(W, mask, exact, absolute)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_are_read_as_float32(exact, dtype, device):
    W = kinds(21, 30).to(device, dtype).nan_to_num(0, 1, 1)
    # The interpreter misreads denormals of bfloat16.
    W = W.where(W.abs() >= torch.finfo(dtype).smallest_normal, 0)
    mask, masked, _ = find_masks(W, exact=exact, masked=True, blocks_each=many(512))
    assert torch.equal(mask, find_masks(W.float(), exact=exact, blocks_each=many(512))[0])
    assert masked.dtype == dtype
    assert torch.equal(masked, W * mask)


@pytest.mark.parametrize("exact", [True, False])
def test_strides_and_programs_change_nothing(exact, device, monkeypatch):
    W = kinds(22, 13)[[0, 5, 6]]  # no ties: a transpose breaks them otherwise
    mask, _, _ = find_masks(W.to(device), exact=exact, blocks_each=many(256))
    for name, view in views(W.to(device)).items():
        found, masked, bad = find_masks(view, exact=exact, masked=True, blocks_each=many(256))
        assert not bad.item(), name
        assert torch.equal(found, mask), name
        assert torch.equal(masked, view * mask), name
        assert found.stride() == torch.empty_like(view, dtype=torch.bool).stride(), name
    ties = kinds(22, 13).to(device)
    first, _, _ = find_masks(ties, exact=exact, blocks_each=many(512))
    for each in (64, 128, 512):
        assert torch.equal(find_masks(ties, exact=exact, blocks_each=each)[0], first)
    monkeypatch.setattr(two_four, "_FEW", 0)  # as if there were more than 32 bits can number
    assert torch.equal(find_masks(ties, exact=exact, blocks_each=64)[0], first)
    rows = W[:1, :1].expand(1, 10, 13)
    assert_best(rows, find_masks(rows.to(device), exact=exact)[0], exact, True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's NumPy, of inf - inf
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_told(value, device):
    for place in range(16):
        W = torch.full((1, 4, 4), 3e38, device=device)
        W.view(-1)[place] = value
        assert find_masks(W, exact=place % 2 == 0, blocks_each=many(1))[2].item() == 1
    W = torch.ones(2, 9, 7, device=device)
    W[1, 8, 6] = value
    assert find_masks(W)[2].item() == 1
    assert find_masks(W[:, :8])[2].item() == 0


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_has_a_mask_of_nothing(shape, device):
    mask, masked, bad = find_masks(torch.ones(shape, device=device), masked=True)
    assert mask.shape == masked.shape == shape
    assert bad.item() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter copies the 3 GiB")
def test_rows_further_apart_than_32_bits_reach(device):
    W = torch.randn(1, 4, 8, dtype=torch.float16, device=device)
    far = torch.empty(3 * 2**30 + 8, dtype=torch.float16, device=device)
    apart = far.as_strided((1, 4, 8), (0, 2**30, 1)).copy_(W)
    mask, masked, _ = find_masks(apart, masked=True)
    assert torch.equal(mask, find_masks(W)[0])
    assert torch.equal(masked, W * mask)
