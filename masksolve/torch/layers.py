"""The masked layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import OptionError
from .masking import Masked

__all__ = [
    "MaskedLayer",
    "called",
    "check_alone",
    "check_numbers",
    "find_masked",
    "masked_layers",
    "no_masks",
    "some_masked",
    "weight_name",
]


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


def some_masked(model: nn.Module) -> list[MaskedLayer]:
    """Return the masked layers of a model that must have some."""
    found = list(masked_layers(model))
    if not found:
        raise no_masks()
    return found


def no_masks() -> OptionError:
    """Error for a model without masks."""
    return OptionError("the model has no masks; masksolve.torch.sparsify puts them on")


def called(name: str) -> str:
    """Return what messages call the layer of a name, which is empty if it is the model itself."""
    return f"layer {name!r}" if name else "the layer"


def weight_name(layer: str) -> str:
    """Return the name of a layer's weight in the model."""
    return f"{layer}.weight" if layer else "weight"


def check_alone(name: str, module: nn.Module) -> None:
    """Check that a masked weight has no parametrization beside its mask."""
    if len(module.parametrizations.weight) > 1:  # type: ignore[union-attr,arg-type]
        raise OptionError(
            f"{called(name)} has a second parametrization of its weight beside the mask: delete it "
            f"from its parametrizations.weight before"
        )


def check_numbers(what: str, tensor: Tensor) -> None:
    """Check that a weight is not on the device 'meta'."""
    if tensor.is_meta:
        raise OptionError(
            f"{what} is on the device 'meta', which holds no numbers; give the model memory by "
            f"to_empty(), and load its state_dict"
        )
