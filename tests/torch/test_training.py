"""SparseTraining: decay by hand, masks when they are due, dense at the end, resumed bit for bit."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import masksolve.torch as mt
from masksolve.errors import MethodError, NonFiniteError, OptionError

W = torch.tensor(
    [[5.0, 1.0, 2.0, -4.0], [2.0, -6.0, 3.0, 1.0], [1.0, 2.0, -7.0, 3.0], [-8.0, 4.0, 1.0, 2.0]]
)
X = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
G = X.expand(4, 4)  # gradient of the sum of all outputs of a linear layer, by its weight


def layer(**options):
    linear = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(W)
    mt.sparsify(linear, 2, 4, **options)
    return linear


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    mt.sparsify(model, 2, 4)
    return model


def masks_of(model):
    return [each.masked.mask.clone() for each in mt.masked_layers(model)]


def best_masks(model):
    return [mt.find_mask(each.weight, 2, 4) for each in mt.masked_layers(model)]


def alike(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def batch(step, size=6):
    return torch.randn(size, 8, generator=torch.Generator().manual_seed(step))


def train(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        (model(batch(step)) - batch(step + 1000)).square().mean().backward()
        optimizer.step()


def test_decay_is_added_to_the_gradient():
    linear = layer()
    pruned = (~linear.parametrizations.weight[0].mask).float()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.5)
    mt.SparseTraining(linear, optimizer, decay=0.25)
    linear(X).sum().backward()
    optimizer.step()
    dense = linear.parametrizations.weight.original
    assert torch.equal(dense, W - 0.5 * (G + 0.25 * pruned * W))


def test_adam_normalises_the_decay():
    """Without a gradient its first step is lr sign(decay (1 - x) w), however small the decay."""
    linear = layer()
    pruned = (~linear.parametrizations.weight[0].mask).float()
    optimizer = torch.optim.Adam(linear.parameters(), lr=0.5, eps=1e-30)
    mt.SparseTraining(linear, optimizer, decay=1e-6)
    (0 * linear(X)).sum().backward()
    optimizer.step()
    dense = linear.parametrizations.weight.original
    torch.testing.assert_close(dense, W - 0.5 * pruned * W.sign())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_climbing_is_descending_the_negative(kind):
    """The decay shrinks pruned weights either way, as the optimizer's own weight decay does."""
    weights = []
    for sign in (1, -1):
        linear = layer()
        optimizer = kind(linear.parameters(), lr=0.1, maximize=sign < 0)
        mt.SparseTraining(linear, optimizer, decay=0.5, update_every=10)
        for _ in range(3):
            optimizer.zero_grad()
            (sign * linear(X).sum()).backward()
            optimizer.step()
        weights.append(linear.parametrizations.weight.original.detach())
    assert torch.equal(*weights)


