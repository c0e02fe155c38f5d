"""Reconstruction: optimal by an independent solver and by its gradient, and true to its word."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import masksolve.torch as mt
from masksolve.errors import NonFiniteError, OptionError, SolverError
from masksolve.torch.least_squares import choose_method
from masksolve.torch.unfolding import from_rows, input_rows, output_rows, to_rows


def correlated(count, width, seed=0, rank=None):
    """Inputs of few common causes and some noise, whose mean is not 0."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.Generator().manual_seed(99)
    rank = rank or max(2, width // 4)
    basis = torch.randn(rank, width, generator=mixing, dtype=torch.float64)
    causes = torch.randn(count, rank, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return causes @ basis + 0.3 * noise + torch.linspace(-1, 1, width, dtype=torch.float64)


def masked_linear(inputs=16, outputs=12, bias=True, n=2, m=4, seed=0):
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)
    mt.sparsify(layer, n, m)
    return layer


def dense_of(layer):
    return layer.parametrizations.weight.original.detach().clone()


def relative_error(Y, Z):
    return float(((Y - Z).square().sum() / Y.square().sum()).detach())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("method", ["auto", "least_squares", "cg", "adam"])
def test_rows_are_least_squares_solutions(method, bias):
    layer, X = masked_linear(bias=bias), correlated(300, 16)
    W, mask = dense_of(layer), layer.parametrizations.weight[0].mask
    Y = X @ W.T
    old_bias = layer.bias.detach().clone() if bias else 0
    mt.reconstruct(layer, X, method=method, ridge=0, steps=1500, learning_rate=1e-2)
    found = layer.weight.detach()
    for row in range(12):
        kept = mask[row]
        columns = [X[:, kept], torch.ones(300, 1, dtype=torch.float64)][: 1 + bias]
        best, *_ = np.linalg.lstsq(torch.hstack(columns).numpy(), Y[:, row].numpy(), rcond=None)
        tolerance = {"adam": 1e-4, "cg": 1e-5}.get(method, 1e-9)
        np.testing.assert_allclose(found[row, kept], best[: int(kept.sum())], atol=tolerance)
        if bias:
            change = float((layer.bias.detach() - old_bias)[row])
            assert change == pytest.approx(best[-1], abs=tolerance)


def test_the_gradient_vanishes_where_weights_are_kept():
    layer, X = masked_linear(inputs=32, outputs=24, n=4, m=8), correlated(400, 32)
    W, mask = dense_of(layer), layer.parametrizations.weight[0].mask
    ridge = 0.05
    mt.reconstruct(layer, X, ridge=ridge)
    V = dense_of(layer).requires_grad_()
    b = layer.bias.detach().clone().requires_grad_()
    shift = b - nn.Linear(32, 24).bias.new_tensor(0)
    start = masked_linear(inputs=32, outputs=24, n=4, m=8).bias.detach()
    loss = (X @ W.T - X @ (V * mask).T - (shift - start)).square().sum()
    loss = loss + ridge * X.square().sum(0).mean() * ((V - W) * mask).square().sum()
    loss.backward()
    scale = float(X.square().sum())
    assert float(V.grad.abs().max()) < 1e-10 * scale
    assert float(b.grad.abs().max()) < 1e-10 * scale
    assert torch.equal(V.detach()[~mask], W[~mask]), "pruned entries are left as they were"


@pytest.mark.parametrize("method", ["least_squares", "cg"])
def test_rows_of_unequal_support(method):
    layer = nn.Linear(16, 8, bias=False, dtype=torch.float64)
    mt.sparsify(layer, 3, 4, degree="at_most")
    mask, X = layer.parametrizations.weight[0].mask, correlated(200, 16)
    with torch.no_grad():
        mask[0, :], mask[1, :13] = False, False
    W = dense_of(layer)
    mt.reconstruct(layer, X, method=method, ridge=0)
    assert not layer.weight[0].any()
    best, *_ = np.linalg.lstsq(X[:, 13:].numpy(), (X @ W[1]).numpy(), rcond=None)
    kept = mask[1, 13:].numpy()
    if kept.all():
        np.testing.assert_allclose(layer.weight[1, 13:].detach(), best, atol=1e-6)
    gradient = (X.T @ (X @ (layer.weight.detach() - W).T)).T * mask
    assert float(gradient.abs().max()) < 1e-5 * float(X.square().sum())


def test_white_inputs_allow_no_gain_and_correlated_ones_do():
    white, hang_together = masked_linear(bias=False), masked_linear(bias=False)
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 16)))
    (none,) = mt.reconstruct(white, torch.from_numpy(Q)).layers
    assert none.error_after == pytest.approx(none.error_before, rel=1e-10)
    (much,) = mt.reconstruct(hang_together, correlated(400, 16)).layers
    assert much.error_after < 0.2 * much.error_before


