"""The parametrization: a weight seen through its mask, and what its gradient is.

With mask x and dense weight w, layers see ``x * w``, and what reaches w of the gradient g of the
masked weight is a choice:

- ``"straight_through"``: g, to kept and to pruned entries alike (Hubara et al. 2021).
- ``"sr_ste"``: ``g + decay * (1 - x) * w``, which shrinks the pruned entries (Zhou et al. 2021).
- ``"static"``: ``x * g``, the true gradient; pruned entries stay as they are.

A layer whose `Masked.dense` is True sees w itself, and w gets g.

The decay of ``"sr_ste"`` is part of every backward pass: k micro-batches add it k times, clipping
sees it, and a ``GradScaler`` divides it by a scale that it was never multiplied by. The masked decay
of `masksolve.torch.SparseTraining` is the same term, added once a step after all that.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..certify import check_mask
from ..errors import MaskError, OptionError, ShapeError
from ..pattern import Degree, Pattern
from .distributed import mask_for, whole
from .layout import Layout
from .transforms import is_transformed

__all__ = ["Gradient", "Masked", "check_gradient", "keep", "passed_on"]

#: What reaches the dense weight of the masked weight's gradient.
Gradient = Literal["straight_through", "sr_ste", "static"]


class Masked(nn.Module):
    r"""A parametrization: the weight where its mask keeps it, 0 elsewhere.

    It is put in place by `masksolve.torch.sparsify`.

    Parameters
    ----------
    mask : bool Tensor
        Of the shape of the weight; a persistent buffer, so that ``state_dict`` has it.
    pattern : Pattern
    degree : {"exact", "at_most"}
    layout : Layout
        Where the blocks of the weight lie.
    gradient : {"straight_through", "sr_ste", "static"}
    decay : float
        The factor :math:`\lambda` of ``"sr_ste"``, once for every backward pass.

    Attributes
    ----------
    dense : bool
        Let the weight through as it is: the mask stays, but is not applied. False at first.

    Raises
    ------
    OptionError
        `gradient` is none of these, or `decay` is negative or not finite.

    Notes
    -----
    ``load_state_dict`` refuses a mask that is not transposable, and raises. As after any of its
    errors the model is then half loaded: all else that fits is copied, the dense weight under the
    old mask too. Load a good state before going on.
    """

    mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        pattern: Pattern,
        degree: Degree,
        layout: Layout,
        *,
        gradient: Gradient = "straight_through",
        decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.pattern, self.degree, self.layout = pattern, degree, layout
        self.gradient, self.decay = check_gradient(gradient, decay)
        self.dense = False
        # An inference tensor could not be saved for a backward pass, nor written to.
        with torch.inference_mode(False):
            self.register_buffer("mask", mask.clone() if mask.is_inference() else mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight; the weight itself if `dense`."""
        if self.dense:
            return weight
        mask, static = mask_for(weight, self.mask), self.gradient == "static"
        if self.gradient == "straight_through" and _can_be_written_to(weight):
            return _straight_through(weight, mask)
        masked: Tensor = _Keep.apply(weight, mask, static, self.decay)  # type: ignore[no-untyped-call]
        return masked

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the dense weight that an assignment to the masked one stands for: itself."""
        return weight

    def extra_repr(self) -> str:
        """Return the pattern and the gradient, for ``print(model)``."""
        decay = f", decay={self.decay:g}" if self.gradient == "sr_ste" else ""
        return f"{self.pattern}, {self.degree}, {self.gradient}{decay}"

    @torch.no_grad()
    def check(self, mask: Tensor | None = None) -> None:
        """Check that a mask, by default the own one, is transposable.

        Raises
        ------
        MaskError, ShapeError
            The message names the first violated row or column of a block.
        """
        mask = self.mask if mask is None else mask
        if mask.shape != self.mask.shape:
            raise ShapeError(
                f"the mask must have the shape of the weight, {tuple(self.mask.shape)}, "
                f"got {tuple(mask.shape)}"
            )
        matrices, axes = self.layout.as_matrices(whole(mask)).cpu().numpy(), self.layout.axes
        if self.layout.groups == 1:  # messages tell positions in the weight's own shape
            matrices, axes = matrices[0], (0, 1)
        check_mask(matrices, self.pattern.n, self.pattern.m, degree=self.degree, axes=axes)

    def _apply(self, *args: Any, **options: Any) -> Masked:
        super()._apply(*args, **options)  # type: ignore[no-untyped-call]
        self.mask = self.mask.bool()  # Module.type converts all buffers
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **options: Any
    ) -> None:
        # local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        errors = rest[-1] if rest else options["error_msgs"]
        mask = state_dict.get(f"{prefix}mask")
        if isinstance(mask, Tensor) and not mask.is_meta:
            try:
                if mask.dtype != torch.bool:
                    raise MaskError(f"a mask must be boolean, got {mask.dtype}")
                self.check(mask)
            except (MaskError, ShapeError) as error:
                # torch.distributed.checkpoint reads into the tensors of the state_dict themselves.
                there = mask.data_ptr() == self.mask.data_ptr()
                old = "but was read in place of the old one" if there else "the old mask stays"
                errors.append(
                    f"{prefix}mask is refused, {old}: {error}. The model is half loaded: load a "
                    f"good state before going on"
                )
                return
        super()._load_from_state_dict(state_dict, prefix, *rest, **options)


def _straight_through(weight: Tensor, mask: Tensor) -> Tensor:
    """Return what `_Keep` does: a copy, whose gradient is the weight's, changed behind autograd's back.

    Unlike `_Keep` it needs no Python in the backward pass.
    """
    masked = weight.clone()
    with torch.no_grad():
        masked.view(_BITS[weight.itemsize]).bitwise_and_(-mask.view(torch.int8))
    return masked


def _can_be_written_to(weight: Tensor) -> bool:
    """Whether a copy is an ordinary tensor of the CPU, which nothing traces or transforms."""
    return (
        weight.device.type == "cpu"
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not is_transformed()
    )


class _Keep(torch.autograd.Function):
    """Masked forwards; backwards the gradient, whole or masked, and decay of what is pruned."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, mask: Tensor, static: bool, decay: float) -> Tensor:  # noqa: ARG004
        return keep(weight, mask)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool, float], output: Tensor) -> None:  # noqa: ARG004
        weight, mask, ctx.static, ctx.decay = inputs
        if ctx.static or ctx.decay:
            ctx.save_for_backward(weight if ctx.decay else None, mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.static or ctx.decay:
            weight, mask = ctx.saved_tensors
            gradient = passed_on(gradient, weight, mask, ctx.static, ctx.decay)
        return gradient, None, None, None


# Autograd asks for it at every call, and would make it anew each time.
_Keep.forward.__signature__ = inspect.signature(_Keep.forward)  # type: ignore[attr-defined]


def passed_on(
    gradient: Tensor, weight: Tensor | None, mask: Tensor | None, static: bool, decay: float
) -> Tensor:
    """Return what reaches the dense weight of the masked weight's gradient.

    The mask is needed if it is static or there is decay, the dense weight if there is decay.
    """
    if static and mask is not None:
        return keep(gradient, mask)
    if decay and weight is not None and mask is not None:
        return gradient + decay * keep(weight, ~mask)
    return gradient


#: Integers of the size of a floating-point number.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def keep(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values where a mask keeps them, 0 elsewhere, whatever is there."""
    differentiable = values.requires_grad and torch.is_grad_enabled()
    if differentiable or values.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(mask, values, 0)
    # On the CPU torch.where branches at every entry: with a random mask the bits are far faster.
    # Compiled it does not, and in float32 the bits are slower.
    bits = values.view(_BITS[values.itemsize]) & -mask.view(torch.int8)
    return bits.view(values.dtype)


def check_gradient(gradient: str, decay: float) -> tuple[Gradient, float]:
    """Return them, checked."""
    if not isinstance(gradient, str) or gradient not in get_args(Gradient):
        choices = ", ".join(map(repr, get_args(Gradient)))
        raise OptionError(f"gradient must be one of {choices}, got {gradient!r}")
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not decay >= 0:
        raise OptionError(f"decay must be a number of 0 or more, got {decay!r}")
    if not math.isfinite(decay):
        raise OptionError(f"decay must be finite, got {decay!r}")
    if decay and gradient != "sr_ste":
        raise OptionError(f'decay belongs to gradient="sr_ste", not to {gradient!r}')
    return gradient, float(decay)  # type: ignore[return-value]  # is one of them