def test_decay_is_neither_scaled_nor_clipped():
    linear = layer()
    pruned = (~linear.parametrizations.weight[0].mask).float()
    optimizer = torch.optim.SGD(linear.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    mt.SparseTraining(linear, optimizer, decay=0.25)
    scaler.scale(linear(X).sum()).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(linear.parameters(), 1.0)
    scaler.step(optimizer)
    dense = linear.parametrizations.weight.original
    torch.testing.assert_close(dense, W - (G / G.norm() + 0.25 * pruned * W))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("unscale", [False, True])
def test_fused_optimizers_unscale_within_their_step(kind, unscale):
    """A scale is a power of two: with it or without, the weights are the same to the last bit."""
    found = []
    for scale in (None, 1024.0):
        linear = layer()
        optimizer = kind(linear.parameters(), lr=0.125, fused=True)
        training = mt.SparseTraining(linear, optimizer, decay=0.25)
        for step in range(3):
            optimizer.zero_grad()
            loss = (linear(X) * (step + 1)).sum()
            if scale is None:
                loss.backward()
                optimizer.step()
                continue
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            scaler.scale(loss).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
        assert training.step == 3
        found.append(linear.parametrizations.weight.original.detach())
    assert torch.equal(*found)
    assert not torch.equal(found[0], W)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_are_the_optimizers_own(fused):
    """Neither micro-batches nor steps that a scaler skips are counted."""
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    training = mt.SparseTraining(linear, optimizer, update_every=2)
    steps = []
    for overflow in (False, True, False, False):
        optimizer.zero_grad()
        for _ in range(3):
            scaler.scale(linear(X).sum() * (torch.inf if overflow else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        steps.append(training.step)
    assert steps == [1, 1, 2, 3]
    assert training.last_update.step == 2


@pytest.mark.parametrize("give", [lambda c: ((c,), {}), lambda c: ((), {"closure": c})])
def test_a_closure_gets_its_decay(give):
    linear = layer()
    pruned = (~linear.parametrizations.weight[0].mask).float()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.5)
    training = mt.SparseTraining(linear, optimizer, decay=0.25)

    def closure():
        optimizer.zero_grad()
        loss = linear(X).sum()
        loss.backward()
        return loss

    loss = linear(X).sum()
    arguments, options = give(closure)
    assert optimizer.step(*arguments, **options) == loss
    dense = linear.parametrizations.weight.original
    assert torch.equal(dense, W - 0.5 * (G + 0.25 * pruned * W))
    assert training.step == 1


def lbfgs(decay, penalty):
    """One step of LBFGS, of loss + penalty / 2 |(1 - x) w|²; returns the dense weight."""
    linear = layer()
    pruned = (~linear.parametrizations.weight[0].mask).float()
    dense = linear.parametrizations.weight.original
    optimizer = torch.optim.LBFGS(linear.parameters(), lr=0.01, max_iter=4)
    training = mt.SparseTraining(linear, optimizer, decay=decay)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = linear(X).square().sum() + penalty / 2 * (pruned * dense).square().sum()
        loss.backward()
        calls.append(loss)
        return loss

    optimizer.step(closure)
    assert (training.step, len(calls)) == (1, 4)
    return dense.detach()


def test_a_closure_that_is_called_often_is_one_step():
    torch.testing.assert_close(lbfgs(0.25, 0.0), lbfgs(0.0, 0.25))
    assert not torch.allclose(lbfgs(0.25, 0.0), lbfgs(0.0, 0.0))


def test_what_has_no_gradient_does_not_decay():
    model = nn.ModuleList([layer(), layer()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    mt.SparseTraining(model, optimizer, decay=0.5)
    model[0](X).sum().backward()
    optimizer.step()
    assert torch.equal(model[1].parametrizations.weight.original, W)
    assert not torch.equal(model[0].parametrizations.weight.original, W)


def test_masks_are_found_anew_when_due():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    seen = []
    training = mt.SparseTraining(
        model, optimizer, update_every=3, on_update=lambda u: seen.append((u, masks_of(model)))
    )
    places = [each.masked.mask.data_ptr() for each in mt.masked_layers(model)]
    old = masks_of(model)
    for step in range(1, 8):
        train(model, optimizer, [step])
        if step % 3:
            assert alike(masks_of(model), old)
            continue
        new = masks_of(model)
        assert alike(new, best_masks(model))
        flips = [int((a ^ b).sum()) for a, b in zip(old, new, strict=True)]
        assert min(flips) > 0, "or nothing is tested"
        update, masks = seen[-1]
        assert alike(masks, new), "the callback sees the new masks"
        assert training.last_update is update
        assert (update.step, update.flip_rate) == (step, sum(flips) / 192)
        assert update.layers == {"0": flips[0] / 96, "2": flips[1] / 96}
        assert {type(v) for v in (update.flip_rate, *update.layers.values())} == {float}
        assert update.seconds > 0
        old = new
    assert [update.step for update, _ in seen] == [3, 6]
    assert [each.masked.mask.data_ptr() for each in mt.masked_layers(model)] == places
    mt.check_sparsity(model)


def test_methods_and_convolutions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 12, 1))
    mt.sparsify(model, 2, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = mt.SparseTraining(model, optimizer, method="greedy")
    with torch.no_grad():
        for each in mt.masked_layers(model):
            each.weight.normal_()
    assert 0.2 < training.update().flip_rate < 0.6
    for each in mt.masked_layers(model):
        matrices = each.masked.layout.as_matrices(each.weight)
        greedy = mt.find_mask(matrices, 2, 4, method="greedy", axes=(1, 2))
        assert torch.equal(each.masked.mask, greedy.reshape(each.weight.shape))


def test_nan_weights_are_told_and_nothing_is_half_applied():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    training = mt.SparseTraining(model, optimizer, update_every=2)
    train(model, optimizer, [1])
    old, weight = masks_of(model), model[2].parametrizations.weight.original
    with torch.no_grad():
        weight[3, 5] = torch.nan
    with pytest.raises(NonFiniteError, match=r"step 2, layer '2': .*3, 5"):
        train(model, optimizer, [2])
    assert alike(masks_of(model), old)
    assert training.last_update is None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    train(model, optimizer, [3, 4])
    assert training.last_update.step == 4
    assert alike(masks_of(model), best_masks(model))


@pytest.mark.parametrize("options", [{"dense_after": 4}, {"dense_after": 0.5, "total_steps": 8}])
def test_dense_at_the_end(options):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    updates = []
    training = mt.SparseTraining(
        model, optimizer, update_every=2, decay=0.5, on_update=updates.append, **options
    )
    train(model, optimizer, range(3))
    assert model[0].weight.count_nonzero() == 48
    train(model, optimizer, [3])
    assert model[0].weight.count_nonzero() == 96
    plain = copy.deepcopy(model)
    mt.desparsify(plain, bake=False)
    plain_optimizer = torch.optim.SGD(plain.parameters(), lr=2.0)
    for each, at in ((model, optimizer), (plain, plain_optimizer)):
        train(each, at, range(4, 8))
    dense = [each.weight for each in mt.masked_layers(model)]
    assert alike(dense, [plain[0].weight, plain[2].weight])
    assert [update.step for update in updates] == [2]
    assert training.step == 8


def test_dense_after_may_be_set_while_it_runs():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = mt.SparseTraining(model, optimizer, update_every=2)
    train(model, optimizer, range(5))
    training.dense_after = 3  # which is past
    train(model, optimizer, [5])
    assert all(each.masked.dense for each in mt.masked_layers(model))
    with pytest.raises(OptionError, match="all masked layers are switched to dense"):
        mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(("fraction", "last"), [(0.59, 6), (0.51, 5), (1.0, 10), (0.01, 1)])
def test_fractions_are_rounded_to_steps(fraction, last):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = mt.SparseTraining(model, optimizer, dense_after=fraction, total_steps=10)
    assert training.dense_after == last


def test_freeze_and_thaw():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    training = mt.SparseTraining(model, optimizer, update_every=2)
    old = masks_of(model)
    training.freeze()
    train(model, optimizer, range(3))
    assert alike(masks_of(model), old)
    assert training.last_update is None
    training.thaw()
    train(model, optimizer, [3])
    assert (training.step, training.last_update.step) == (4, 4)


def test_detached():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    with mt.SparseTraining(model, optimizer, update_every=1) as training:
        with pytest.raises(OptionError, match="has a SparseTraining already"):
            mt.SparseTraining(model, optimizer)
        train(model, optimizer, [0])
    old = masks_of(model)
    train(model, optimizer, [1])
    assert training.step == 1
    assert alike(masks_of(model), old)
    with mt.SparseTraining(model, optimizer):
        training.detach()  # again, which must not let go of another's
        with pytest.raises(OptionError, match="has a SparseTraining already"):
            mt.SparseTraining(model, optimizer)


def test_tied_weights_once():
    model = nn.Sequential(layer(), layer())
    mt.desparsify(model, bake=False)
    model[1].weight = model[0].weight
    mt.sparsify(model, 2, 4)
    pruned = (~model[0].parametrizations.weight[0].mask).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    training = mt.SparseTraining(model, optimizer, decay=0.25, update_every=1)
    (0 * model(X)).sum().backward()
    optimizer.step()
    dense = model[0].parametrizations.weight.original
    assert torch.equal(dense, W - 0.25 * pruned * W)
    assert list(training.last_update.layers) == ["0"]
    assert training.last_update.flip_rate == training.last_update.layers["0"]


KINDS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05),
}


class Run:
    """Accumulates two micro-batches, scales, clips; one step overflows. Saves and loads itself."""

    def __init__(self, kind, seed=0):
        self.model = network(seed)
        self.optimizer = KINDS[kind](self.model.parameters())
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
        self.updates = []
        self.training = mt.SparseTraining(
            self.model,
            self.optimizer,
            update_every=3,
            decay=1e-2,
            dense_after=10,
            on_update=lambda update: self.updates.append((update.step, update.flip_rate)),
        )

    @property
    def parts(self):
        return self.model, self.optimizer, self.scaler, self.training

    def go(self, steps):
        for step in steps:
            self.optimizer.zero_grad()
            for micro in (0, 1):
                x = batch(2 * step + micro)
                loss = (self.model(x) - x.roll(1, 1)).square().mean() / 2
                self.scaler.scale(loss * (torch.inf if step == 4 else 1)).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def save(self):
        file = io.BytesIO()
        torch.save([part.state_dict() for part in self.parts], file)
        return file

    def load(self, file):
        file.seek(0)
        for part, state in zip(self.parts, torch.load(file, weights_only=True), strict=True):
            part.load_state_dict(state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [2, 3, 5, 9, 13])
def test_resumed_bit_for_bit(kind, cut):
    """Step 4 is skipped; masks are new after steps 2, 6 and 9; all is dense after step 10."""
    whole, first, second = Run(kind), Run(kind), Run(kind, seed=1)
    whole.go(range(15))
    first.go(range(cut))
    second.load(first.save())
    second.go(range(cut, 15))
    assert [step for step, _ in whole.updates] == [3, 6, 9]
    assert min(rate for _, rate in whole.updates) > 0
    assert first.updates + second.updates == whole.updates
    assert whole.training.state_dict() == second.training.state_dict()
    assert whole.training.step == 14
    assert second.model[0].weight.count_nonzero() == 96
    one, other = whole.model.state_dict(), second.model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = whole.optimizer.state_dict()["state"], second.optimizer.state_dict()["state"]
    assert one.keys() == other.keys()
    for index, state in one.items():
        assert all(torch.equal(value, other[index][name]) for name, value in state.items())


def test_a_frozen_state_stays_frozen():
    model = network()
    one = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=1.0))
    one.freeze()
    two = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=1.0))
    two.load_state_dict(one.state_dict())
    assert two.frozen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 0.5}, r"decay is 0\.5 here, 0\.0 there"),
        ({"update_every": 7}, "update_every is 7 here, 40 there"),
        ({"dense_after": 3}, "dense_after is 3 here, None there"),
        ({"method": "greedy"}, "method is 'greedy' here, 'auto' there"),
    ],
)
def test_a_state_of_other_options_is_refused(options, message):
    model = network()
    state = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=1.0)).state_dict()
    state["step"] = 5
    other = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=1.0), **options)
    with pytest.raises(OptionError, match=message):
        other.load_state_dict(state)
    assert other.step == 0
    other.load_state_dict({**state, "options": other.state_dict()["options"]})
    assert other.step == 5


