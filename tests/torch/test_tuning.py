"""tune_decay: ratios by hand, a truly dense reference, and nothing of the user's touched."""

import copy
import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import masksolve.torch as mt
from masksolve.errors import NonFiniteError, OptionError
from masksolve.torch import DecayRun, DecaySearch

OPTIONS = {"decays": [1.0, 0, 0.1], "steps": 6, "update_every": 2}


def network(masked=True):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    if masked:
        mt.sparsify(model, 2, 4)
    return model, torch.optim.AdamW(model.parameters(), lr=0.03)


def train_step(model, optimizer, step):
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    (model(x) - x.roll(1, 1)).square().mean().backward()
    optimizer.step()


def flip_rates(decay, before=0):
    """The flip rates of a run, step by step; of a model that never had a mask if decay is None."""
    model, optimizer = network(masked=False)
    for step in range(100, 100 + before):
        train_step(model, optimizer, step)
    weights = [model[0].weight, model[2].weight]
    masks = [mt.find_mask(w, 2, 4) for w in weights]
    rates = []
    for step in range(OPTIONS["steps"]):
        if decay is None:
            train_step(model, optimizer, step)
        else:
            dense = [w.detach().clone() for w in weights]
            with torch.no_grad():
                for w, mask in zip(weights, masks, strict=True):
                    w.mul_(mask)
            x = torch.randn(6, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(x) - x.roll(1, 1)).square().mean().backward()
            with torch.no_grad():
                for w, mask, full in zip(weights, masks, dense, strict=True):
                    w.copy_(full)
                    w.grad.add_(w * ~mask, alpha=decay)
            optimizer.step()
        if step % OPTIONS["update_every"] == 1:
            new = [mt.find_mask(w, 2, 4) for w in weights]
            flips = sum(int((a ^ b).sum()) for a, b in zip(masks, new, strict=True))
            rates.append(flips / 192)
            masks = new
    return rates


def test_rates_and_ratios_by_hand():
    found = mt.tune_decay(*network(), train_step, **OPTIONS)
    reference = flip_rates(None)
    assert list(found.dense.flip_rates) == reference
    assert found.dense.flip_rate == pytest.approx(sum(reference) / 3)
    assert [run.decay for run in found.runs] == [0, 0.1, 1.0]
    for run in found.runs:
        assert list(run.flip_rates) == flip_rates(run.decay)
        assert run.ratio == pytest.approx(sum(run.flip_rates) / sum(reference))
    rates = {found.dense.flip_rates, *(run.flip_rates for run in found.runs)}
    assert len(rates) == 4, "or it is not seen what each is of"


def test_masks_of_the_start_are_those_of_the_weights():
    """Masks are as old as sparsify, weights two steps younger: that is no flip of the runs."""
    model, optimizer = network()
    mt.desparsify(model, bake=False)
    for step in (100, 101):
        train_step(model, optimizer, step)
    current = copy.deepcopy(model)
    mt.sparsify(model, 2, 4)
    with torch.no_grad():
        for each in mt.masked_layers(model):
            each.masked.mask.copy_(mt.find_mask(torch.randn_like(each.weight), 2, 4))
    found = mt.tune_decay(model, optimizer, train_step, **OPTIONS)
    assert list(found.dense.flip_rates) == flip_rates(None, before=2)
    assert torch.equal(current[0].weight, next(mt.masked_layers(model)).weight)


def noisy_step(model, optimizer, step):
    """Draws from all generators, changes the mode, leaves gradients behind."""
    model.eval()
    noise = torch.randn(()) + random.random() + np.random.standard_normal()  # noqa: NPY002
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(step)) + noise
    (model(x) - x.roll(1, 1)).square().mean().backward()
    optimizer.step()


def failing_step(model, optimizer, step):
    noisy_step(model, optimizer, step)
    if step == 3:
        raise KeyError("the batch")


@pytest.mark.parametrize("step", [noisy_step, failing_step])
def test_nothing_of_the_users_is_touched(step):
    model, optimizer = network()
    train_step(model, optimizer, 0)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    gradients = [p.grad.clone() for p in model.parameters()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    if step is failing_step:
        with pytest.raises(KeyError, match="the batch"):
            mt.tune_decay(model, optimizer, step, **OPTIONS)
    else:
        found = mt.tune_decay(model, optimizer, step, **{**OPTIONS, "decays": [0.5]})
        again = mt.tune_decay(model, optimizer, step, **{**OPTIONS, "decays": [0.5, 0.1]})
        assert again.runs[1] == found.runs[0], "each run draws the same numbers"
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected  # noqa: NPY002
    assert model.training
    assert not any(each.masked.dense for each in mt.masked_layers(model))
    assert all(map(torch.equal, gradients, (p.grad for p in model.parameters())))
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), before, rtol=0, atol=0)
    with mt.SparseTraining(model, optimizer) as training:
        train_step(model, optimizer, 1)
        assert training.step == 1


