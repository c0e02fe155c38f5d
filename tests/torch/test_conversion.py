"""Conversion of unstructured sparsity: n by exact probabilities, masks that fit, nothing half done."""

import copy
import math
from fractions import Fraction
from itertools import product

import pytest
import torch
from scipy.stats import binom
from torch import nn

import masksolve.torch as mt
from masksolve.errors import OptionError, PatternError
from masksolve.torch.conversion import choose_n


def pruned_model(*shares, width=64, seed=0):
    """Linear layers of which the given shares of weights are exactly 0."""
    torch.manual_seed(seed)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in shares))
    with torch.no_grad():
        for layer, share in zip(model, shares, strict=True):
            zeros = torch.randperm(width * width)[: round(share * width * width)]
            layer.weight.view(-1)[zeros] = 0
    return model


@pytest.mark.parametrize("m", [1, 2, 4, 5])
@pytest.mark.parametrize("p", [Fraction(0), Fraction(1, 3), Fraction(7, 10), Fraction(1)])
def test_n_by_all_outcomes(m, p):
    """P(k) is the probability of all patterns of m entries that have k zeros or more."""
    tail = [
        sum(
            math.prod(p if zero else 1 - p for zero in pattern)
            for pattern in product((0, 1), repeat=m)
            if sum(pattern) >= k
        )
        for k in range(m + 1)
    ]
    # Between the probabilities, and at them: there ">" is not ">=".
    for confidence in {*tail, *(Fraction(i, 20) for i in range(1, 20))} - {0, 1}:
        largest = max(k for k in range(m + 1) if tail[k] > confidence)
        assert choose_n(p.numerator * 7, p.denominator * 7, m, confidence) == m - largest


@pytest.mark.parametrize("m", [8, 16, 64, 1024])
def test_n_by_another_binomial(m):
    for zeros, confidence in product((100, 5000, 7000, 9990), (0.5, 0.9, 0.99)):
        tail = binom.sf(range(-1, m), m, zeros / 10000)
        expected = m - max(k for k in range(m + 1) if tail[k] > confidence)
        assert choose_n(zeros, 10000, m, Fraction(confidence)) == expected


def test_n_grows_with_confidence_and_shrinks_with_zeros():
    levels = [Fraction(i, 50) for i in range(1, 50)]
    by_confidence = [choose_n(60, 100, 16, level) for level in levels]
    by_zeros = [choose_n(zeros, 100, 16, Fraction(9, 10)) for zeros in range(101)]
    assert by_confidence == sorted(by_confidence)
    assert by_zeros == sorted(by_zeros, reverse=True)
    assert (by_zeros[0], by_zeros[-1]) == (16, 0)


def test_layers_get_patterns_of_their_own():
    model = pruned_model(0.9, 0.5, 0.1)
    dense = [layer.weight.detach().clone() for layer in model]
    report = mt.convert_unstructured(model, 8, 0.9)
    patterns = [layer.pattern for layer in report.layers]
    assert [layer.name for layer in report.layers] == ["0.weight", "1.weight", "2.weight"]
    assert patterns[0].n < patterns[1].n < patterns[2].n == 8
    assert [layer.dense for layer in report.layers] == [False, False, True]
    checked = mt.check_sparsity(model)
    assert [layer.pattern for layer in checked] == patterns[:2]
    assert type(model[2].weight) is nn.Parameter
    for layer, weight, found in zip(model, dense, report.layers, strict=True):
        zeros = int((weight == 0).sum())
        assert found.zero_share == zeros / weight.numel()
        assert found.nonzeros == weight.numel() - zeros
        now = layer.weight.detach()
        assert found.dropped == found.nonzeros - int((now != 0).sum())
        kept = float(now.abs().sum(dtype=torch.float64) / weight.abs().sum(dtype=torch.float64))
        assert found.kept_share == pytest.approx(kept)
        assert math.isnan(found.error_after)
    assert report.reconstruction is None
    text = str(report)
    assert all(word in text for word in ("0.weight", "dense", str(patterns[0])))


