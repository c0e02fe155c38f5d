"""Tensors to the core and back."""

import warnings
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import masksolve as ms
import masksolve.torch as mt
from masksolve.errors import (
    DtypeError,
    MethodError,
    NonFiniteError,
    OptionError,
    PatternError,
    PatternTypeError,
)
from masksolve.torch import search

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int64]


def gaussian(*shape, dtype=torch.float32, seed=0):
    values = 10 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"method": "greedy"}, {"degree": "at_most"}])
def test_masks_are_those_of_the_core(dtype, options):
    W = gaussian(20, 24, dtype=dtype)
    array = (
        W.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        if dtype == torch.bfloat16
        else W.numpy()
    )
    mask = mt.find_mask(W, 2, 4, **options)
    assert mask.dtype == torch.bool
    assert (mask.numpy() == ms.find_mask(array, 2, 4, **options)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_the_cpu_are_not_copied(dtype):
    W = gaussian(8, 12, dtype=dtype)
    for part in (W, W.T, W[::2, 1:], W[:, :, None]):
        array = search._as_array(part)
        assert array.__array_interface__["data"][0] == part.data_ptr()
        assert array.shape == tuple(part.shape)


def test_axes_and_batches():
    W = gaussian(2, 8, 12, 3)
    mask = mt.find_mask(W, 2, 4, axes=(1, 2))
    for group in range(2):
        for tap in range(3):
            alone = mt.find_mask(W[group, :, :, tap], 2, 4)
            assert (mask[group, :, :, tap] == alone).all()


def test_solutions_have_proof_and_tensor():
    W = gaussian(16, 16)
    found, core = mt.solve(W, 4, 8), ms.solve(W.numpy(), 4, 8)
    assert isinstance(found.mask, torch.Tensor)
    assert (found.gap, found.objective, found.bound) == (0, core.objective, core.bound)
    ms.check_certificate(found.certificate, W.numpy(), found.mask.numpy())
    for start in (found, core):
        again = mt.solve(W, 4, 8, warm_start=start)
        assert again.objective == found.objective
        assert torch.equal(again.mask, found.mask)


@pytest.mark.parametrize(
    "mask", [None, torch.ones(16, 8, dtype=torch.bool), torch.ones(16, 16), torch.eye(16).to_sparse(),
             torch.ones(16, 16, dtype=torch.bool, device="meta")],
)  # fmt: skip
def test_a_start_without_its_mask_is_refused(mask):
    W = gaussian(16, 16)
    start = replace(mt.solve(W, 4, 8), mask=mask)
    with pytest.raises(ms.errors.OptionError, match="not a bool array of shape"):
        mt.solve(W, 4, 8, warm_start=start)


def test_a_solver_of_ones_own():
    def diagonals(blocks, n, _):
        j, i = np.meshgrid(*[np.arange(blocks.shape[1])] * 2)
        return np.broadcast_to((j - i) % blocks.shape[1] < n, blocks.shape)

    mask = mt.find_mask(gaussian(8, 8), 1, 4, method=diagonals)
    assert (mask == torch.eye(4, dtype=torch.bool).repeat(2, 2)).all()


def test_under_no_grad_inference_and_autocast():
    W = nn.Parameter(gaussian(8, 8))
    expected = mt.find_mask(W.detach(), 2, 4)
    assert not mt.find_mask(W, 2, 4).requires_grad
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            assert (mt.find_mask(W * 1, 2, 4) == expected).all()


def test_negative_bits_are_resolved():
    W = torch.complex(gaussian(4, 4), gaussian(4, 4, seed=1)).conj().imag
    assert W.is_neg()
    found = mt.find_mask(W, 2, 4, absolute=False)
    assert (found == mt.find_mask(W.clone().resolve_neg(), 2, 4, absolute=False)).all()


def test_opaque_to_the_compiler():
    W = gaussian(8, 8).requires_grad_()

    def loss(W):
        return (W * mt.find_mask(W, 2, 4) * W).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    compiled(W).backward()
    mask = mt.find_mask(W, 2, 4)
    assert torch.equal(W.grad, 2 * W.detach() * mask)
    torch.library.opcheck(torch.ops.masksolve.find_mask, (
        W.detach(), 2, 4, "auto", None, "exact", True, [-2, -1], "pad", None))  # fmt: skip


def test_another_device_is_told_once():
    """No second device is at hand: a tensor that says it is on one."""

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    search._warn_of_device.cache_clear()
    W = gaussian(4, 4)
    with pytest.warns(UserWarning, match="'cuda' are found on the CPU"):
        array = search._as_array(W.as_subclass(Elsewhere))
    assert (array == W.numpy()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search._as_array(W.as_subclass(Elsewhere))
    search._warn_of_device.cache_clear()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones((4, 4)), DtypeError, "must be a torch.Tensor, got ndarray"),
        ([[1.0]], DtypeError, "must be a torch.Tensor, got list"),
        (torch.eye(4).to_sparse(), DtypeError, "layout torch.sparse_coo"),
        (torch.ones(4, 4, device="meta"), DtypeError, "device 'meta'"),
        (torch.ones(4, 4, dtype=torch.complex64), DtypeError, "complex64"),
        (torch.ones(4, 4).to(torch.float8_e4m3fn), DtypeError, "float8_e4m3fn"),
        (torch.full((4, 4), torch.nan), NonFiniteError, r"\(0, 0\)"),
    ],
)
def test_bad_scores(bad, error, message):
    with pytest.raises(error, match=message):
        mt.solve(bad, 2, 4)
    if not (isinstance(bad, torch.Tensor) and bad.is_meta):  # to an operator shapes are enough
        with pytest.raises(error, match=message):
            mt.find_mask(bad, 2, 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 5}, PatternError, "n must not exceed m"),
        ({"n": 2.0}, PatternTypeError, "n must be an integer, got 2.0"),
        ({"n": "2"}, PatternTypeError, "n must be an integer, got '2'"),
        ({"n": True}, PatternTypeError, "n must be an integer, got True"),
        ({"degree": "loose"}, OptionError, "degree must be"),
        ({"method": "magic"}, MethodError, "unknown method 'magic'"),
        ({"method": 3}, MethodError, "a name or a block solver, got int"),
        ({"backend": 3}, MethodError, "backend=3"),
        ({"method": "flow", "backend": 3}, MethodError, "no backend 3"),
        ({"backend": "triton"}, MethodError, "takes tensors of a CUDA device, .* on 'cpu'"),
        ({"axes": None}, OptionError, "axes must name two different axes"),
        ({"axes": (0.0, 1.0)}, OptionError, "axes must name two different axes"),
        ({"axes": (0, 0)}, OptionError, "axes must name two different axes"),
        ({"remainder": None}, OptionError, "remainder must be"),
        ({"workers": "2"}, OptionError, "workers must be a positive integer"),
        ({"workers": 0}, OptionError, "workers must be a positive integer"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        mt.find_mask(gaussian(4, 4), **{"n": 2, "m": 4} | options)


def test_integers_of_numpy_are_integers():
    W = gaussian(8, 8)
    found = mt.find_mask(W, np.int64(2), np.int8(4), axes=[np.int64(0), -1], workers=np.int64(1))
    assert torch.equal(found, mt.find_mask(W, 2, 4))


def test_one_compilation_serves_all_sizes():
    compiled = torch.compile(
        lambda W: mt.find_mask(W, 2, 4), fullgraph=True, backend="eager", dynamic=True
    )
    for size in (8, 12, 20):
        W = gaussian(size, size)
        assert torch.equal(compiled(W), mt.find_mask(W, 2, 4))
