"""One of the processes of a distributed test: python ranks.py RANK FOLDER SCENARIO..."""

import datetime
import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("PyTorch is built without torch.distributed or gloo", allow_module_level=True)

import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import masksolve.torch as mt
from masksolve.errors import MaskError, OptionError
from masksolve.torch import semi_structured
from masksolve.torch.distributed import whole

RULES = [
    {"gradient": "straight_through"},
    {"gradient": "static"},
    {"gradient": "sr_ste", "decay": 0.1},
]
WHOLE = StateDictOptions(full_state_dict=True)


class Net(nn.Module):
    """Halves of 10, 6 and 1 rows are no multiples of 4, and one of them is empty."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv1d(4, 10, 3)
        self.tied = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.tied[1].weight = self.tied[0].weight
        self.head = nn.Linear(60, 1)
        self.double()

    def hidden(self, x):
        for layer in (self.conv, *self.tied):
            x = layer(x).sin()
        return x

    def forward(self, x):
        return self.head(self.hidden(x).flatten(1))


class Recomputing(Net):
    def hidden(self, x):
        return checkpoint(super().hidden, x, use_reentrant=False)


def masked(seed=0, kind=Net, **rule):
    model = kind(seed)
    mt.sparsify(model, 2, 4, **rule)
    return model


def sharded(model, **options):
    options = {"mesh": init_device_mesh("cpu", (2,)), **options}
    fully_shard(model.conv, **options)
    fully_shard(model, **options)
    return model


def train(model, share=slice(None), steps=4):
    """Train on a share of the data, with new masks after half of the steps and after all."""
    torch.manual_seed(7)
    xs, ys = torch.randn(steps, 6, 4, 8).double(), torch.randn(steps, 6, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    by_gradient = any(layer.masked.decay for layer in mt.masked_layers(model))
    decay = 0.0 if by_gradient else 0.1
    mt.SparseTraining(model, optimizer, update_every=steps // 2, decay=decay)
    for step in range(steps):
        optimizer.zero_grad()
        (model(xs[step, share]) - ys[step, share]).square().mean().backward()
        optimizer.step()


def assert_same(model, alone):
    """Weights, masks and what the layers compute with are those of a run in one process."""
    found = list(mt.masked_layers(model))
    expected = list(mt.masked_layers(alone))
    assert len(found) == len(expected) == 3
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.masked.mask, b.masked.mask)
        torch.testing.assert_close(whole(a.weight), b.weight)
        torch.testing.assert_close(whole(a.module.weight), b.module.weight)
    mt.check_same_masks(model)
    assert [c.density for c in mt.check_sparsity(model)] == [
        c.density for c in mt.check_sparsity(alone)
    ]


def one_process(kind=Net, **rule):
    model = masked(kind=kind, **rule)
    before = [layer.masked.mask.clone() for layer in mt.masked_layers(model)]
    train(model)
    after = [layer.masked.mask for layer in mt.masked_layers(model)]
    assert not all(map(torch.equal, before, after))
    return model


def share_of(rank):
    return slice(3 * rank, 3 * rank + 3)


def ddp(rank, _):
    for rule in RULES:
        model = DistributedDataParallel(masked(seed=rank, **rule))  # rank 0 gives weights and masks
        train(model, share_of(rank))
        assert_same(model, one_process(**rule))


def fsdp(rank, _):
    for rule in RULES:
        alone = one_process(**rule)
        for kind in (Net, Recomputing):
            model = sharded(masked(kind=kind, **rule))
            train(model, share_of(rank))
            assert_same(model, alone)
    assert model.head.parametrizations.weight.original.to_local().numel() == (60, 0)[rank]
    columns = masked(**rule)
    fully_shard(columns, shard_placement_fn=lambda p: Shard(p.dim() > 1 and p.shape[1] % 2 == 0),
        mesh=init_device_mesh("cpu", (2,)))  # fmt: skip
    train(columns, share_of(rank))
    assert_same(columns, alone)


def mixed_precision(_, __):
    """The mask of the float64 weight, seen by bfloat16: as one process would cast it."""
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1)).double()
    for rule in RULES:
        alone = masked(**rule).bfloat16()
        alone(x.bfloat16()).sum().backward()
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        model = sharded(masked(**rule), mp_policy=policy)
        output = model(x)
        assert output.dtype == torch.bfloat16
        output.sum().backward()
        for a, b in zip(model.parameters(), alone.parameters(), strict=True):
            assert a.grad.dtype == torch.float64
            assert torch.equal(whole(a.grad), b.grad.double())
        assert_same(model, masked(**rule))


def sparse(rank, _):
    """By kernels of reference: what DDP's micro-batches share, and that FSDP keeps no pack."""
    from test_semi_structured import Reference  # beside this file

    reference, mesh = Reference(), init_device_mesh("cpu", (2,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semi_structured, "KERNELS", {"reference": reference})
        patch.setattr(semi_structured, "_DEVICES", ("cpu",))
        patch.setattr(mt.SparseLinear, "kernels", ("reference",))
        patch.setattr(mt.SparseLinear, "least_products", 1)
        for kind, packs in (
            (DistributedDataParallel, 2),
            (partial(fully_shard, mesh=mesh), 2 * 3 * 2),
        ):
            weights = []
            for execution in ("sparse", "masked"):
                torch.manual_seed(0)
                model = nn.Sequential(nn.Linear(32, 48, bias=False))
                mt.sparsify(model, 2, 4, execution=execution)
                with torch.autocast("cpu", torch.bfloat16):
                    mt.execution_report(model)  # tries the kernels
                before, outputs = reference.packs, reference.products
                wrapped = accumulate(kind(model), rank)
                weights.append(whole(next(wrapped.parameters())))
                used = execution == "sparse"
                assert reference.packs - before == packs * used
                assert reference.products - outputs == 2 * 3 * 2 * used
            torch.testing.assert_close(*weights)


def accumulate(model, rank):
    """Two steps of three micro-batches, of which the last alone is sent to others."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    for step in range(2):
        for batch in range(3):
            last = batch == 2
            hold = getattr(model, "no_sync", nullcontext)
            torch.manual_seed(10 * step + 2 * batch + rank)
            x = torch.randint(-1, 2, (8, 32)).float().requires_grad_()
            with nullcontext() if last else hold(), torch.autocast("cpu", torch.bfloat16):
                model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def checkpoints(rank, folder):
    model = sharded(masked())
    train(model, share_of(rank))
    dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=folder / "good")
    full = get_model_state_dict(model, options=WHOLE)
    if rank == 0:
        torch.save(full, folder / "full.pt")
    other = sharded(masked(seed=1))
    load(other, folder / "good")
    assert_same(other, model_of(full))
    other = sharded(masked(seed=1))
    broadcast(other, full)
    assert_same(other, model_of(full))

    next(mt.masked_layers(model)).masked.mask[0] = True
    dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=folder / "bad")
    bad = get_model_state_dict(model, options=WHOLE)
    with pytest.raises(RuntimeError, match=r"conv.*mask is refused, but was read in place .*keeps"):
        load(sharded(masked()), folder / "bad")
    other = masked(seed=1)
    before = next(mt.masked_layers(other)).masked.mask.clone()
    other = sharded(other)
    with pytest.raises(RuntimeError, match="mask is refused, the old mask stays"):
        broadcast(other, bad)
    assert torch.equal(next(mt.masked_layers(other)).masked.mask, before)


def load(model, folder):
    state = {"model": get_model_state_dict(model)}
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(model, state["model"])


def broadcast(model, state):
    # Not strict: PyTorch sends what belongs to a shared module, as the mask of tied weights, once.
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(model, {} if dist.get_rank() else dict(state), options=options)


def model_of(state):
    model = masked(seed=2)
    model.load_state_dict(state)
    return model


def refusals(rank, _):
    model = sharded(Net(0))
    for call in (mt.find_mask, mt.solve):
        with pytest.raises(OptionError, match=r"DTensor.*full_tensor\(\)"):
            call(model.head.weight, 2, 4)
    for wrapped, wrapper in [
        (model, "fully_shard"),
        (nn.Sequential(model.conv, nn.Linear(4, 4)), "fully_shard"),
        (model.tied, "parameters that are sharded"),
        (DistributedDataParallel(Net(0)), "DistributedDataParallel"),
        (FullyShardedDataParallel(Net(0), device_id=torch.device("cpu")), "FullyShardedDataP"),
    ]:
        with pytest.raises(OptionError, match=f"by {wrapper}.*sparsify it first"):
            mt.sparsify(wrapped, 2, 4)
    with pytest.raises(OptionError, match="no masks"):
        mt.check_same_masks(model)

    model = sharded(masked())
    with pytest.raises(OptionError, match=r"under fully_shard.*full state_dict"):
        mt.desparsify(model)
    full = get_model_state_dict(model, options=WHOLE)
    with unchanged(model):
        alone = model_of(full)
        mt.desparsify(alone)
    wrapped = DistributedDataParallel(masked())
    with pytest.raises(OptionError, match=r"under DistributedDataParallel.*its \.module"):
        mt.desparsify(wrapped)
    mt.desparsify(wrapped.module)
    again = DistributedDataParallel(wrapped.module)
    again(torch.ones(2, 4, 8).double()).sum().backward()

    layers = list(mt.masked_layers(model))
    layers[1].masked.mask[:] = layers[1].masked.mask.roll(rank, 0)
    with pytest.raises(MaskError, match=r"layer 'tied\.0' is not the same on ranks 0 and 1"):
        mt.check_same_masks(model)
    model = Net(0)
    mt.sparsify(model, 2, 4, include="head" if rank else "conv")
    with pytest.raises(MaskError, match=r"'conv' is masked on one of the ranks 0 and 1"):
        mt.check_same_masks(model)
    first = dist.new_group([0])
    if rank == 0:
        mt.check_same_masks(model, first)
    else:
        with pytest.raises(OptionError, match="not in the group"):
            mt.check_same_masks(model, first)


@contextmanager
def unchanged(model):
    before = [whole(p).detach().clone() for p in model.parameters()]
    yield
    assert all(map(torch.equal, before, map(whole, model.parameters())))


if __name__ == "__main__":
    rank, folder, scenarios = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=120),
    )
    for scenario in scenarios:
        globals()[scenario](rank, folder)
        dist.barrier()
    dist.destroy_process_group()