def test_a_model_that_fits_loses_nothing():
    model = pruned_model(0.0)
    mask = mt.find_mask(model[0].weight.detach(), 2, 4)
    with torch.no_grad():
        model[0].weight *= mask
    (layer,) = mt.convert_unstructured(model, 4, 0.6).layers
    assert str(layer.pattern) == "2:4"
    assert (layer.dropped, layer.kept_share) == (0, 1.0)


def test_calibration_reconstructs():
    model = pruned_model(0.7, 0.0)
    X = torch.randn(300, 8) @ torch.randn(8, 64)
    report = mt.convert_unstructured(
        model, 8, 0.5, calibration=X, reconstruction={"order": "parallel", "validation": X}
    )
    first, second = report.layers
    assert report.reconstruction.order == "parallel"
    (same,) = report.reconstruction.layers
    assert (first.error_before, first.error_after) == (same.error_before, same.error_after)
    assert 0 < first.error_after < first.error_before
    assert math.isnan(second.error_after)
    mt.check_sparsity(model)


def test_options_of_sparsify():
    model = pruned_model(0.6, 0.6, 0.6)
    report = mt.convert_unstructured(
        model, 4, 0.5, exclude="1", degree="at_most", gradient="sr_ste", decay=1e-4
    )
    assert [layer.name for layer in report.layers] == ["0.weight", "2.weight"]
    assert {entry.reason for entry in report.masks.skipped} >= {"excluded"}
    masked = [layer.masked for layer in mt.masked_layers(model)]
    assert {(m.degree, m.gradient, m.decay) for m in masked} == {("at_most", "sr_ste", 1e-4)}


def test_convolutions_and_a_single_layer():
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 3, groups=2)
    with torch.no_grad():
        conv.weight[torch.rand_like(conv.weight) < 0.8] = 0
    X = torch.randn(8, 16, 6, 6).cumsum(1)
    (layer,) = mt.convert_unstructured(conv, 8, 0.5, calibration=[X]).layers
    assert layer.name == "weight"
    assert layer.error_after < layer.error_before
    assert mt.check_sparsity(conv)[0].pattern == layer.pattern


def test_weights_that_are_all_zero():
    model = pruned_model(1.0)
    (layer,) = mt.convert_unstructured(model, 4, 0.9).layers
    assert (layer.pattern.n, layer.dropped, layer.nonzeros) == (0, 0, 0)


def test_a_dense_model_stays_dense():
    model = pruned_model(0.0, 0.01)
    report = mt.convert_unstructured(model, 4, 0.9, calibration=torch.randn(5, 64))
    assert all(layer.dense for layer in report.layers)
    assert report.reconstruction is None
    assert not list(mt.masked_layers(model))


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 1.5, float("nan"), "0.9", True, None])
def test_confidence(confidence):
    with pytest.raises(OptionError, match="confidence must be a number between 0 and 1"):
        mt.convert_unstructured(pruned_model(0.5), 4, confidence)


def test_errors_leave_the_model_as_it_was():
    model = pruned_model(0.8, 0.6)
    parameters, state = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    X = torch.randn(5, 64)
    for options, error, message in (
        ({"m": 0}, PatternError, "m must be at least 1"),
        ({"calibration": []}, OptionError, "no batch"),
        ({"calibration": X * torch.nan}, ValueError, "NaN"),
        ({"calibration": X, "reconstruction": {"ridge": -1}}, OptionError, "ridge"),
        ({"calibration": X, "reconstruction": {"speed": 1}}, OptionError, "no option 'speed'"),
        ({"calibration": X, "reconstruction": {"calibration": X}}, OptionError, "'calibration'"),
        ({"calibration": X, "reconstruction": 5}, OptionError, "options of reconstruct by name"),
        ({"reconstruction": {"ridge": 1}}, OptionError, "no calibration data"),
        ({"exclude": nn.Linear}, OptionError, "no weight to mask"),
        ({"degree": "most"}, OptionError, "degree"),
    ):
        with pytest.raises(error, match=message):
            mt.convert_unstructured(model, **{"m": 4, "confidence": 0.5, **options})
        now = dict(model.named_parameters())
        assert [*now] == [*parameters], "in the order that states of optimizers go by"
        assert all(now[name] is parameters[name] for name in now)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    mt.convert_unstructured(model, 4, 0.5)
    with pytest.raises(OptionError, match="masked already"):
        mt.convert_unstructured(model, 4, 0.5)
