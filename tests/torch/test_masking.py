"""The parametrization: gradients by hand, state, compilation."""

import copy
import pickle
import shutil

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import masksolve.torch as mt
from masksolve.errors import MaskError, OptionError
from masksolve.torch.masking import keep

W = torch.tensor(
    [[5.0, 1.0, 2.0, -4.0], [2.0, -6.0, 3.0, 1.0], [1.0, 2.0, -7.0, 3.0], [-8.0, 4.0, 1.0, 2.0]]
)
X = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


def layer(**options):
    linear = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(W)
    mt.sparsify(linear, 2, 4, **options)
    return linear


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gradient": "straight_through"}, lambda g, _: g),
        ({"gradient": "static"}, lambda g, x: g * x),
        ({"gradient": "sr_ste", "decay": 0.25}, lambda g, x: g + 0.25 * (1 - x) * W),
    ],
)
def test_gradients_by_their_formulas(options, expected):
    """The output is x @ W_masked^T; with loss sum(c * output), g = c^T x."""
    linear = layer(**options)
    mask = linear.parametrizations.weight[0].mask.float()
    assert torch.equal(linear.weight, W * mask)
    c = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    (c * linear(X)).sum().backward()
    g = torch.tensor([[1.0, 2, 3, 4], [-2, -4, -6, -8], [0.5, 1, 1.5, 2], [3, 6, 9, 12]])
    assert torch.equal(linear.parametrizations.weight.original.grad, expected(g, mask))


def test_what_is_pruned_may_be_anything():
    linear = layer()
    mask = linear.parametrizations.weight[0].mask
    with torch.no_grad():
        linear.parametrizations.weight.original[~mask] = torch.inf
    assert torch.isfinite(linear.weight).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_entry_is_kept_or_zero(dtype):
    values = torch.randn(6, 8).to(dtype)
    values[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    mask = torch.arange(48).reshape(6, 8) % 3 == 0
    for v, x in ((values, mask), (values.T, mask.T), (values[1::2, 3:], mask[1::2, 3:])):
        expected = torch.where(x, v, 0)
        torch.testing.assert_close(keep(v, x), expected, rtol=0, atol=0, equal_nan=True)
    assert not keep(-torch.ones(2), torch.tensor([False, True])).signbit()[0]


@pytest.mark.parametrize("options", [{"gradient": "static"}, {"gradient": "sr_ste", "decay": 0.25}])
def test_second_derivatives(options):
    """Of sum(masked**3): 6 x w; SR-STE adds decay (1 - x), and decay (1 - x) w once more."""
    linear = layer(**options).double()
    w = linear.parametrizations.weight.original
    x = linear.parametrizations.weight[0].mask.double()
    (g,) = torch.autograd.grad(linear.weight.pow(3).sum(), w, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), w)
    expected = 6 * x * w + options.get("decay", 0) * (1 - x) * (1 + w)
    torch.testing.assert_close(h, expected)


@pytest.mark.parametrize("gradient", ["straight_through", "static"])
def test_a_dense_layer_is_as_if_it_had_no_mask(gradient):
    linear = layer(gradient=gradient)
    linear.parametrizations.weight[0].dense = True
    assert torch.equal(linear(X), X @ W.T)
    linear(X).sum().backward()
    assert torch.equal(linear.parametrizations.weight.original.grad, X.expand(4, 4))
    linear.parametrizations.weight[0].dense = False
    assert linear.weight.count_nonzero() == 8


COMPILER = any(map(shutil.which, ("g++", "clang++", "c++")))


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param("inductor", marks=pytest.mark.skipif(not COMPILER, reason="no C++ compiler")),
    ],
)
def test_compiled_as_eager(backend):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    mt.sparsify(model, 2, 4, gradient="sr_ste", decay=0.1)
    x = torch.randn(5, 8)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    compiled(x).square().sum().backward()
    for p, e in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, e)
    for masked in mt.masked_layers(model):
        masked.masked.dense = True
    torch.testing.assert_close(compiled(x), model(x))
    assert model[0].weight.count_nonzero() == model[0].weight.numel()