def test_the_start_absorbs_the_mean():
    """With inputs that never vary, one step from the start is not even needed."""
    X = torch.linspace(0.5, 2, 16, dtype=torch.float64).expand(20, 16)
    for bias in (False, True):
        layer = masked_linear(bias=bias)
        (found,) = mt.reconstruct(layer, X, method="adam", steps=1, learning_rate=0, ridge=0).layers
        assert found.error_before > 1e-3
        assert found.error_after < 1e-14
        mask = layer.parametrizations.weight[0].mask
        W = dense_of(masked_linear(bias=bias))
        delta = (W * ~mask) @ X[0]
        if bias:
            torch.testing.assert_close(
                layer.bias.detach() - masked_linear().bias.detach(), delta, atol=1e-12, rtol=1e-10
            )
        else:
            change = (dense_of(layer) - W)[mask]
            spread = (delta / (mask * X[0] ** 2).sum(1))[:, None] * X[0] * mask
            torch.testing.assert_close(change, spread[mask], atol=1e-12, rtol=1e-10)


def test_adam_is_never_worse_than_its_start():
    layer, X = masked_linear(), correlated(100, 16)
    (start,) = mt.reconstruct(copy.deepcopy(layer), X, method="adam", learning_rate=0).layers
    (wild,) = mt.reconstruct(layer, X, method="adam", learning_rate=100.0, steps=3).layers
    assert wild.error_after <= start.error_after < start.error_before


