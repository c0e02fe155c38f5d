"""The masked layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn
from torch.nn.utils import parametrize

from .masking import Masked

__all__ = ["MaskedLayer", "find_masked", "masked_layers"]


class MaskedLayer(NamedTuple):
    """A layer with a masked weight.

    Parameters
    ----------
    name : str
        Of the layer in the model; empty if the model itself is the layer.
    module : Module
        The layer: ``module.weight`` is the masked weight.
    masked : Masked
        Its parametrization, which has the mask.
    weight : Parameter
        The dense weight, as the optimizer holds it.
    """

    name: str
    module: nn.Module
    masked: Masked
    weight: nn.Parameter


def masked_layers(model: nn.Module) -> Iterator[MaskedLayer]:
    """Yield the layers that `masksolve.torch.sparsify` masked; tied ones once, under their first name.

    Examples
    --------
    >>> import masksolve.torch as mt
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    >>> report = mt.sparsify(model, n=2, m=4)
    >>> [(layer.name, int(layer.masked.mask.sum())) for layer in masked_layers(model)]
    [('0', 32), ('2', 32)]
    """
    seen = set()
    for name, module in model.named_modules():
        masked = find_masked(module)
        if masked is not None and id(masked) not in seen:
            seen.add(id(masked))
            weight = module.parametrizations.weight.original
            yield MaskedLayer(name, module, masked, weight)


def find_masked(module: nn.Module) -> Masked | None:
    """Return the mask of a layer's weight, if it has one."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    chain = module.parametrizations.weight  # type: ignore[union-attr]
    return next((part for part in chain if isinstance(part, Masked)), None)  # type: ignore[union-attr]