def test_a_state_has_the_options_of_now():
    first, second = (
        mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=0.1), decay=decay)
        for model, decay in ((network(), 0.1), (network(), 0.2))
    )
    first.decay = 0.2
    state = first.state_dict()
    assert state["options"]["decay"] == 0.2
    second.load_state_dict(state)
    state["options"]["decay"] = 0.3
    state["options"]["layers"].clear()
    assert first.state_dict() == second.state_dict()
    assert first.decay == 0.2


@pytest.mark.parametrize(
    "spoil",
    [
        {"step": "a"}, {"step": -1}, {"step": 1.5}, {"frozen": "no"}, {"dense": None},
        {"dense": "0"}, {"dense": ["0", "nope"]}, {"options": None},
    ],
)  # fmt: skip
def test_a_state_that_is_spoilt_is_refused_whole(spoil):
    model = network()
    training = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = training.state_dict()
    with pytest.raises(OptionError, match=r"no state of|does not have"):
        training.load_state_dict({**before, "step": 99, "frozen": True, **spoil})
    assert training.state_dict() == before


def test_layers_have_the_same_names_in_a_wrapper():
    model = network()
    state = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=0.1)).state_dict()
    compiled = torch.compile(network(), backend="eager")
    training = mt.SparseTraining(compiled, torch.optim.SGD(compiled.parameters(), lr=0.1))
    state["dense"] = ["2"]
    training.load_state_dict(state)
    assert [each.masked.dense for each in mt.masked_layers(compiled)] == [False, True]


