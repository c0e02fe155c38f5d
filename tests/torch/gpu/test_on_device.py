"""Solutions on the device: bound, warm start, errors; where there is no GPU, in Triton's interpreter."""

import pytest
import torch

import masksolve as ms
import masksolve.torch as mt
from masksolve.errors import (
    DtypeError,
    MethodError,
    NonFiniteError,
    OptionError,
    PatternError,
    PatternTypeError,
    UnsupportedError,
)

pytest.importorskip("triton", reason="Triton is there for Linux alone")


@pytest.fixture(autouse=True)
def any_device(monkeypatch):
    if not torch.cuda.is_available():
        monkeypatch.setattr("masksolve.torch.on_device._DEVICES", ("cpu",))


def normal(*shape, device, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(("shape", "axes"), [((13, 18), (-2, -1)), ((10, 9, 2), (0, 1))])
def test_mask_and_bound_are_the_cores(shape, axes, absolute, device):
    W = normal(*shape, device=device)
    found = mt.solve_on_device(W, 2, 4, absolute=absolute, axes=axes, bound=True)
    best = ms.solve(W.cpu().numpy(), 2, 4, absolute=absolute, axes=axes)
    ms.check_mask(found.mask.cpu().numpy(), 2, 4, axes=axes)
    assert found.mask.shape == W.shape
    assert bool(found.finite)
    assert float(found.objective) == pytest.approx(best.objective, abs=1e-4)
    assert best.objective - 1e-9 <= float(found.bound) <= best.objective + 1e-4
    assert 0 <= float(found.gap) + 1e-12 < 1e-5


def test_scores_of_few_bits_have_no_gap(device):
    W = torch.arange(64.0).reshape(8, 8).to(device)
    assert float(mt.solve_on_device(W, 4, 8, bound=True).gap) == 0
    assert float(mt.solve_on_device(W * 0, 4, 8, bound=True).gap) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_and_other_memory_orders(dtype, device):
    W = normal(12, 8, device=device).to(dtype)
    plain = mt.solve_on_device(W, 2, 4, bound=True)
    assert float(plain.gap) == 0
    for other in (W.T.contiguous().T.requires_grad_(), torch.stack([W, W], 2)[:, :, 0]):
        found = mt.solve_on_device(other, 2, 4, warm_start=plain)
        assert torch.equal(found.mask, plain.mask)
        assert not found.objective.requires_grad


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (2, 0, 4), (2, 4, 0)])
def test_nothing_has_nothing(shape, device):
    found = mt.solve_on_device(torch.ones(shape, device=device), 2, 4, bound=True)
    assert found.mask.shape == shape
    assert float(found.objective) == float(found.bound) == float(found.gap) == 0


def test_a_warm_start_is_as_good_and_keeps_what_is_proven(device):
    W = normal(16, 16, device=device)
    first = mt.solve_on_device(W, 4, 8)
    again = mt.solve_on_device(W, 4, 8, warm_start=first)
    assert torch.equal(again.mask, first.mask)
    assert torch.equal(again.prices, first.prices)
    moved = W + normal(16, 16, device=device, seed=1) / 4
    cold, warm = (mt.solve_on_device(moved, 4, 8, warm_start=start) for start in (None, first))
    assert float(warm.objective) == pytest.approx(float(cold.objective), rel=1e-6)
    assert not torch.equal(warm.mask, first.mask)


def test_what_is_no_start_for_it_is_refused(device):
    W = normal(8, 8, device=device)
    start = mt.solve_on_device(W, 2, 4)
    with pytest.raises(OptionError, match=r"must be a DeviceSolution.*got int"):
        mt.solve_on_device(W, 2, 4, warm_start=3)
    for what, call in (
        ("pattern", lambda: mt.solve_on_device(W, 1, 4, warm_start=start)),
        ("shape", lambda: mt.solve_on_device(W[:4], 2, 4, warm_start=start)),
        ("axes", lambda: mt.solve_on_device(W, 2, 4, axes=(1, 0), warm_start=start)),
        ("absolute", lambda: mt.solve_on_device(W, 2, 4, absolute=False, warm_start=start)),
    ):
        with pytest.raises(OptionError, match=f"solution for {what} "):
            call()


def test_bad_input_is_told(device, monkeypatch):
    W = normal(8, 8, device=device)
    with pytest.raises(DtypeError, match=r"must be a torch\.Tensor, got list"):
        mt.solve_on_device([[1.0]], 2, 4)
    with pytest.raises(PatternError):
        mt.solve_on_device(W, 5, 4)
    for scores, n, m in ((W.double(), 2, 4), (W, 0, 4), (W, 4, 4), (W, 2, 33)):
        with pytest.raises(UnsupportedError, match=r"solve\(\) does, on the CPU"):
            mt.solve_on_device(scores, n, m)
    with pytest.raises(PatternTypeError):
        mt.find_masked_weight(W, 2.0, 4.0)
    with pytest.raises(OptionError, match="bound=True"):
        _ = mt.solve_on_device(W, 2, 4).gap
    monkeypatch.setattr("masksolve.torch.on_device._DEVICES", ("cuda",))
    with pytest.raises(MethodError, match="'cpu'; solve"):
        mt.solve_on_device(W.cpu(), 2, 4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_told_without_waiting(bad, device):
    W = normal(8, 8, device=device)
    W[3, 5] = bad
    assert not mt.solve_on_device(W, 2, 4).finite


@pytest.mark.skipif(not torch.cuda.is_available(), reason="whether the CPU waits, only a GPU shows")
def test_nothing_waits_for_the_device(device):
    W = normal(64, 64, device=device)
    first = mt.solve_on_device(W, 4, 8, bound=True)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        mt.solve_on_device(W, 4, 8, bound=True, warm_start=first)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_masked_weight_is_the_weight_where_the_mask_keeps_it(dtype, device):
    W = normal(3, 10, 7, device=device).to(dtype)
    mask, masked = mt.find_masked_weight(W.requires_grad_(), 2, 4, axes=(0, 1))
    ms.check_mask(mask.cpu().numpy(), 2, 4, axes=(0, 1))
    assert torch.equal(masked, torch.where(mask, W, 0))
    assert masked.dtype == dtype
    assert not masked.requires_grad


def test_a_weight_that_is_not_finite_is_refused(device):
    W = normal(8, 8, device=device)
    W[2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"\(2, 1\)"):
        mt.find_masked_weight(W, 2, 4)
