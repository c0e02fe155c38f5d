"""SparseTraining: new masks, masked decay and the switch to dense, at an optimizer's own steps."""

from __future__ import annotations

import math
import reprlib
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..bands import check_workers
from ..errors import NonFiniteError, OptionError
from ..methods import BlockSolver, find_method
from ..pattern import as_integer
from .distributed import own_part, whole
from .layers import MaskedLayer, find_masked, masked_layers, no_masks
from .masking import keep
from .models import search

__all__ = ["MaskUpdate", "SparseTraining"]

# Optimizers that have one; an optimizer itself has no public place to note it.
_ATTACHED: weakref.WeakSet[Optimizer] = weakref.WeakSet()


@dataclass(frozen=True)
class MaskUpdate:
    """One update of all masks.

    Parameters
    ----------
    step : int
        Optimizer steps counted so far.
    flip_rate : float
        Entries of all masks that changed, of all their entries: 0 to 1.
    layers : dict of str to float
        The same for every layer.
    seconds : float
        Time that finding and writing the masks took.
    """

    step: int
    flip_rate: float
    layers: dict[str, float]
    seconds: float


class SparseTraining:
    r"""Train a model that `masksolve.torch.sparsify` masked: one line before the loop.

    It hooks itself to the optimizer, whose steps it counts: whatever accumulates, scales or clips
    gradients before a step is done by then. Every `update_every` steps the masks x are found anew
    from the dense weights w. Before each step the masked decay (Hu et al. 2024) is added to
    the gradient,

    .. math:: g \leftarrow g + \lambda\, (1 - x) \circ w,

    so that the optimizer normalises it as it does the gradient. After step `dense_after` all
    layers are dense, with neither masks nor masked decay.

    Parameters
    ----------
    model : Module
        The model, or a part of it: all its masked layers are trained.
    optimizer : Optimizer
        Holds their dense weights.
    update_every : int
        Steps from one update of the masks to the next.
    decay : float
        The factor :math:`\lambda`; `masksolve.torch.tune_decay` finds one.
    dense_after : int or float, optional
        The last step with masks; a float is a fraction of `total_steps`: Hu et al. take 5/6.
    total_steps : int, optional
        Steps of the whole training, for a fraction.
    method, backend, workers
        As in `masksolve.torch.find_mask`, for the updates; `sparsify` may have used others.
    on_update : callable, optional
        Is given the `MaskUpdate` after each.

    Attributes
    ----------
    step : int
        Optimizer steps counted so far. What a ``GradScaler`` skips is no step.
    frozen : bool
        Whether updates are stopped.
    last_update : MaskUpdate or None

    Raises
    ------
    OptionError
        The model has no masks, the optimizer does not hold one of the dense weights or has a
        `SparseTraining` already, or an option makes no sense.
    MethodError
        `method` does not do a layer's pattern.
    NonFiniteError
        At a step: a weight has NaN or infinities. The message names layer and step; all masks
        stay as they were.

    Notes
    -----
    All masks are found before the first is written, into its buffer. They are found without a
    warm start, which is no faster while weights move by a per cent, and so are a function of the
    weights alone: a state dict of model, optimizer and this has all that an exact resume needs.

    The flip rate is the share of all entries whose mask changed since the update before. A layer
    whose ``masked.dense`` is True has no decay, but its mask is updated: a dense reference.

    That a layer is switched to dense is in the state dict of this, not in the model's: to save a model
    that ended dense, take the masks off (`desparsify` with ``bake=False``).

    A step with a closure has the decay added after each call of the closure.

    Examples
    --------
    >>> import masksolve.torch as mt
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    >>> report = mt.sparsify(model, n=2, m=4)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    >>> training = SparseTraining(model, optimizer, update_every=5, decay=1e-4, dense_after=12)
    >>> for _ in range(12):
    ...     optimizer.zero_grad()
    ...     x = torch.randn(8, 16)
    ...     (model(x) - x).square().mean().backward()
    ...     optimizer.step()
    >>> training.last_update.step, sorted(training.last_update.layers)
    (10, ['0', '2'])
    >>> 0 < training.last_update.flip_rate < 0.2
    True
    >>> int(torch.count_nonzero(model[0].weight))  # dense by now
    512
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        update_every: int = 40,
        decay: float = 0.0,
        dense_after: int | float | None = None,
        total_steps: int | None = None,
        method: str | BlockSolver = "auto",
        backend: str | None = None,
        workers: int | None = None,
        on_update: Callable[[MaskUpdate], object] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise OptionError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise OptionError(
                f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
            )
        if on_update is not None and not callable(on_update):
            raise OptionError(f"on_update must be callable or None, got {on_update!r}")
        check_workers(workers)
        self._layers = list(masked_layers(_unwrapped(model)))
        self.update_every = check_steps("update_every", update_every)
        self.decay = check_decay(decay)
        self.dense_after = _check_dense_after(dense_after, total_steps)
        self.step, self.frozen = 0, False
        for layer in self._layers:
            find_method(method, backend, layer.masked.pattern, layer.masked.degree)
        _groups_of(self._layers, optimizer, self.decay)
        if all(layer.masked.dense for layer in self._layers):
            raise OptionError(
                "all masked layers are switched to dense, which they stay: set masked.dense = False "
                "in each of masked_layers(model) to train with masks again"
            )
        if optimizer in _ATTACHED:
            raise OptionError(
                "the optimizer has a SparseTraining already: detach() that one, or make a new "
                "optimizer"
            )
        self.last_update: MaskUpdate | None = None
        self._search = {
            "method": method, "backend": backend, "workers": workers, "remainder": "pad"
        }  # fmt: skip
        self._on_update = on_update
        self._optimizer = optimizer
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        _ATTACHED.add(optimizer)

    def freeze(self) -> None:
        """Stop the updates: masks stay as they are. Steps are counted, and pruned weights decay."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with the updates."""
        self.frozen = False

    def detach(self) -> None:
        """Let go of the optimizer. Masks stay, and layers masked or dense as they are."""
        if self._hooks:
            _ATTACHED.discard(self._optimizer)
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def __enter__(self) -> SparseTraining:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __getstate__(self) -> None:
        raise OptionError(
            "a SparseTraining cannot be copied or pickled, it would be attached to no optimizer: "
            "make another one, and load this one's state_dict()"
        )

    @torch.no_grad()
    def update(self) -> MaskUpdate:
        """Find all masks from the dense weights of now, then write them; returns what changed.

        Raises
        ------
        NonFiniteError
            A weight has NaN or infinities; all masks stay as they were.
        """
        start = time.perf_counter()
        workers = check_workers(self._search["workers"])  # once, it reads files
        masks = [self._find(layer, workers) for layer in self._layers]
        flips = [
            int(torch.count_nonzero(mask != layer.masked.mask))
            for layer, mask in zip(self._layers, masks, strict=True)
        ]
        for layer, mask in zip(self._layers, masks, strict=True):
            layer.masked.mask.copy_(mask)
        sizes = [mask.numel() for mask in masks]
        names = [layer.name for layer in self._layers]
        self.last_update = MaskUpdate(
            self.step,
            sum(flips) / max(sum(sizes), 1),
            {name: f / max(s, 1) for name, f, s in zip(names, flips, sizes, strict=True)},
            time.perf_counter() - start,
        )
        if self._on_update is not None:
            self._on_update(self.last_update)
        return self.last_update

    def _find(self, layer: MaskedLayer, workers: int) -> Tensor:
        masked = layer.masked
        options = {**self._search, "degree": masked.degree, "workers": workers}
        try:
            mask, _ = search(
                whole(layer.weight), masked.layout, masked.pattern, True, f"layer {layer.name!r}",
                options,
            )  # fmt: skip
        except NonFiniteError as error:
            raise NonFiniteError(
                f"step {self.step}, {error}; all masks stay as they were"
            ) from error
        return mask

    def state_dict(self) -> dict[str, Any]:
        """Return step, switches and options, in plain types that ``torch.load`` takes.

        Masks are buffers of the model, whose own ``state_dict`` has them; which layers are switched
        to dense is here alone.
        """
        method = self._search["method"]
        options = {
            "layers": [layer.name for layer in self._layers],
            "update_every": self.update_every,
            "decay": self.decay,
            "dense_after": self.dense_after,
            "method": method if isinstance(method, str) else getattr(method, "__name__", ""),
            "backend": self._search["backend"],
        }
        dense = [layer.name for layer in self._layers if layer.masked.dense]
        return {"step": self.step, "frozen": self.frozen, "dense": dense, "options": options}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; model and optimizer load their own.

        Raises
        ------
        OptionError
            It is the state of something else, of another model or of other options; nothing of
            it is taken then.
        """
        own = self.state_dict()
        if not isinstance(state, dict) or state.keys() != own.keys():
            got = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise OptionError(
                f"this is no state of a SparseTraining, which has {sorted(own)}: got {got}"
            )
        step, options, dense = as_integer(state["step"]), state["options"], state["dense"]
        names = own["options"]["layers"]
        if (
            step is None
            or step < 0
            or not isinstance(state["frozen"], bool)
            or not isinstance(options, dict)
            or not isinstance(dense, list)
        ):
            raise OptionError(f"this is no state of a SparseTraining: got {reprlib.repr(state)}")
        differ = [
            f"{name} is {reprlib.repr(value)} here, {reprlib.repr(options.get(name))} there"
            for name, value in own["options"].items()
            if options.get(name) != value
        ]
        if differ:
            raise OptionError(
                f"the state is of a SparseTraining with other options: {'; '.join(differ)}. Make "
                f'this one with those, or set state["options"] to go on with new ones'
            )
        unknown = [name for name in dense if name not in names]
        if unknown:
            raise OptionError(
                f"the state has layers that are switched to dense, {_listed(unknown)}, which the "
                f"model does not have"
            )
        self.step, self.frozen = step, state["frozen"]
        for layer in self._layers:
            layer.masked.dense = layer.name in dense

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        groups = _groups_of(self._layers, optimizer, self.decay)
        if not self.decay:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._add_decay(groups)
            return None

        def with_decay() -> Any:
            loss = closure()
            self._add_decay(groups)
            return loss

        if len(args) > 1:
            return (args[0], with_decay, *args[2:]), kwargs
        return args, {**kwargs, "closure": with_decay}

    @torch.no_grad()
    def _add_decay(self, groups: list[dict[str, Any]]) -> None:
        # A fused optimizer divides gradients by the scale of a GradScaler within its step.
        scale = getattr(self._optimizer, "grad_scale", None)
        for layer, group in zip(self._layers, groups, strict=True):
            gradient = layer.weight.grad
            if gradient is None or layer.masked.dense:
                continue
            weight = layer.weight
            pruned = keep(own_part(weight, weight), own_part(~layer.masked.mask, weight))
            if scale is not None:
                pruned *= scale.to(pruned.device)
            # An optimizer that climbs takes the gradient with the other sign.
            sign = -1 if group.get("maximize") else 1
            own_part(gradient, weight).add_(pruned, alpha=sign * self.decay)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        # A fused optimizer leaves weights alone if a GradScaler found infinities; others are not
        # called then.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and bool(skipped):
            return
        self.step += 1
        if self.dense_after is not None and self.step >= self.dense_after:
            for layer in self._layers:
                layer.masked.dense = True
        elif self.step % self.update_every == 0 and not self.frozen:
            self.update()


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model in what wraps it, so that its layers have the same names with and without."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:  # of torch.compile
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _groups_of(
    layers: list[MaskedLayer], optimizer: Optimizer, decay: float
) -> list[dict[str, Any]]:
    """Return each layer's group of the optimizer; masks and dense weights must be those they were."""
    if not layers:
        raise no_masks()
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    missing = [layer.name for layer in layers if id(layer.weight) not in groups]
    if missing:
        raise OptionError(
            f"the optimizer does not hold the dense weights of {_listed(missing)}; make it of the "
            f"model's parameters, or give the part of the model whose parameters it has; layers "
            f"that are not to be trained are left out by exclude of sparsify"
        )
    for layer in layers:
        masked = find_masked(layer.module)
        weight = masked and layer.module.parametrizations.weight.original  # type: ignore[union-attr]
        if masked is not layer.masked or weight is not layer.weight:
            raise OptionError(
                f"layer {layer.name!r} no longer has the mask or the dense weight that it had; "
                f"detach() before such changes, and make a new SparseTraining"
            )
        if decay and layer.masked.decay:
            raise OptionError(
                f"layer {layer.name!r} has a decay by its gradient, 'sr_ste', already; choose one"
            )
    return [groups[id(layer.weight)] for layer in layers]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def check_steps(name: str, value: Any) -> int:
    """Return a number of steps, checked."""
    found = as_integer(value)
    if found is None or found < 1:
        raise OptionError(f"{name} must be an integer of 1 or more, got {value!r}")
    return found


def check_decay(decay: Any) -> float:
    """Return a factor of decay, checked."""
    found = float(decay) if isinstance(decay, Real) and not isinstance(decay, bool) else math.nan
    if not 0 <= found <= torch.finfo(torch.float32).max:
        raise OptionError(f"decay must be a finite number of 0 or more, got {decay!r}")
    return found


def _check_dense_after(dense_after: Any, total_steps: Any) -> int | None:
    """Return the last step with masks."""
    steps = None if total_steps is None else check_steps("total_steps", total_steps)
    if dense_after is None:
        return None
    if isinstance(dense_after, Integral) or not isinstance(dense_after, Real):
        last = check_steps("dense_after", dense_after)
    elif not 0 < float(dense_after) <= 1:
        raise OptionError(
            f"dense_after={dense_after!r} is no fraction of the steps, which is more than 0 and at "
            f"most 1; give the number of a step as an integer"
        )
    elif steps is None:
        raise OptionError(f"dense_after={dense_after!r} is a fraction of total_steps: give them")
    else:
        last = max(1, round(float(dense_after) * steps))
    if steps is not None and last > steps:
        raise OptionError(f"dense_after={last} comes after the last of total_steps={steps}")
    return last
