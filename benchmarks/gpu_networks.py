"""Networks in bfloat16 whose passes and training steps are timed: dense, and 2:4 by sparse products."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import masksolve.torch as mt
from masksolve.torch.semi_structured import Execution

from .transformer import ByteTransformer

__all__ = ["DECAY", "Network", "Task", "feed_forward", "transformer"]

#: Factor of the masked decay in a step.
DECAY = 1e-5
#: Relative error that bfloat16 may always have, and at most.
_FLOOR, _CEILING = 0.03, 0.2

#: What a pass leaves behind: the output and gradients, by name.
Left = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What a network is to be trained on.

    Parameters
    ----------
    build : callable
    x : Tensor
        The input; if it is floating point, its gradient is computed as well.
    root : callable
        From the output, what the backward pass starts from: a tensor, and its gradient if it is no
        scalar.
    """

    build: Callable[[], nn.Module]
    x: Tensor
    root: Callable[[Tensor], tuple[Tensor, Tensor | None]]


def feed_forward(size: int, tokens: int, device: str, generator: torch.Generator) -> Task:
    """Return the task of a feed-forward network with GEGLU inside a model: its input has a gradient."""
    x, upstream = torch.randn(
        2, tokens, size, dtype=torch.bfloat16, device=device, generator=generator
    )
    return Task(
        lambda: nn.Sequential(nn.Linear(size, 8 * size), mt.GEGLU(), nn.Linear(4 * size, size)),
        x,
        lambda output: (output, upstream.to(output.dtype)),
    )


