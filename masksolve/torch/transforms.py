"""Whether torch.func looks on: the one private name of PyTorch that more than one room needs."""

from __future__ import annotations

import torch

__all__ = ["is_transformed"]


def is_transformed() -> bool:
    """Whether the call is under a transform of ``torch.func``, for which PyTorch has no public question."""
    return torch._C._are_functorch_transforms_active()
