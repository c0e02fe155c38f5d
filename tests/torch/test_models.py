"""Masks on models: which weights, tied, grouped, transposed, ragged; off again; proven."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import masksolve as ms
import masksolve.torch as mt
from masksolve.errors import DtypeError, MaskError, NonFiniteError, OptionError, RaggedShapeError
from masksolve.torch.layout import Layout
from masksolve.torch.masking import Masked
from masksolve.torch.models import _digest

LAYERS = [
    nn.Linear(12, 8),
    nn.Conv1d(8, 12, 3),
    nn.Conv2d(8, 12, (3, 2), groups=2),
    nn.Conv3d(8, 8, 2),
    nn.ConvTranspose1d(12, 8, 3),
    nn.ConvTranspose2d(8, 12, 3, groups=2),
    nn.ConvTranspose3d(8, 8, 2),
]


def blocks_by_hand(module, weight):
    """Matrices (outputs, inputs) of every group and tap, by the definition of the layer."""
    weight = weight.detach().numpy()
    if isinstance(module, nn.Linear):
        return [weight]
    transposed = "Transpose" in type(module).__name__
    g = module.groups
    matrices = []
    for tap in np.ndindex(*weight.shape[2:]):
        flat = weight[(slice(None), slice(None), *tap)]
        parts = np.split(flat, g)  # groups lie along the first axis in both kinds
        matrices += [part.T if transposed else part for part in parts]
    return matrices


@pytest.mark.parametrize("module", LAYERS, ids=lambda module: type(module).__name__)
def test_every_group_and_tap_has_its_best_mask(module):
    module = copy.deepcopy(module)
    dense = module.weight.detach().clone()
    report = mt.sparsify(module, 2, 4)
    entry = report.masked[0]
    assert (entry.name, entry.shape, entry.gap) == ("weight", tuple(dense.shape), 0)
    mask = module.parametrizations.weight[0].mask
    kept = 0.0
    for scores, part in zip(
        blocks_by_hand(module, dense), blocks_by_hand(module, mask), strict=True
    ):
        assert ms.certify_mask(scores, part, 2, 4).optimal
        kept += float(np.abs(scores)[part].sum())
    assert entry.kept_share == pytest.approx(kept / float(dense.abs().sum()), rel=1e-5)
    assert torch.equal(module.weight, dense * mask)
    x = torch.randn(
        2, dense.shape[0] if "Transpose" in type(module).__name__ else 12, *[5] * (dense.dim() - 2)
    )
    if not isinstance(module, nn.Linear):
        x = torch.randn(2, module.in_channels, *[5] * (dense.dim() - 2))
    assert torch.isfinite(module(x)).all()


def encoder():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
    )
    return nn.ModuleDict(
        {"embedding": nn.Embedding(8, 16), "body": model, "head": nn.Linear(16, 8)}
    )


def test_the_report_names_every_parameter():
    model = encoder()
    names = [name for name, _ in model.named_parameters()]
    report = mt.sparsify(model, 2, 4, exclude="head")
    assert [entry.name for entry in report.parameters] == names
    reasons = {entry.name: entry.reason for entry in report.skipped}
    assert reasons["head.weight"] == "excluded"
    assert "Embedding" in reasons["embedding.weight"]
    assert "MultiheadAttention" in reasons["body.layers.0.self_attn.in_proj_weight"]
    assert "bias" in reasons["body.layers.1.linear2.bias"]
    assert "body.layers.0.norm1.weight" in reasons
    assert all(str(entry) in str(report) for entry in report.parameters)
    x = torch.randn(2, 3, 16)
    model["body"].eval()
    with torch.no_grad():
        fast = model["body"](x)
    slow = model["body"](x)
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"include": "a.0"}, {"a.0"}),
        ({"include": "a.0.weight"}, {"a.0"}),
        ({"include": "a.*"}, {"a.0", "a.1"}),
        ({"include": nn.Conv1d}, {"a.1"}),
        ({"include": [nn.Conv1d, "b"]}, {"a.1", "b"}),
        ({"include": lambda _, module: module.bias is None}, {"b"}),
        ({"exclude": ["a.*"]}, {"b"}),
        ({"include": "a.*", "exclude": nn.Conv1d}, {"a.0"}),
        ({"include": "a"}, {"a.0", "a.1"}),
        ({"include": ["?", "b"], "exclude": "a.0"}, {"a.1", "b"}),
        ({"exclude": "a"}, {"b"}),
        ({"exclude": nn.Sequential}, {"b"}),
        ({"include": lambda name, _: name != "b"}, {"a.0", "a.1"}),
    ],
)
def test_selection(choice, expected):
    model = nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(8, 8), nn.Conv1d(8, 8, 1)), "b": nn.Linear(8, 8, bias=False)}
    )
    mt.sparsify(model, 2, 4, **choice)
    assert {layer.name for layer in mt.masked_layers(model)} == expected


def test_modules_of_the_model_are_selected_with_all_they_hold():
    for choice, expected in ((0, {"0.0", "0.1"}), (1, {"1"})):
        model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 4))
        mt.sparsify(model, 2, 4, include=model[choice])
        assert {layer.name for layer in mt.masked_layers(model)} == expected


def test_a_name_is_a_name_even_if_it_could_be_a_glob():
    for name in ("a[0]", "a[0].weight"):
        model = nn.ModuleDict({"a[0]": nn.Linear(4, 4), "a0": nn.Linear(4, 4)})
        mt.sparsify(model, 2, 4, include=name)
        assert [layer.name for layer in mt.masked_layers(model)] == ["a[0]"]


@pytest.mark.parametrize("choice", ["act", "a*t", "1", nn.ReLU, nn.Embedding, nn.ReLU(), int])
@pytest.mark.parametrize("option", ["include", "exclude"])
def test_what_reaches_no_layer_is_refused(option, choice):
    model = nn.ModuleDict({"act": nn.ReLU(), "lines": nn.Linear(4, 4)})
    with pytest.raises(OptionError, match=rf"{option}=.* fits no layer .* like 'lines'"):
        mt.sparsify(model, 2, 4, **{option: choice})


def test_the_optimizer_goes_on_with_the_dense_weight():
    model = nn.Linear(8, 8)
    weight, optimizer = model.weight, torch.optim.SGD(model.parameters(), lr=1.0)
    mt.sparsify(model, 2, 4)
    (layer,) = mt.masked_layers(model)
    assert layer.weight is weight
    model(torch.ones(1, 8)).sum().backward()
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(weight, before - 1)


def test_tied_weights_have_one_mask():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    report = mt.sparsify(model, 2, 4)
    assert report.masked[0].tied == ("1.weight",)
    assert len(list(mt.masked_layers(model))) == 1
    assert model[0].parametrizations.weight[0] is model[1].parametrizations.weight[0]
    assert torch.equal(model[0].weight, model[1].weight)
    weight = next(mt.masked_layers(model)).weight
    mt.desparsify(model)
    assert model[0].weight is model[1].weight is weight
    assert weight.count_nonzero() == 32


def test_what_is_tied_to_something_dense_is_skipped():
    model = nn.ModuleDict(
        {"in": nn.Embedding(8, 8), "mid": nn.Linear(8, 8), "out": nn.Linear(8, 8)}
    )
    model["out"].weight = model["in"].weight
    report = mt.sparsify(model, 2, 4)
    assert [entry.name for entry in report.masked] == ["mid.weight"]
    reason = next(e.reason for e in report.skipped if e.name == "in.weight")
    assert "Embedding" in reason
    assert "in.weight" in reason
    assert not parametrize.is_parametrized(model["out"])


@pytest.mark.parametrize("bake", [True, False])
def test_desparsify(bake):
    model = encoder()
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    mt.sparsify(model, 2, 4)
    masked = {layer.name: layer.module.weight.detach().clone() for layer in mt.masked_layers(model)}
    mt.desparsify(model, bake=bake)
    after = dict(model.named_parameters())
    assert set(after) == set(dense)
    for name, value in dense.items():
        layer = name.removesuffix(".weight")
        expected = masked[layer] if bake and layer in masked else value
        assert torch.equal(after[name], expected)
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    with pytest.raises(OptionError, match="no masks"):
        mt.desparsify(model)


def test_desparsify_restores_the_order_that_states_of_optimizers_go_by():
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 8, 3))
    before = [*model.named_parameters()]
    mt.sparsify(model, 2, 4, weight_gradient="mvue")
    assert [name for name, _ in model.named_parameters()] != [name for name, _ in before]
    mt.desparsify(model)
    for (name, now), (old_name, old) in zip(model.named_parameters(), before, strict=True):
        assert name == old_name
        assert now is old
    assert [*model.state_dict()] == [name for name, _ in before]


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


@pytest.mark.parametrize("gradient", ["dense", "mvue"])
def test_desparsify_leaves_parametrizations_of_other_parameters(gradient):
    model, x = nn.Linear(4, 4), torch.randn(3, 4)
    mt.sparsify(model, 2, 4, weight_gradient=gradient)
    parametrize.register_parametrization(model, "bias", Double())
    copied, expected = copy.deepcopy(model), model(x)
    mt.desparsify(model)
    assert torch.equal(model(x), expected)
    assert isinstance(model, nn.Linear)
    assert not isinstance(model, mt.MVUELinear)
    assert torch.equal(copied(x), expected)
    mt.check_sparsity(copied)
    parametrize.remove_parametrizations(model, "bias")
    assert type(model) is nn.Linear


def test_desparsify_refuses_a_second_parametrization_of_the_weight():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    mt.sparsify(model, 2, 4)
    parametrize.register_parametrization(model[1], "weight", Double())
    dense = [layer.weight.detach().clone() for layer in mt.masked_layers(model)]
    with pytest.raises(OptionError, match="layer '1' has a second parametrization"):
        mt.desparsify(model)
    for layer, weight in zip(mt.masked_layers(model), dense, strict=True):
        assert torch.equal(layer.weight, weight)
    del model[1].parametrizations.weight[1]
    mt.desparsify(model)
    assert model[1].weight.count_nonzero() == 8


@pytest.mark.parametrize("gradient", ["straight_through", "static", "sr_ste"])
def test_masks_made_in_inference_mode_can_be_trained(gradient):
    model = nn.Sequential(nn.Linear(8, 8), nn.Conv1d(4, 4, 1))
    with torch.inference_mode():
        decay = 0.1 if gradient == "sr_ste" else 0.0
        mt.sparsify(model, 2, 4, gradient=gradient, decay=decay)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = mt.SparseTraining(model, optimizer, update_every=1)
    model(torch.randn(2, 4, 8)).square().sum().backward()
    optimizer.step()
    assert training.last_update.step == 1
    mt.check_sparsity(model)


@pytest.mark.parametrize("first", [0, 1])
def test_a_deep_copy_stands_alone(first):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    mt.sparsify(model, 2, 4)
    models = [model, copy.deepcopy(model)]
    mt.desparsify(models[first])
    other = models[1 - first]
    assert other[0].weight.count_nonzero() == 32
    mt.check_sparsity(copy.deepcopy(other))
    mt.desparsify(other)
    assert type(other[0]) is type(models[first][0]) is nn.Linear
    assert torch.equal(other[0].weight, models[first][0].weight)


def test_what_is_switched_to_dense_is_told_and_not_baked():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    dense = model[1].weight.detach().clone()
    mt.sparsify(model, 2, 4)
    model[1].parametrizations.weight[0].dense = True
    with pytest.raises(MaskError, match=r"layer '1' computes with 32 .*switched to dense"):
        mt.check_sparsity(model)
    mt.desparsify(model)
    assert model[0].weight.count_nonzero() == 32
    assert torch.equal(model[1].weight, dense)


def test_heuristics_report_their_gap():
    report = mt.sparsify(encoder(), 2, 4, method="greedy")
    gaps = [entry.gap for entry in report.masked]
    assert min(gaps) >= 0
    assert 0.001 < max(gaps) < 0.05


def test_ragged_layers():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6))
    with pytest.raises(RaggedShapeError, match=r"1\.weight: its matrices are 6×8.*multiples of 4"):
        mt.sparsify(model, 2, 4, remainder="error")
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    report = mt.sparsify(copy.deepcopy(model), 2, 4, remainder="skip")
    assert [entry.name for entry in report.masked] == ["0.weight"]
    assert "8×6" in str(report) or "6×8" in str(report)
    mt.sparsify(model, 2, 4)
    mt.check_sparsity(model)


def test_a_layer_narrower_than_the_pattern_is_masked_along_its_longer_side():
    model = nn.Linear(8, 2, bias=False)
    assert mt.sparsify(model, 2, 4).masked
    assert model.weight.count_nonzero() == 8


def test_layers_of_different_kinds_that_share_a_weight_are_left_dense():
    model = nn.Sequential(nn.Conv1d(16, 8, 3, groups=2), nn.Conv1d(8, 8, 3), nn.Conv1d(8, 8, 3))
    model[1].weight = model[0].weight
    report = mt.sparsify(model, 2, 4)
    assert [entry.name for entry in report.masked] == ["2.weight"]
    assert "different kinds: 0.weight, 1.weight" in report.skipped[0].reason


@pytest.mark.parametrize("plain", [0, 1])
def test_the_weight_gradients_of_all_that_share_a_weight_are_told(plain):
    class Own(nn.Linear):
        pass

    layers = [Own(4, 4), Own(4, 4)]
    layers[plain] = nn.Linear(4, 4)
    layers[1].weight = layers[0].weight
    (entry,) = mt.sparsify(nn.Sequential(*layers), 2, 4, weight_gradient="mvue").masked
    assert entry.weight_gradient == ("mvue and dense", "dense and mvue")[plain]
    assert [type(layer).__name__ for layer in layers].count("ParametrizedMVUELinear") == 1


def test_shares_of_half_precision_are_summed_in_single():
    layer = nn.Linear(512, 512).half()
    nn.init.ones_(layer.weight)
    assert mt.sparsify(layer, 2, 4).masked[0].kept_share == 0.5


def test_density_is_that_of_the_weight():
    layer = nn.Linear(8, 8)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[0, 0] = 1
    mt.sparsify(layer, 2, 4)
    assert mt.check_sparsity(layer)[0].density == 1 / 64


def test_layers_without_weights_or_scores():
    with warnings.catch_warnings():  # PyTorch's own, of what has no elements
        warnings.simplefilter("ignore", UserWarning)
        model = nn.Sequential(nn.Linear(8, 0), nn.Linear(8, 8))
    nn.init.zeros_(model[1].weight)
    text = str(mt.sparsify(model, 2, 4))
    assert "nan" not in text
    assert text.count("has no score") == 2


def test_digests_tell_patterns_degrees_and_shapes_apart():
    eye = torch.eye(4, dtype=torch.bool).repeat(2, 1)
    parts = [
        (eye, ms.Pattern(1, 4), "exact"),
        (eye, ms.Pattern(2, 4), "exact"),
        (eye, ms.Pattern(1, 4), "at_most"),
        (eye.view(4, 8), ms.Pattern(1, 4), "exact"),
    ]
    digests = [_digest(Masked(*part, Layout())) for part in parts]
    assert len(set(digests)) == len(parts)
    assert digests[0] == _digest(Masked(eye.clone(), ms.Pattern(1, 4), "exact", Layout()))


def test_depthwise_convolutions_have_nothing_to_prune():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1))
    report = mt.sparsify(model, 2, 4)
    assert "1×1" in report.skipped[0].reason
    assert [entry.name for entry in report.masked] == ["1.weight"]


@pytest.mark.parametrize("spoil", ["mask", "weight"])
def test_check_sparsity_names_the_layer(spoil):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    mt.sparsify(model, 2, 4)
    found = mt.check_sparsity(model)
    assert [(f.name, str(f.pattern), f.density) for f in found] == [
        ("0", "2:4", 0.5),
        ("1", "2:4", 0.5),
    ]
    if spoil == "mask":
        model[1].parametrizations.weight[0].mask[0] = True
    else:

        class Shift(nn.Module):
            def forward(self, weight):
                return weight + 1

        parametrize.register_parametrization(model[1], "weight", Shift())
    with pytest.raises(MaskError, match="layer '1'"):
        mt.check_sparsity(model)


def test_nothing_is_half_applied():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        model[1].weight[3, 5] = torch.nan
        model[1].weight[4, 5] = torch.inf
    message = r"1\.weight: .* \(3, 5\) is nan; 2 entries .*; look for where they come from$"
    with pytest.raises(NonFiniteError, match=message):
        mt.sparsify(model, 2, 4)
    assert not any(parametrize.is_parametrized(module) for module in model.modules())


def test_positions_are_those_in_the_weight():
    layer = nn.Conv1d(8, 8, 3, groups=2)
    with torch.no_grad():
        layer.weight[6, 1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"\(6, 1, 2\)"):
        mt.sparsify(layer, 2, 4)
    layer = nn.Linear(8, 8)
    mt.sparsify(layer, 2, 4)
    layer.parametrizations.weight[0].mask[5] = True
    with pytest.raises(
        MaskError, match=r"^the layer: row 1 of block \(1, 0\) \(array row 5, columns"
    ):
        mt.check_sparsity(layer)


def test_dtypes_without_masks_are_told_with_the_layer():
    model = nn.Sequential(nn.Linear(4, 4).to(torch.float8_e4m3fn))
    with pytest.raises(DtypeError, match=r"^0\.weight: .*float8_e4m3fn"):
        mt.sparsify(model, 2, 4)


def test_masks_without_numbers_are_told():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    mt.sparsify(model, 2, 4)
    model.to("meta")
    training = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=1))
    for call in (
        lambda: mt.check_sparsity(model),
        lambda: mt.reconstruct(model, torch.randn(3, 8)),
        training.update,
    ):
        with pytest.raises(OptionError, match="layer '0' is on the device 'meta'"):
            call()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    ],
)
def test_weights_that_a_hook_makes_are_told_as_such(change):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    change(model[0])
    report = mt.sparsify(model, 2, 4)
    assert [entry.name for entry in report.masked] == ["1.weight"]
    reasons = {entry.name: entry.reason for entry in report.skipped if "bias" not in entry.name}
    assert reasons
    assert all("weight_norm, spectral_norm and prune" in reason for reason in reasons.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mt.sparsify(nn.ReLU(), 2, 4), "no weight to mask; what it has:\nno parameter"),
        (lambda: mt.sparsify(nn.Linear(4, 4), 2, 4, include=[]), "not among those to include"),
        (lambda: mt.sparsify(nn.Linear(4, 4), 2, 4, include=3), "include takes names.*got 3"),
        (lambda: mt.sparsify(nn.LayerNorm(4), 2, 4), "LayerNorm"),
        (lambda: mt.sparsify("model", 2, 4), "must be a torch.nn.Module, got str"),
        (lambda: mt.sparsify(nn.LazyLinear(4), 2, 4), "not initialized yet"),
        (lambda: mt.sparsify(nn.Linear(4, 4, device="meta"), 2, 4), "device 'meta'"),
        (
            lambda: mt.sparsify(nn.Linear(4, 4), 2, 4, include="heda"),
            "include='heda' fits no layer",
        ),
        (lambda: mt.sparsify(nn.Linear(4, 4), 2, 4, exclude=[7]), "exclude takes names"),
        (lambda: mt.sparsify(nn.Linear(4, 4), 2, 4, remainder="drop"), "'drop'"),
        (lambda: mt.sparsify(nn.Linear(4, 4, dtype=torch.complex64), 2, 4), "complex64"),
        (lambda: mt.check_sparsity(nn.Linear(4, 4)), "no masks"),
    ],
)
def test_bad_calls(call, message):
    with pytest.raises(OptionError, match=message):
        call()


def test_twice_is_refused():
    model = nn.Linear(4, 4)
    mt.sparsify(model, 2, 4)
    with pytest.raises(OptionError, match="masked already"):
        mt.sparsify(model, 1, 4)
    with pytest.raises(OptionError, match="masked already"):
        mt.sparsify(nn.Sequential(model, nn.Linear(4, 4)), 1, 4)


def test_a_weight_parametrized_otherwise_is_skipped():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 8))
    report = mt.sparsify(model, 2, 4)
    assert [entry.name for entry in report.masked] == ["1.weight"]
    assert any("parametrized" in entry.reason for entry in report.skipped)