def search(*ratios, accept=(0.6, 0.95)):
    decays = (1e-5, 1e-4, 1e-3, 1e-2)
    runs = tuple(DecayRun(d, (r / 10,), r) for d, r in zip(decays, ratios, strict=False))
    return DecaySearch(accept, DecayRun(0.0, (0.1,), 1.0), runs)


@pytest.mark.parametrize(
    ("ratios", "decay", "message"),
    [
        ((1.2, 0.94, 0.8, 0.61), 1e-3, "decay 0.001 has a ratio in [0.6, 0.95]"),
        ((0.95, 0.59), 1e-5, "decay 1e-05"),
        ((0.96, 0.6), 1e-4, "decay 0.0001"),
        ((0.3, 1.2), None, "try some from 1e-05 to 0.0001"),
        ((1.2, 0.3, 0.1), None, "try some from 1e-05 to 0.0001"),
        ((1.4, 1.3), None, "try larger than 0.0001"),
        ((0.5, 0.1), None, "try smaller than 1e-05"),
        ((1.2, math.nan), None, "try some from 1e-05 to 0.0001"),
    ],
)
def test_the_one_nearest_to_the_middle_is_chosen(ratios, decay, message):
    found = search(*ratios, accept=(0.6, 0.95))
    assert found.decay == decay
    assert message in found.message
    assert str(found).endswith(found.message)
    assert len(str(found).splitlines()) == len(ratios) + 3


def test_of_two_as_near_the_smaller():
    assert search(1.0, 0.5, accept=(0.25, 1.25)).decay == 1e-5


def test_a_run_that_diverges_has_no_ratio():
    model, optimizer = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    found = mt.tune_decay(
        model, optimizer, train_step, decays=[1e-3, 1e30], steps=4, update_every=2
    )
    assert found.runs[0].ratio > 0
    assert math.isnan(found.runs[1].ratio)
    assert math.isnan(found.runs[1].flip_rate)
    assert found.decay in (None, 1e-3)
    assert found.plot().axes

    def diverge(model, optimizer, step):
        with torch.no_grad():
            model[0].parametrizations.weight.original.fill_(torch.nan)
        train_step(model, optimizer, step)

    with pytest.raises(NonFiniteError, match="step 2, layer '0'"):
        mt.tune_decay(model, optimizer, diverge, **OPTIONS)


def test_progress_is_told():
    told = []
    mt.tune_decay(*network(), train_step, **OPTIONS, progress=lambda *now: told.append(now))
    assert told == list(zip(range(1, 25), itertools.repeat(24)))


def test_picture():
    figure = search(1.2, 0.8, 0.3).plot(title="a model")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["measured"].get_xydata().tolist() == [[1e-5, 1.2], [1e-4, 0.8], [1e-3, 0.3]]
    assert lines["chosen: 0.0001"].get_xydata().tolist() == [[1e-4, 0.8]]
    (band,) = axes.patches
    assert (band.get_y(), band.get_height()) == (0.6, pytest.approx(0.35))
    assert axes.get_title() == "a model"
    assert [line.get_label() for line in search(2, 1).plot().axes[0].lines] == ["measured"]


def test_matplotlib_comes_with_the_picture_only():
    code = "import sys, masksolve.torch; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decays": []}, "decays must be a sequence"),
        ({"decays": 0.1}, r"decays must be a sequence.*got 0\.1"),
        ({"decays": [0.1, -1]}, "decay must be a finite number of 0 or more, got -1"),
        ({"steps": 0}, "steps must be an integer"),
        ({"steps": 3, "update_every": 4}, "steps=3 has no update with update_every=4"),
        ({"accept": (0.9, 0.6)}, r"accept must be two numbers.*got \(0\.9, 0\.6\)"),
        ({"accept": 0.6}, r"accept must be two numbers.*got 0\.6"),
        ({"train_step": None}, "train_step must be callable, got None"),
        ({"train_step": lambda *_: None}, "took 0 steps with the optimizer that it was given"),
        ({"progress": 3}, "progress must be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message):
        mt.tune_decay(*network(), **{"train_step": train_step, **OPTIONS, **options})


def test_bad_calls():
    model, optimizer = network()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    with pytest.raises(OptionError, match="no entry of a mask changed"):
        mt.tune_decay(model, optimizer, train_step, **OPTIONS)
    with pytest.raises(OptionError, match="has no masks"):
        mt.tune_decay(*network(masked=False), train_step, **OPTIONS)