def test_a_state_of_something_else_is_refused():
    model, linear = network(), layer()
    training = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=1.0))
    other = mt.SparseTraining(linear, torch.optim.SGD(linear.parameters(), lr=1.0))
    with pytest.raises(OptionError, match=r"layers is \['0', '2'\] here, \[''\] there"):
        training.load_state_dict(other.state_dict())
    with pytest.raises(OptionError, match=r"no state of a SparseTraining.*got \['0\.bias'"):
        training.load_state_dict(dict(nn.Sequential(nn.Linear(2, 2)).state_dict()))
    with pytest.raises(OptionError, match="got NoneType"):
        training.load_state_dict(None)


def test_compiled_as_eager():
    """Through an update, which writes into the compiled model's masks, and on to dense."""
    found, counter = [], CompileCounterWithBackend("aot_eager")
    for compiled in (False, True):
        torch._dynamo.reset()
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
        mt.SparseTraining(model, optimizer, update_every=2, decay=0.1, dense_after=4)
        call = torch.compile(model, fullgraph=True, backend=counter) if compiled else model
        train(call, optimizer, range(6))
        found.append(model.state_dict())
    torch.testing.assert_close(*found)
    assert counter.frame_count == 2  # the update compiled nothing anew, the switch did


def test_a_layer_that_is_changed_meanwhile_is_told():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    mt.SparseTraining(model, optimizer)
    mt.desparsify(model)
    before = model[0].weight.detach().clone()
    with pytest.raises(OptionError, match="layer '0' no longer has the mask"):
        train(model, optimizer, [0])
    assert torch.equal(model[0].weight, before)


