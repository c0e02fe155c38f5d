"""GEGLU and SwiGLU by PyTorch's operators: formulas in float64, both forms of input, errors."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

import masksolve.torch as mt
from masksolve import errors

FORMULAS = {
    "geglu": (mt.geglu, lambda g: g * torch.special.ndtr(g)),
    "geglu tanh": (
        partial(mt.geglu, approximate="tanh"),
        lambda g: g / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (g + 0.044715 * g**3))),
    ),
    "swiglu": (mt.swiglu, lambda g: g / (1 + torch.exp(-g))),
}
every_formula = pytest.mark.parametrize(
    ("function", "formula"), FORMULAS.values(), ids=FORMULAS.keys()
)


def gaussian(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@every_formula
@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 4, 2), (0, 6), (3, 0)])
def test_the_first_half_is_the_gate_of_the_second(function, formula, shape):
    x = 3 * gaussian(*shape)
    d = shape[-1] // 2
    expected = formula(x[..., :d]) * x[..., d:]
    torch.testing.assert_close(function(x), expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(function(x[..., :d], x[..., d:]), expected, rtol=1e-13, atol=1e-13)


@every_formula
def test_gradients_of_both_forms_and_their_gradients(function, formula):  # noqa: ARG001
    x = gaussian(3, 4).requires_grad_()
    gate, value = gaussian(2, 3, 4).requires_grad_()
    for inputs in ((x,), (gate, value)):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_weights_that_activate_the_second_half():
    """As in torch.nn.functional.glu, of which SwiGLU is the gate times more."""
    x = gaussian(5, 8)
    value, gate = x.chunk(2, -1)
    torch.testing.assert_close(mt.swiglu(gate, value), functional.glu(x) * gate)


def test_column_major_stays_column_major():
    x = gaussian(6, 5).T
    assert mt.geglu(x).stride() == (1, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_casts_nothing(dtype):
    with torch.autocast("cpu", torch.bfloat16):
        assert mt.geglu(gaussian(3, 4, dtype=dtype)).dtype == dtype


def test_modules_are_the_functions():
    x = gaussian(4, 6)
    block = nn.Sequential(nn.Linear(6, 10), mt.GEGLU("tanh"), nn.Linear(5, 6)).double()
    assert repr(block[1]) == "GEGLU(approximate='tanh')"
    assert not block[1].state_dict()
    hidden = block[0](x)
    assert torch.equal(block(x), block[2](mt.geglu(hidden, approximate="tanh")))
    assert torch.equal(mt.GEGLU()(x), mt.geglu(x))
    assert torch.equal(mt.SwiGLU()(x), mt.swiglu(x))
    assert torch.equal(mt.SwiGLU()(x, x), mt.swiglu(x, x))


def test_it_compiles_as_one_graph():
    torch.compiler.reset()
    compiled = torch.compile(mt.GEGLU(), fullgraph=True, backend="aot_eager")
    x = gaussian(3, 4).requires_grad_()
    torch.testing.assert_close(compiled(x), mt.geglu(x))
    compiled(x).sum().backward()
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ([(3, 5)], errors.ShapeError, r"got shape \(3, 5\)"),
        ([()], errors.ShapeError, r"got shape \(\)"),
        ([(3, 4), (4,)], errors.ShapeError, r"got \(3, 4\) and \(4,\)"),
    ],
)
def test_shapes_are_refused(tensors, error, message):
    with pytest.raises(error, match=message):
        mt.swiglu(*(gaussian(*shape) for shape in tensors))


def test_dtypes_are_refused():
    with pytest.raises(errors.DtypeError, match=r"got torch\.int64"):
        mt.geglu(torch.arange(4))
    with pytest.raises(errors.DtypeError, match=r"got torch\.float64 and torch\.float32"):
        mt.geglu(gaussian(3, 4), gaussian(3, 4).float())


@pytest.mark.parametrize("of", [mt.GEGLU, partial(mt.geglu, torch.ones(2))])
def test_approximations_are_refused(of):
    with pytest.raises(errors.OptionError, match="none, tanh, got 'erf'"):
        of(approximate="erf")
