"""Which kernel does which call, for tensors of any rank; and the CPU where there is none."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import masksolve as ms
from masksolve.errors import (
    MissingDependencyError,
    NonFiniteError,
    OptionError,
    RaggedShapeError,
    ShapeError,
    UnsupportedError,
)
from masksolve.torch import search

from .cases import kinds

dispatch = pytest.importorskip("masksolve.torch.gpu.dispatch")


def call(W, n, m, **options):
    defaults = {"method": "auto", "degree": "exact", "absolute": True}
    return dispatch.find_mask(
        W, n, m, **defaults | {"axes": (-2, -1), "remainder": "pad"} | options
    )


def by_operator(W, n, m, *, method="auto", backend=None, degree="exact"):
    """As the operator does it for CUDA tensors."""
    options = degree, True, [-2, -1], "pad", None
    return search._find_by_kernels(W, n, m, method, backend, *options)


@pytest.fixture
def as_if_on_a_gpu(monkeypatch):
    """Take backend="triton" for tensors of the CPU, and say nothing of devices."""
    checked = search._checked

    def unchecked_device(scores, *call):
        return checked(scores.to("meta"), *call)

    monkeypatch.setattr(search, "_checked", unchecked_device)
    monkeypatch.setattr(search, "_warn_of_device", lambda _: None)


@pytest.mark.parametrize(
    ("n", "m", "method", "degree", "kernel"),
    [
        (2, 4, "auto", "exact", "two_four"),
        (2, 4, "conv", "at_most", "two_four"),
        (2, 4, "flow", "exact", "flow"),
        (1, 4, "auto", "exact", "flow"),
        (1, 4, "conv", "exact", None),
        (16, 32, "auto", "exact", "flow"),
        (16, 33, "auto", "exact", None),
        (4, 8, "auto", "at_most", None),
        (4, 8, "greedy", "at_most", "greedy"),
        (4, 8, "greedy", "exact", "greedy"),
        (4, 40, "greedy", "exact", None),
        (0, 64, "auto", "exact", "trivial"),
        (64, 64, "flow", "at_most", "trivial"),
    ],
)
def test_which_kernel(n, m, method, degree, kernel):
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert dispatch.choose(torch.ones(4, 4, dtype=dtype), n, m, method, degree) == kernel
    for other in (torch.ones(4, 4).double(), torch.ones(4, 4).int(), torch.eye(4).to_sparse()):
        assert dispatch.choose(other, n, m, method, degree) is None


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(
    ("n", "m", "method", "degree"),
    [
        (3, 5, "auto", "exact"),
        *(
            (*call, degree)
            for call in ((2, 4, "auto"), (3, 5, "greedy"), (0, 3, "auto"), (3, 3, "auto"))
            for degree in ("exact", "at_most")
        ),
    ],
)
def test_masks_keep_what_the_core_keeps(n, m, method, degree, absolute, device):
    W = kinds(9, 7)[1].to(device)  # small integers: no sum is rounded
    options = {"method": method, "degree": degree, "absolute": absolute}
    mask = call(W, n, m, **options).cpu().numpy()
    ms.check_mask(mask, n, m, degree=degree)
    array = W.cpu().numpy()
    expected = ms.find_mask(array, n, m, **options)
    kept, best = (np.where(x, np.abs(array) if absolute else array, 0).sum() for x in (mask, expected))  # fmt: skip
    assert kept == best


@pytest.mark.parametrize("method", ["auto", "flow", "greedy"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 9, 7, 3), (1, 2)), ((8, 6, 3, 2), (0, 1)), ((5, 2, 6), (-1, 0)), ((3, 0, 4, 4), (2, 3))],
)
def test_axes_batches_and_memory_order(shape, axes, method, device):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    expected = ms.find_mask(W.cpu().numpy(), 2, 4, method=method, axes=axes)
    for scores in (W, W.transpose(0, 2).contiguous().transpose(0, 2)):
        mask = call(scores, 2, 4, method=method, axes=axes)
        assert (mask.cpu().numpy() == expected).all()
        assert mask.stride() == torch.empty_like(scores, dtype=torch.bool).stride()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's NumPy, of inf - inf
@pytest.mark.parametrize(("n", "m", "method"), [(2, 4, "auto"), (1, 3, "auto"), (1, 3, "greedy"), (3, 3, "auto")])  # fmt: skip
def test_what_is_not_finite_is_named(n, m, method, device):
    W = torch.ones(2, 3, 5, dtype=torch.bfloat16, device=device)
    W[1, 2, 3] = torch.nan
    W[1, 2, 4] = torch.inf
    with pytest.raises(NonFiniteError, match=r"\(1, 2, 3\) is nan; 2 entries"):
        call(W, n, m, method=method)


def test_shapes_and_axes_are_checked(device):
    W = torch.ones(8, 6, device=device)
    with pytest.raises(RaggedShapeError, match="axis 1 has size 6"):
        call(W, 2, 4, remainder="error")
    with pytest.raises(ShapeError, match="at least 2 dimensions"):
        call(W[0], 2, 4)
    with pytest.raises(OptionError, match="axes"):
        call(W, 2, 4, axes=(0, 2))


@pytest.mark.usefixtures("as_if_on_a_gpu")
def test_the_operator_for_cuda_tensors_takes_the_kernels(monkeypatch, device):
    W = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    expected = torch.from_numpy(ms.find_mask(W.cpu().numpy(), 2, 4)).to(device)
    monkeypatch.setattr(search, "_find", lambda *_: pytest.fail("went to the CPU"))
    for method, backend in (("auto", None), ("conv", "triton"), ("flow", "triton")):
        assert torch.equal(by_operator(W, 2, 4, method=method, backend=backend), expected)


@pytest.mark.usefixtures("as_if_on_a_gpu")
def test_all_else_goes_to_the_cpu_unless_triton_is_asked_for(monkeypatch):
    W = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    called = []
    monkeypatch.setattr(dispatch, "find_mask", lambda *_: called.append(1))
    mask = by_operator(W, 2, 4, method="flow", backend="ortools")
    assert (mask.numpy() == ms.find_mask(W.numpy(), 2, 4)).all()
    mask = by_operator(W, 4, 8, degree="at_most")
    assert (mask.numpy() == ms.find_mask(W.numpy(), 4, 8, degree="at_most")).all()
    with pytest.raises(UnsupportedError, match="no kernel for method='auto' and degree='at_most' at 4:8"):  # fmt: skip
        by_operator(W, 4, 8, degree="at_most", backend="triton")
    monkeypatch.setattr(search, "_kernels", lambda: None)  # as without triton
    mask = by_operator(W, 2, 4)
    assert (mask.numpy() == ms.find_mask(W.numpy(), 2, 4)).all()
    with pytest.raises(MissingDependencyError, match="package triton"):
        by_operator(W, 2, 4, backend="triton")
    assert not called


def test_triton_is_imported_for_cuda_tensors_alone_and_may_be_missing():
    script = """
import sys
import torch
import masksolve.torch as mt
from masksolve.torch import search
mt.find_mask(torch.eye(4), 1, 4)
print("masksolve.torch.gpu.dispatch" in sys.modules)
sys.modules["triton"] = None
print(search._kernels())
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "None"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_masks_stay_there():
    W = torch.randn(64, 64, device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n, m in ((2, 4), (4, 8)):
            mask = search.find_mask(W, n, m)
            assert mask.device == W.device
            ms.check_mask(mask.cpu().numpy(), n, m)