def test_a_dense_weight_that_is_exchanged_is_told():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    mt.SparseTraining(model, optimizer)
    chain = model[0].parametrizations.weight
    chain.original = nn.Parameter(chain.original.detach().clone())
    optimizer.add_param_group({"params": [chain.original]})
    with pytest.raises(OptionError, match="layer '0' no longer has the mask or the dense weight"):
        optimizer.step()


def test_the_backend_is_that_asked_for(monkeypatch):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    asked = []
    find = mt.models.find_mask
    monkeypatch.setattr(
        mt.models,
        "find_mask",
        lambda *given, **options: asked.append(options) or find(*given, **options),
    )
    mt.SparseTraining(model, optimizer, method="conv", backend="numpy").update()
    assert [(each["method"], each["backend"]) for each in asked] == [("conv", "numpy")] * 2


def test_flip_rates_weigh_entries_alike():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 12))
    mt.sparsify(model, 2, 4)
    training = mt.SparseTraining(model, torch.optim.SGD(model.parameters(), lr=2.0))
    model[0].parametrizations.weight[0].mask.logical_not_()
    update = training.update()
    assert update.layers == {"0": 1.0, "1": 0.0}
    assert update.flip_rate == 0.25


def test_an_optimizer_without_the_weights():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(7)))
    mt.sparsify(model, 2, 4)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=1.0)
    with pytest.raises(OptionError, match="weights of '1', '2', '3', '4', '5' and 1 more"):
        mt.SparseTraining(model, optimizer)
    assert mt.SparseTraining(model[0], optimizer).step == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"update_every": 0}, OptionError, "update_every must be an integer of 1 or more, got 0"),
        ({"update_every": 2.5}, OptionError, r"got 2\.5"),
        ({"update_every": True}, OptionError, "got True"),
        ({"decay": -1}, OptionError, "0 or more, got -1"),
        ({"decay": float("nan")}, OptionError, "got nan"),
        ({"decay": None}, OptionError, "got None"),
        ({"dense_after": 0}, OptionError, "dense_after must be an integer of 1 or more, got 0"),
        ({"dense_after": "end"}, OptionError, "got 'end'"),
        ({"dense_after": 1.5, "total_steps": 10}, OptionError, r"1\.5 is no fraction"),
        ({"dense_after": 0.5}, OptionError, "a fraction of total_steps: give them"),
        (
            {"dense_after": 9, "total_steps": 8},
            OptionError,
            "9 comes after the last of total_steps=8",
        ),
        ({"total_steps": -3}, OptionError, "total_steps must be .*got -3"),
        ({"workers": 0}, OptionError, "workers must be"),
        ({"on_update": 3}, OptionError, "on_update must be callable or None, got 3"),
        ({"method": "magic"}, MethodError, "unknown method 'magic'"),
    ],
)
def test_bad_options(options, error, message):
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=1.0)
    with pytest.raises(error, match=message):
        mt.SparseTraining(linear, optimizer, **options)
    assert mt.SparseTraining(linear, optimizer).step == 0


def test_bad_calls():
    plain = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
    with pytest.raises(OptionError, match="has no masks"):
        mt.SparseTraining(plain, optimizer)
    with pytest.raises(OptionError, match=r"optimizer must be a .*got Linear"):
        mt.SparseTraining(layer(), plain)
    with pytest.raises(OptionError, match=r"model must be a .*got SGD"):
        mt.SparseTraining(optimizer, optimizer)
    linear = layer(gradient="sr_ste", decay=0.1)
    optimizer = torch.optim.SGD(linear.parameters(), lr=1.0)
    with pytest.raises(OptionError, match="'sr_ste'"):
        mt.SparseTraining(linear, optimizer, decay=0.1)
    training = mt.SparseTraining(linear, optimizer)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(OptionError, match=r"state_dict\(\)"):
            copied(training)