def transformer(size: int, batch: int, device: str, generator: torch.Generator) -> Task:
    """Return the task of a transformer of two blocks over 128 random bytes; all but its head masked."""
    text = torch.randint(256, (batch, 129), device=device, generator=generator)
    return Task(
        lambda: ByteTransformer(size, depth=2, heads=max(1, size // 64), context=128),
        text[:, :-1],
        lambda output: (F.cross_entropy(output.flatten(0, 1), text[:, 1:].flatten()), None),
    )


class Network:
    """A network with all that its training takes.

    Parameters
    ----------
    task : Task
    execution : {"sparse", "masked"} or None
        How its 2:4 layers are asked to compute; None has no masks.
    seed : int
        Of the weights.
    """

    def __init__(self, task: Task, execution: Execution | None, seed: int) -> None:
        self.task = task
        self.x = task.x.clone().requires_grad_(task.x.is_floating_point())
        torch.manual_seed(seed)
        with torch.device(task.x.device):
            self.model = task.build().to(torch.bfloat16)
        if execution:
            mt.sparsify(
                self.model, 2, 4, exclude=lambda name, _: name == "head", execution=execution
            )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self._root: tuple[Tensor, Tensor | None] | None = None
        self.training = None
        if execution:
            self.training = mt.SparseTraining(
                self.model, self.optimizer, update_every=10**9, decay=DECAY
            )

    @cached_property
    def report(self) -> list[mt.LayerExecution]:
        """How its masked layers compute, by the function that they ask themselves."""
        if not self.training:
            return []
        tokens = self.x.numel() // (self.x.shape[-1] if self.x.is_floating_point() else 1)
        return mt.execution_report(self.model, tokens=tokens, dtype=torch.bfloat16)

    @property
    def kind(self) -> str:
        """What it really is: ``"sparse"`` only if all masked layers run by sparse products."""
        kinds = {layer.execution for layer in self.report} or {"dense"}
        return kinds.pop() if len(kinds) == 1 else "partly sparse"

    @cached_property
    def _sparse(self) -> list[tuple[mt.SparseLinear, mt.MaskedLayer, str]]:
        """Layers that run sparse, each with the kernels it takes."""
        return [
            (cast("mt.SparseLinear", layer.module), layer, how.reason.removeprefix("by "))
            for layer, how in zip(mt.masked_layers(self.model), self.report, strict=True)
            if how.execution == "sparse"
        ]

    # ---- what is timed

    def pack(self) -> None:
        """Mask and pack the weights of all sparse layers anew, as their first call after a step does."""
        for module, layer, kernels in self._sparse:
            module.repack()
            module._packed.get(layer.weight, layer.masked.mask, torch.bfloat16, kernels)

    def forward(self) -> Tensor:
        """Run the forward pass alone."""
        with torch.no_grad():
            output: Tensor = self.model(self.x)
        return output

    def both(self) -> None:
        """Run a forward and a backward pass."""
        self._run_forward()
        self.backward()

    def backward(self) -> None:
        """Run the backward pass that `before_backward` made ready."""
        root, self._root = self._root, None
        assert root is not None
        torch.autograd.backward(*root)

    def step(self) -> None:
        """Take a step of training, whatever was packed before it."""
        for module, *_ in self._sparse:
            module.repack()
        self.clear()
        self.both()
        self.optimizer.step()

    def step_with_new_masks(self) -> None:
        """Take a step that ends as every 40th does: all masks are found anew."""
        self.step()
        assert self.training
        self.training.update()

    # ---- what is not

    def before_both(self) -> None:
        """Leave neither packing nor old gradients to `both`."""
        self.pack()
        self.clear()

    def before_backward(self) -> None:
        """Leave nothing but the backward pass."""
        self.before_both()
        self._run_forward()

    def clear(self) -> None:
        """Forget gradients, and a backward pass that was not taken."""
        self.optimizer.zero_grad()
        self.x.grad = self._root = None

    def _run_forward(self) -> None:
        output = self.model(self.x)
        self._output, self._root = output.detach(), self.task.root(output)

    # ---- checks

    def left(self) -> Left:
        """Return the output and the gradients that the last pass left."""
        return _left(self.model, self.x, self._output)

    def step_once_more(self) -> Left:
        """Take a step; return the output and the gradients that it went by."""
        self.step()
        return self.left()

    def check(self, run: Callable[[], Left], decay: float = 0.0) -> None:
        """Compare what a pass of the weights as they are gives with the same in float32.

        Of a step as well: what the optimizer makes of gradients is PyTorch's own code, and its first
        steps are as large as the learning rate whatever the gradients, so parameters after it would
        tell less than gradients do. The step before it has changed the weights, and what was packed
        from older ones gives other gradients.

        Parameters
        ----------
        run : callable
            Returns what is to be compared.
        decay : float
            Factor of the masked decay that has been added to the gradients.

        Raises
        ------
        AssertionError
            Something is off by more than twice what the masked weights give when dense products in
            bfloat16 multiply them, and by more than 3 %, or by more than 20 %.
        """
        exact, allowed = self._in_float32()
        if decay:
            for layer in mt.masked_layers(self.model):
                pruned = layer.weight.detach().masked_fill(layer.masked.mask, 0)
                exact[f"{layer.name}.weight"] += decay * pruned.float()
        for name, found in run().items():
            error = _distance(found, exact[name])
            if not error <= allowed[name]:
                raise AssertionError(
                    f"{name} is off by {error:.1%}, {allowed[name]:.1%} are allowed"
                )

    def _in_float32(self) -> tuple[Left, dict[str, float]]:
        """Output and gradients of the masked weights by dense products, and the errors allowed."""
        twin = copy.deepcopy(self.model)
        if self.training:
            mt.desparsify(twin)
        rounded = _run(twin, self.x, self.task)
        twin.zero_grad()
        exact = _run(twin.float(), self.x, self.task)
        allowed = {
            name: min(_CEILING, max(_FLOOR, 2 * _distance(rounded[name], value)))
            for name, value in exact.items()
        }
        return exact, allowed


def _run(model: nn.Module, x: Tensor, task: Task) -> Left:
    """Run a model of any dtype forward and backward."""
    x = x.detach()
    if x.is_floating_point():
        x = x.to(next(model.parameters()).dtype).requires_grad_()
    output = model(x)
    torch.autograd.backward(*task.root(output))
    return _left(model, x, output.detach())


def _left(model: nn.Module, x: Tensor, output: Tensor) -> Left:
    left = {
        name.replace("parametrizations.weight.original", "weight"): parameter.grad
        for name, parameter in model.named_parameters()
    }
    if x.is_floating_point():
        left["gradient of the input"] = x.grad
    return {"output": output, **cast("Left", left)}


def _distance(found: Tensor, exact: Tensor) -> float:
    """Return the relative error by the norm; NaN where something is not finite."""
    return float((found.float() - exact).norm() / exact.norm())