def test_functional_transforms():
    linear = layer(gradient="sr_ste", decay=0.5)
    parameters = dict(linear.named_parameters())

    def loss(parameters, x):
        return functional_call(linear, parameters, (x,)).square().sum()

    xs = torch.randn(3, 1, 4)
    each = vmap(grad(loss), (None, 0))(parameters, xs)["parametrizations.weight.original"]
    for x, g in zip(xs, each, strict=True):
        torch.testing.assert_close(g, grad(loss)(parameters, x)["parametrizations.weight.original"])


def test_state_is_saved_and_restored():
    old, new = layer(), layer()
    with torch.no_grad():
        old.weight = W.T.contiguous()
    old.parametrizations.weight[0].mask.copy_(mt.find_mask(W.T, 2, 4))
    new.load_state_dict(old.state_dict(), strict=True)
    assert torch.equal(new.weight, old.weight)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 4, dtype=torch.bool), "keeps 4"),
        (torch.tensor([1, 1, 0, 0]).bool().repeat(4, 1), "column 0"),
        (torch.zeros(4, 8, dtype=torch.bool), r"shape of the weight, \(4, 4\), got \(4, 8\)"),
        (torch.zeros(4, 4), "boolean, got torch.float32"),
    ],
)
def test_a_bad_mask_in_a_checkpoint_is_refused(mask, message):
    linear = layer()
    before = linear.parametrizations.weight[0].mask.clone()
    state = linear.state_dict()
    state["parametrizations.weight.0.mask"] = mask
    with pytest.raises(RuntimeError, match=rf"(?s){message}.*half loaded: load a good state"):
        linear.load_state_dict(state)
    assert torch.equal(linear.parametrizations.weight[0].mask, before)


def test_a_checkpoint_without_masks_is_told():
    with pytest.raises(RuntimeError, match=r"parametrizations\.weight\.0\.mask"):
        layer().load_state_dict(nn.Linear(4, 4, bias=False).state_dict())


def test_copies_and_moves():
    linear = layer()
    other = copy.deepcopy(linear)
    other.parametrizations.weight[0].mask.zero_()
    assert linear.weight.count_nonzero() == 8
    linear.to(torch.float64).half()
    assert linear.weight.dtype == torch.float16
    linear.type(torch.float64)
    assert linear.weight.dtype == torch.float64
    assert linear.parametrizations.weight[0].mask.dtype == torch.bool
    mt.check_sparsity(linear)
    with pytest.raises(RuntimeError, match="state_dict"):  # PyTorch's own words
        pickle.dumps(linear)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "ste"}, "must be one of 'straight_through'"),
        ({"gradient": "sr_ste", "decay": -1.0}, "0 or more, got -1.0"),
        ({"gradient": "sr_ste", "decay": float("nan")}, "0 or more, got nan"),
        ({"gradient": "sr_ste", "decay": float("inf")}, "finite"),
        ({"decay": 0.1}, "belongs to"),
    ],
)
def test_bad_gradients(options, message):
    with pytest.raises(OptionError, match=message):
        layer(**options)


def test_check_tells_of_a_spoilt_mask():
    linear = layer()
    linear.parametrizations.weight[0].mask[0, 0] ^= True
    with pytest.raises(MaskError):
        linear.parametrizations.weight[0].check()


def test_many_masks_of_one_weight_under_vmap():
    layer = nn.Linear(4, 4, bias=False)
    mt.sparsify(layer, 2, 4)
    masked = layer.parametrizations.weight[0]
    weight = layer.parametrizations.weight.original.detach()
    masks = torch.stack([masked.mask, masked.mask.flip(0)])

    def see(mask):
        return functional_call(masked, {"mask": mask}, (weight,))

    assert torch.equal(vmap(see)(masks), weight * masks)