CONVOLUTIONS = [
    nn.Conv1d(8, 8, 3, stride=2, padding=2, dilation=2),
    nn.Conv1d(8, 8, 3, padding="same", padding_mode="circular"),
    nn.Conv2d(8, 16, (3, 2), padding=(1, 0), stride=(2, 1), groups=2, bias=False),
    nn.Conv2d(8, 8, 3, padding="same", dilation=(1, 2), padding_mode="reflect"),
    nn.Conv2d(8, 8, 2, padding="same"),
    nn.Conv3d(4, 8, (1, 2, 3), padding=(0, 1, 1), padding_mode="replicate"),
    nn.Conv3d(4, 4, 2, padding="valid"),
    nn.ConvTranspose1d(8, 8, 4, stride=3, padding=1, output_padding=2, dilation=2),
    nn.ConvTranspose1d(4, 8, 1, stride=2, padding=0),
    nn.ConvTranspose2d(8, 8, (3, 2), stride=(2, 1), groups=2, padding=(2, 0), bias=False),
    nn.ConvTranspose3d(4, 4, 2, stride=2, padding=1),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_convolutions_are_products_of_rows(layer):
    layer = copy.deepcopy(layer).double()
    size = (3, layer.in_channels, *(7, 6, 5)[: len(layer.kernel_size)])
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for each in (x, x[0]):
        y = layer(each)
        X = torch.cat(list(input_rows(layer, each, y)))
        rows = to_rows(layer, layer.weight)
        product = torch.einsum("tgk,gok->tgo", X, rows)
        if layer.bias is not None:
            product = product + layer.bias.view(product.shape[1:])
        torch.testing.assert_close(product, output_rows(layer, y))
    torch.testing.assert_close(from_rows(layer, rows, layer.weight.shape), layer.weight)


def test_parts_of_a_batch_are_the_batch(monkeypatch):
    layer = nn.Conv2d(4, 4, 3)
    x = torch.randn(5, 4, 6, 6)
    (whole,) = input_rows(layer, x, layer(x))
    monkeypatch.setattr("masksolve.torch.unfolding._PART", 2000)
    parts = list(input_rows(layer, x, layer(x)))
    assert len(parts) > 1
    assert torch.equal(torch.cat(parts), whole)


def test_a_transposed_convolution_asked_for_an_output_size():
    layer = nn.ConvTranspose2d(4, 4, 3, stride=2)
    x = torch.randn(2, 4, 5, 5)
    y = layer(x, output_size=(12, 11))
    X = torch.cat(list(input_rows(layer, x, y)))
    product = torch.einsum("tgk,gok->tgo", X, to_rows(layer, layer.weight)) + layer.bias
    torch.testing.assert_close(product, output_rows(layer, y), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_reconstructed_convolutions_are_optimal(layer):
    """No small change of kept weights and bias lessens the error: its gradient vanishes."""
    layer = copy.deepcopy(layer).double()
    size = (16, layer.in_channels, *(7, 6, 5)[: len(layer.kernel_size)])
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = x.cumsum(1) + x.cumsum(2)
    with torch.no_grad():
        target = layer(x)
        whole = target - layer(torch.zeros_like(x))  # without the bias
    mt.sparsify(layer, 2, 4)
    (found,) = mt.reconstruct(layer, x, ridge=1e-12).layers
    loss = (layer(x) - target).square().sum()
    assert found.error_after == pytest.approx(float(loss.detach() / whole.square().sum()), rel=1e-6)
    assert found.error_after < found.error_before
    loss.backward()
    mask = layer.parametrizations.weight[0].mask
    gradient = layer.parametrizations.weight.original.grad[mask]
    assert float(gradient.abs().max()) < 1e-6 * float(x.square().sum())


def small_model():
    """A model with masks, and the dense one that it was."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)
    ).double()
    dense = copy.deepcopy(model)
    mt.sparsify(model, 2, 4)
    return model, dense


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_reported_errors_are_the_errors(order):
    model, dense = small_model()
    data, held_out = correlated(200, 16).split(64), [correlated(100, 16, seed=5)]
    before = copy.deepcopy(model)
    report = mt.reconstruct(model, data, order=order, validation=held_out)
    assert [each.name for each in report.layers] == ["0", "2", "4"]

    def fed(network, x, name):
        return network[: int(name)](x)

    for found in report.layers:
        name, index = found.name, int(found.name)
        for batches, errors in (
            (data, (found.error_before, found.error_after)),
            (held_out, (found.validation_before, found.validation_after)),
        ):
            x = torch.cat(list(batches))
            source = model if order == "sequential" else dense
            with torch.no_grad():
                X, target = fed(source, x, name), fed(dense, x, name)
                Y = nn.functional.linear(target, dense[index].weight)
                masked = nn.functional.linear(X, before[index].weight)
                after = model[index](X) - dense[index].bias
            assert errors[0] == pytest.approx(relative_error(Y, masked), rel=1e-8)
            assert errors[1] == pytest.approx(relative_error(Y, after), rel=1e-8)
    text = str(report)
    assert all(each.name in text for each in report.layers)
    assert "val. after" in text
    assert order in text


def test_sequential_makes_good_what_came_before():
    """The model's own output, on held-out data, is nearer to the dense one than in parallel."""
    losses = {}
    for order in ("sequential", "parallel"):
        model, dense = small_model()
        mt.reconstruct(model, correlated(2000, 16), order=order)
        x = correlated(500, 16, seed=7)
        losses[order] = relative_error(dense(x), model(x))
    assert losses["sequential"] < losses["parallel"]


def test_batches_of_any_size_add_up_to_the_same():
    found = []
    for batches in (
        correlated(96, 16),
        correlated(96, 16).split(7),
        iter(correlated(96, 16).split(40)),
    ):
        model, _ = small_model()
        mt.reconstruct(model, batches)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(found[0], found[1], atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(found[0], found[2], atol=1e-8, rtol=1e-8)


class Twice(nn.Module):
    """A layer that is called twice, and one with keyword inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x, y=None):
        x = self.first(self.first(x).relu_())
        return self.last(input=x if y is None else x + y)


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_layers_called_twice_and_every_kind_of_batch(order):
    x, y = correlated(60, 16).float(), correlated(60, 16, seed=3).float()
    results = []
    for batch, call in (
        ([(x, y)], None),
        ({"x": x, "y": y}, None),
        ([{"x": x, "y": y}], None),
        ([(x, y, "label")], lambda model, batch: model(*batch[:2])),
    ):
        torch.manual_seed(0)
        model = Twice()
        mt.sparsify(model, 2, 4)
        report = mt.reconstruct(model, batch, order=order, call=call)
        results.append(model.first.weight.detach())
        assert all(each.error_after < each.error_before for each in report.layers)
    assert all(torch.equal(results[0], other) for other in results)


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_layers_that_share_a_weight_are_fitted_together(order):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)).double()
    model[2].weight = model[0].weight
    W, x = model[0].weight.detach().clone(), correlated(200, 16)
    with torch.no_grad():
        inputs = [x, model[:2](x)]
    mt.sparsify(model, 2, 4)
    biases = [model[0].bias.detach().clone(), model[2].bias.detach().clone()]
    report = mt.reconstruct(model, x, order=order, ridge=0)
    assert len(report.layers) == 1
    assert torch.equal(biases[0], model[0].bias)
    assert torch.equal(biases[1], model[2].bias)
    assert torch.equal(model[0].weight, model[2].weight)
    if order == "parallel":
        X, mask = torch.cat(inputs), model[0].parametrizations.weight[0].mask
        gradient = ((model[0].weight.detach() - W) @ (X.T @ X))[mask]
        assert float(gradient.abs().max()) < 1e-9 * float(X.square().sum())


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_nothing_else_of_the_model_changes(order):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 16), nn.Linear(16, 4)
    )
    mt.sparsify(model, 2, 4)
    model.train()
    model[2].eval()
    model[3].bias.requires_grad_(False)
    model(correlated(8, 16).float()).sum().backward()
    heard = []
    handle = model[0].register_forward_hook(lambda *_: heard.append(1))
    state = copy.deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    wanted = [p.requires_grad for p in model.parameters()]
    hooks = [dict(m._forward_hooks) for m in model.modules()]
    random = torch.get_rng_state()
    loader = torch.utils.data.DataLoader(
        correlated(64, 16).float(), batch_size=16, shuffle=True, collate_fn=torch.stack
    )
    mt.reconstruct(model, loader, order=order)
    assert torch.equal(random, torch.get_rng_state())
    assert [m.training for m in model] == [True, True, False, True, True]
    assert hooks == [dict(m._forward_hooks) for m in model.modules()]
    assert heard
    handle.remove()
    for now, before in zip(model.parameters(), gradients, strict=True):
        assert (now.grad is None) == (before is None)
        assert before is None or torch.equal(now.grad, before)
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad_fn is None for p in model.parameters())
    for key, value in model.state_dict().items():
        changes = (key.endswith("bias") and key[0] in "034") or key.endswith("original")
        assert torch.equal(value, state[key]) != changes, key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_the_weights_own_dtype_is_in_the_report(dtype):
    torch.manual_seed(0)
    layer = nn.Linear(16, 16, bias=False).to(dtype)
    W, X = layer.weight.detach().clone().double(), correlated(200, 16).to(dtype)
    mt.sparsify(layer, 2, 4)
    (found,) = mt.reconstruct(layer, X, order="parallel").layers
    Y = X.double() @ W.T
    after = X.double() @ layer.weight.detach().double().T
    assert found.error_after == pytest.approx(relative_error(Y, after), rel=1e-9)


def test_single_precision_and_autocast_come_close():
    exact, single, cast = (masked_linear().float() for _ in range(3))
    X = correlated(300, 16).float()
    mt.reconstruct(exact, X)
    mt.reconstruct(single, X, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mt.reconstruct(cast, X, order="parallel")
    torch.testing.assert_close(single.weight, exact.weight, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(cast.weight, exact.weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_moments_are_summed_and_solved_without_autocast(order):
    plain, cast, X = nn.Linear(16, 8), nn.Linear(16, 8), correlated(300, 16).float()
    cast.load_state_dict(plain.state_dict())
    for layer, enabled in ((plain, False), (cast, True)):
        mt.sparsify(layer, 2, 4)
        # A layer that is not under autocast, of a model that is.
        layer.forward = lambda x, layer=layer: nn.functional.linear(
            x.double(), layer.weight.double(), layer.bias.double()
        ).float()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            mt.reconstruct(layer, X, order=order, dtype=torch.float32)
    assert torch.equal(plain.weight, cast.weight)


def test_hooks_that_change_outputs_are_not_fitted():
    """A hook that was there before is called after: it gets what the layer computed."""
    layer, hooked, X = masked_linear(), masked_linear(), correlated(100, 16)
    hooked.register_forward_hook(lambda _, __, output: output.mul_(3))
    (expected,) = mt.reconstruct(layer, X).layers
    (found,) = mt.reconstruct(hooked, X).layers
    assert found.error_after == expected.error_after
    assert torch.equal(hooked.weight, layer.weight)


def test_a_bias_that_layers_share_stays():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)).double()
    model[1].bias = model[0].bias
    before = model[0].bias.detach().clone()
    mt.sparsify(model, 2, 4)
    report = mt.reconstruct(model, correlated(100, 16))
    assert torch.equal(model[0].bias, before)
    assert model[1].bias is model[0].bias
    assert all(each.error_after < each.error_before for each in report.layers)


def test_auto_takes_the_cheaper():
    def mask(kept, width):
        return torch.arange(width).expand(1, 4, width) < kept

    assert choose_method(mask(32, 64)) == "least_squares"
    assert choose_method(mask(2048, 4096)) == "cg"
    layer = masked_linear()
    (found,) = mt.reconstruct(layer, correlated(50, 16)).layers
    assert (found.method, found.steps) == ("least_squares", 0)


def test_unfinished_conjugate_gradients_are_told():
    with pytest.warns(UserWarning, match="conjugate gradients left .* after 2 steps"):
        mt.reconstruct(masked_linear(), correlated(200, 16), method="cg", steps=2)


def test_progress():
    model, _ = small_model()
    told = []
    mt.reconstruct(model, correlated(50, 16), progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_inputs_that_are_all_zero_change_nothing():
    layer = masked_linear(bias=False)
    W = dense_of(layer)
    (found,) = mt.reconstruct(layer, torch.zeros(8, 16, dtype=torch.float64)).layers
    assert torch.equal(dense_of(layer), W)
    assert np.isnan(found.error_after)


BAD_CALLS = [
    ({"calibration": []}, OptionError, "calibration data has no batch"),
    ({"calibration": torch.zeros(0, 16).double()}, OptionError, "no input .* reaches layer '0'"),
    ({"calibration": 5}, OptionError, "iterable of batches.*got int"),
    ({"calibration": "data"}, OptionError, "got str"),
    ({"validation": []}, OptionError, "validation data has no batch"),
    ({"method": "exact"}, OptionError, "method must be one of 'auto'.*'exact'"),
    ({"order": 1}, OptionError, "order must be one of"),
    ({"ridge": -1}, OptionError, "ridge must be .* got -1"),
    ({"ridge": float("nan")}, OptionError, "ridge must be"),
    ({"learning_rate": True}, OptionError, "learning_rate must be"),
    ({"steps": 0}, OptionError, "steps must be a positive integer, got 0"),
    ({"dtype": torch.float16}, OptionError, "dtype must be"),
    ({"call": 3}, OptionError, "call must take"),
    ({"progress": 3}, OptionError, "progress must be"),
    (
        {"calibration": torch.full((4, 16), torch.nan).double()},
        NonFiniteError,
        "'0' is fed has 64 NaN",
    ),
    (
        {"calibration": correlated(3, 16), "ridge": 0, "method": "least_squares"},
        SolverError,
        "layer '0': .* singular.*more calibration inputs or a larger ridge",
    ),
]


@pytest.mark.parametrize("order", ["sequential", "parallel"])
@pytest.mark.parametrize(("bad", "error", "message"), BAD_CALLS, ids=lambda case: str(case)[:40])
def test_errors_leave_the_model_as_it_was(bad, error, message, order):
    model, _ = small_model()
    state = copy.deepcopy(model.state_dict())
    options = {"calibration": correlated(40, 16), "order": order, **bad}
    with pytest.raises(error, match=message):
        mt.reconstruct(model, **options)
    assert_untouched(model, state)


def assert_untouched(model, state):
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(m.training for m in model.modules())


def test_models_that_cannot_be_reconstructed():
    with pytest.raises(OptionError, match=r"must be a torch.nn.Module, got Tensor"):
        mt.reconstruct(torch.zeros(3), torch.zeros(3))
    with pytest.raises(OptionError, match="has no masks"):
        mt.reconstruct(nn.Linear(4, 4), torch.zeros(3, 4))
    model = Twice()
    mt.sparsify(model, 2, 4)
    with pytest.raises(OptionError, match="reaches layer 'last'"):
        mt.reconstruct(model, torch.randn(9, 16), call=lambda model, x: model.first(x))
    layer = masked_linear()
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Identity())
    with pytest.raises(OptionError, match="the layer has a second parametrization"):
        mt.reconstruct(layer, correlated(9, 16))
    model, _ = small_model()
    model[2].parametrizations.weight[0].dense = True
    with pytest.raises(
        OptionError, match=r"layer '2' is switched to dense .*set masked.dense to False"
    ):
        mt.reconstruct(model, correlated(9, 16))
    layer = masked_linear()
    with torch.no_grad():
        layer.parametrizations.weight.original[3, 3] = torch.inf
    with pytest.raises(NonFiniteError, match="weight of the layer"):
        mt.reconstruct(layer, correlated(9, 16))


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_an_error_half_way_leaves_everything_as_it_was(order):
    """The last layers fail, when the first are solved: by data, by overflow, by the user."""
    model, _ = small_model()
    state = copy.deepcopy(model.state_dict())

    class BoomError(Exception):
        pass

    def stop(done, _):
        if done == 2:
            raise BoomError

    with pytest.raises(BoomError):
        mt.reconstruct(model, correlated(40, 16), order=order, progress=stop)
    assert_untouched(model, state)
    calls = itertools.count()

    def fails_late(model, x):
        if next(calls) == 1:
            raise BoomError
        return model(x)

    with pytest.raises(BoomError):
        mt.reconstruct(model, correlated(40, 16).split(8), order=order, call=fails_late)
    assert_untouched(model, state)


def test_models_that_call_a_layer_differently_when_masked():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x):
            for _ in range(int((self.layer.weight == 0).any()) + 1):
                y = self.layer(x)
            return y

    model = Fickle()
    mt.sparsify(model, 2, 4)
    X = correlated(9, 16).float()
    assert mt.reconstruct(copy.deepcopy(model), X, order="parallel").layers

    class Choosy(Fickle):
        def forward(self, x):
            return x if (self.layer.weight == 0).any() else self.layer(x)

    model.__class__ = Choosy
    with pytest.raises(OptionError, match="not called as often"):
        mt.reconstruct(model, X)


def test_new_weights_that_their_dtype_cannot_hold():
    """The kept inputs of the first row are a millionth of those that they must stand in for."""
    layer = nn.Linear(8, 8, bias=False).half()
    nn.init.ones_(layer.weight)
    mt.sparsify(layer, 1, 4)
    kept = layer.weight[0].detach() != 0
    X = (torch.randn(20, 1) * torch.where(kept, 1e-4, 1e2)).half()
    with pytest.raises(NonFiniteError, match=r"^the layer: .* not finite in torch.float16"):
        mt.reconstruct(layer, X, ridge=0, method="cg")


def test_feed_forward_of_real_weights_loses_less_than_half(real_weights):
    """A transformer's two linear layers, fed by normalised states that hang together."""
    names = sorted(real_weights)
    wide = next(real_weights[k] for k in names if real_weights[k].shape == (1536, 384))
    narrow = next(real_weights[k] for k in names if real_weights[k].shape == (384, 1536))
    model = nn.Sequential(
        nn.LayerNorm(384, elementwise_affine=False),
        nn.Linear(384, 1536, bias=False),
        nn.GELU(),
        nn.Linear(1536, 384, bias=False),
    )
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(wide.astype(np.float32)))
        model[3].weight.copy_(torch.from_numpy(narrow.astype(np.float32)))
    mt.sparsify(model, 2, 4)
    model.requires_grad_(False)
    data, held_out = (
        correlated(count, 384, seed, rank=64).float() for seed, count in ((0, 4096), (1, 512))
    )
    report = mt.reconstruct(
        model, data, validation=held_out, method="cg", ridge=0.1, dtype=torch.float32
    )
    assert [each.name for each in report.layers] == ["1", "3"]
    for each in report.layers:
        assert each.validation_after < each.validation_before / 2
