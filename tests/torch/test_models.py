"""Masks on models: which weights, tied, grouped, transposed, ragged; off again; proven."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import masksolve as ms
import masksolve.torch as mt
from masksolve.errors import MaskError, NonFiniteError, OptionError, RaggedShapeError

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
    ],
)
def test_selection(choice, expected):
    model = nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(8, 8), nn.Conv1d(8, 8, 1)), "b": nn.Linear(8, 8, bias=False)}
    )
    mt.sparsify(model, 2, 4, **choice)
    assert {layer.name for layer in mt.masked_layers(model)} == expected


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
    with pytest.raises(RaggedShapeError, match=r"1\.weight: .*6"):
        mt.sparsify(model, 2, 4, remainder="error")
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    report = mt.sparsify(copy.deepcopy(model), 2, 4, remainder="skip")
    assert [entry.name for entry in report.masked] == ["0.weight"]
    assert "8×6" in str(report) or "6×8" in str(report)
    mt.sparsify(model, 2, 4)
    mt.check_sparsity(model)


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
    with pytest.raises(NonFiniteError, match=r"1\.weight: .*\(.*3, 5\)"):
        mt.sparsify(model, 2, 4)
    assert not any(parametrize.is_parametrized(module) for module in model.modules())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mt.sparsify(nn.ReLU(), 2, 4), "no weight to mask"),
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
