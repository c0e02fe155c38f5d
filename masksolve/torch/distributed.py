"""Weights and models that are spread over several processes: gathered, told apart, refused."""

from __future__ import annotations

import sys
from typing import Any, TypeGuard

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["is_sharded", "mask_for", "own_part", "whole", "wrapper_of"]


def is_sharded(tensor: Tensor) -> TypeGuard[Any]:
    """Whether it is a DTensor, of which this process holds a part."""
    module = sys.modules.get("torch.distributed.tensor")  # loaded wherever such a tensor is
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a DTensor, gathered from all its processes; any other as it is.

    Every process gets the same numbers, and so finds the same mask. To gather is a collective
    call: all processes must take part, in the same order.
    """
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def mask_for(weight: Tensor, mask: Tensor) -> Tensor:
    """Return a mask as one that can be applied to a weight, which may be a DTensor.

    Nothing is sent: every process has the whole mask.
    """
    if not is_sharded(weight) or is_sharded(mask):
        return mask
    parts, mesh = sys.modules["torch.distributed.tensor"], weight.device_mesh
    replicated: Tensor = parts.DTensor.from_local(mask, mesh, [parts.Replicate()] * mesh.ndim)
    return replicated


def own_part(tensor: Tensor, weight: Tensor) -> Tensor:
    """Return this process's part of a tensor that is whole, or spread as a weight is; nothing is sent."""
    if not is_sharded(weight):
        return tensor
    spread: Any = mask_for(weight, tensor)
    part: Tensor = spread.redistribute(weight.device_mesh, weight.placements).to_local()
    return part


def wrapper_of(model: nn.Module) -> str:
    """Name what spreads a model, or a part of it, over processes; empty if nothing does."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules():
        if isinstance(module, DistributedDataParallel):
            return "DistributedDataParallel"
        if fsdp is not None and isinstance(module, fsdp.FullyShardedDataParallel):
            return "FullyShardedDataParallel"
        if fsdp is not None and isinstance(module, fsdp.FSDPModule):
            return "fully_shard"
    sharded = any(map(is_sharded, model.parameters()))
    return "parameters that are sharded (DTensor)" if sharded else ""
