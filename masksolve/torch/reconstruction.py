"""reconstruct: kept weights that give back, as far as they can, what the dense layer computed."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..bands import Progress, report_progress
from ..errors import NonFiniteError, OptionError, SolverError
from .layers import (
    MaskedLayer,
    called,
    check_alone,
    check_numbers,
    find_masked,
    some_masked,
)
from .least_squares import Method, Moments, Settings, solve_rows
from .unfolding import from_rows, groups_of, input_rows, output_rows, to_rows

__all__ = ["LayerReconstruction", "Order", "ReconstructionReport", "reconstruct"]

#: What layers are fed while they are reconstructed; see `reconstruct`.
Order = Literal["sequential", "parallel"]


@dataclass(frozen=True)
class LayerReconstruction:
    """What `reconstruct` did with a layer.

    Parameters
    ----------
    name : str
        Of the layer in the model; empty if the model itself is the layer.
    shape : tuple of int
        Of its weight.
    method : str
        What ran: ``"least_squares"``, ``"cg"`` or ``"adam"``.
    steps : int
        Of ``"cg"`` and ``"adam"``; 0 for ``"least_squares"``.
    error_before, error_after : float
        ``||Y - W' X||² / ||Y||²`` on the calibration data, Y without its bias, W' the masked
        dense weight and the reconstructed one; NaN if Y is 0. In sequential order both hold what
        the layers before have lost in X, also where no weight of this layer can make it good.
    validation_before, validation_after : float
        The same on the validation data; NaN without.
    seconds : float
        To gather what the layer is fed, and to solve; in parallel order only to solve.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    steps: int
    error_before: float
    error_after: float
    validation_before: float
    validation_after: float
    seconds: float


@dataclass(frozen=True)
class ReconstructionReport:
    """What `reconstruct` did; as text, a table.

    Parameters
    ----------
    layers : tuple of LayerReconstruction
        In the order in which the model calls them.
    order : {"sequential", "parallel"}
    seconds : float
    """

    layers: tuple[LayerReconstruction, ...]
    order: Order
    seconds: float

    def __str__(self) -> str:
        width = max([5, *(len(layer.name) for layer in self.layers)])
        validated = any(not math.isnan(layer.validation_after) for layer in self.layers)
        heads = ["before", "after", *(["val. before", "val. after"] if validated else [])]
        lines = [f"{'layer':{width}}  " + "  ".join(f"{head:>11}" for head in heads) + "  method"]
        for layer in self.layers:
            errors = [layer.error_before, layer.error_after]
            if validated:
                errors += [layer.validation_before, layer.validation_after]
            numbers = "  ".join(f"{error:11.4g}" for error in errors)
            steps = f", {layer.steps} steps" if layer.steps else ""
            lines.append(f"{layer.name:{width}}  {numbers}  {layer.method}{steps}")
        lines.append(f"{len(self.layers)} layers, {self.order}, {self.seconds:.2f} s")
        return "\n".join(lines)


def reconstruct(
    model: nn.Module,
    calibration: Any,
    *,
    method: Method = "auto",
    order: Order = "sequential",
    validation: Any = None,
    fit_bias: bool = True,
    ridge: float = 1e-2,
    steps: int = 1000,
    learning_rate: float = 1e-3,
    call: Callable[[nn.Module, Any], Any] | None = None,
    dtype: torch.dtype = torch.float64,
    progress: Progress = False,
) -> ReconstructionReport:
    r"""Refit the kept weights of every masked layer to what the dense layer computed.

    For a layer with dense weight W, mask x, inputs X (one a column) and targets Y,

    .. math:: \min_{W'} \; \|Y - (x \circ W') X\|^2 + \rho\, g\, \|x \circ (W' - W)\|^2

    where g is the mean of the diagonal of :math:`G = X X^T` and :math:`\rho` the `ridge`. Rows of
    W are independent: with S the kept columns of a row w and c its row of :math:`Y X^T`, its
    change z solves

    .. math:: (G_{SS} + \rho g I)\, z = (c - G (x \circ w))_S

    so batches only add to G and :math:`Y X^T`, and no activation is kept. A convolution's inputs
    are the patches that its outputs see, group by group.

    What makes a gain possible is correlation between the inputs: a kept input can then stand in
    for a pruned one. For white inputs, :math:`G \propto I`, the masked weight is already the best.

    Parameters
    ----------
    model : Module
        With masks by `masksolve.torch.sparsify`; a single layer will do. Its dense weights must
        be those that were trained: reconstruct once.
    calibration : iterable of batches, or a single Tensor or mapping
        Fed as ``model(batch)``, ``model(*batch)`` if it is a list or tuple, ``model(**batch)`` if
        it is a mapping. Gone through several times in sequential order; an iterator that can be
        gone through but once is first made a list.
    method : {"auto", "least_squares", "cg", "adam"}
        ``"least_squares"`` solves each row by Cholesky's factorisation, many rows of equally many
        kept weights at once. ``"cg"`` runs conjugate gradients on all rows at once, which costs
        less where rows keep more than about a thousand. ``"auto"`` takes the cheaper of the two;
        the report says which. ``"adam"`` is what the paper has. All three go to the same optimum.
    order : {"sequential", "parallel"}
        Sequential: X is what the layer is fed when the layers before it are reconstructed, and Y
        what the dense layer makes of the dense model's inputs, so that each layer also makes good
        what those before it have lost. It takes two passes over the data a layer. Parallel: X is
        what the dense model feeds the layer, and Y = W X: one pass in all, with the moments of
        all layers in memory.
    validation : as `calibration`, optional
        Held-out data: errors on it are reported, and nothing is fitted to it.
    fit_bias : bool
        Refit the bias too, where the layer has one. That of layers that share a weight stays.
    ridge : float
        How much a weight is held to its old value, relative to the mean square of the inputs. The
        fewer inputs, the larger. With 0, inputs that do not determine the weights are refused.
    steps, learning_rate
        Most steps of ``"cg"``; steps of ``"adam"`` and its first learning rate, which falls
        linearly to 0.
    call : callable (model, batch) -> anything, optional
        Feeds a batch otherwise.
    dtype : torch.float64 or torch.float32
        Of the moments and of the solution.
    progress : bool or callable
        As in `masksolve.find_mask`, counting layers.

    Returns
    -------
    ReconstructionReport
        Error before and after, method and time of every layer; ``print`` it for a table.

    Raises
    ------
    OptionError
        The model has no masks, a layer is switched to dense, has another parametrization beside
        its mask, no numbers (on the device ``"meta"``) or is never called, the calibration has no
        batch, or an option makes no sense.
    NonFiniteError
        What a layer is fed or returns, or its new weight in its own dtype, is not finite.
    SolverError
        The inputs do not determine the weights.

    Notes
    -----
    Whatever is raised, also by the model itself, the weights are as they were.

    Kept entries of the dense weight are overwritten, pruned ones and masks stay as they are. The
    model is run in evaluation mode without gradients; afterwards its modes, gradients, hooks and
    torch's random numbers are as before.

    ``"cg"`` and ``"adam"`` begin at the *mean absorption*: pruning changes the mean output by
    :math:`\delta_i = \sum_{j \notin S_i} w_{ij} \mathbb{E}[x_j]`, which the bias takes,
    :math:`b_i + \delta_i`, or, where no bias is fitted, the kept weights,

    .. math:: w_{ij} + t_i \mathbb{E}[x_j], \; j \in S_i

    with the :math:`t_i` that lessens the error most; it is
    :math:`\delta_i / \sum_{j \in S_i} \mathbb{E}[x_j]^2` where inputs do not vary, and the loss is
    then made up for entirely. (In sequential order :math:`\delta_i` also holds what the layers
    before have changed in the mean.)

    References
    ----------
    Hubara et al. 2021, arXiv 2102.08124 (AdaPrune). That paper descends by Adam; that the loss is
    quadratic in each row, and solved as such, is this function's own.

    Examples
    --------
    >>> import masksolve.torch as mt
    >>> generator = torch.Generator().manual_seed(0)
    >>> layer = nn.Linear(16, 16)
    >>> masks = mt.sparsify(layer, n=2, m=4)
    >>> few = torch.randn(512, 4, generator=generator)      # 16 inputs that hang together:
    >>> X = few @ torch.randn(4, 16, generator=generator)   # all are mixtures of four
    >>> report = reconstruct(layer, X, ridge=1e-6)
    >>> report.layers[0].error_after < 1e-3 * report.layers[0].error_before
    True
    """
    settings = _check_options(method, order, ridge, steps, learning_rate, dtype)
    session = _Session(model, call or _call, method, settings, fit_bias, dtype)
    batches = _as_batches("calibration", calibration)
    held_out = None if validation is None else _as_batches("validation", validation)
    start = time.perf_counter()
    with _undisturbed(model):
        work = session.sequential if order == "sequential" else session.parallel
        with report_progress(progress, len(session.layers), "reconstruct", unit="layer") as told:
            layers = []
            for layer in work(batches, held_out):
                layers.append(layer)
                told(1)
        session.write()
    return ReconstructionReport(tuple(layers), order, time.perf_counter() - start)


class _Enough(BaseException):
    """Ends a forward pass when the layer in question has been called: the rest is of no use."""


class _Fed(nn.Module):
    """A model and how it is fed, as one module, so that `functional_call` can change its weights."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        self.model, self.feed = model, call

    def forward(self, batch: Any) -> None:
        self.feed(self.model, batch)


class _Layer:
    """A masked weight as rows, with the modules that use it; the last column is the bias."""

    def __init__(self, model: nn.Module, masked: MaskedLayer, fit_bias: bool, dtype: Any) -> None:
        self.name, self.module, self.masked, self.weight = masked
        self.what = called(self.name)
        check_alone(self.name, self.module)
        check_numbers(self.what, self.weight)
        if self.masked.dense:
            raise OptionError(
                f"{self.what} is switched to dense (masked.dense is True), so layers after it would "
                f"be fitted to what it computes without its mask; set masked.dense to False before"
            )
        self.users = [m for m in model.modules() if find_masked(m) is self.masked]
        bias = self.module._parameters.get("bias") if fit_bias and len(self.users) == 1 else None
        sharing = sum(bias is other for m in model.modules() for other in m._parameters.values())
        self.bias, self.dtype = bias if sharing == 1 else None, dtype
        prefix = f"model.{self.name}." if self.name else "model."
        self.weight_key = f"{prefix}parametrizations.weight.original"
        self.mask_key = f"{prefix}parametrizations.weight.0.mask"
        self.bias_key = f"{prefix}bias"
        if not self.weight.isfinite().all():
            raise NonFiniteError(f"the weight of {self.what} has NaN or infinities")

    def in_own_dtype(self) -> torch.autocast:
        """Let products of moments have their dtype, also where the model runs under autocast."""
        return torch.autocast(self.weight.device.type, enabled=False)

    def rows(self) -> Tensor:
        """Return the dense weight; its column of the bias is the bias's change, 0."""
        rows = to_rows(self.module, self.weight.detach()).to(self.dtype)
        return nn.functional.pad(rows, (0, 1))

    def mask(self) -> Tensor:
        """Return what may change."""
        mask = to_rows(self.module, self.masked.mask)
        return nn.functional.pad(mask, (0, 1), value=self.bias is not None)

    def moments(self) -> Moments:
        groups, outputs, inputs = to_rows(self.module, self.masked.mask).shape
        return Moments(groups, inputs, outputs, self.dtype, self.weight.device)

    def targets(self, module: nn.Module, output: Tensor) -> Tensor:
        """Return a call's output without its bias, as rows of its own memory."""
        y = output_rows(module, output).to(self.dtype, copy=True)
        if isinstance(bias := module.bias, Tensor):
            y -= bias.reshape(groups_of(module), -1)
        return y

    def rounded(self, rows: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return weight and bias as the layer will have them, and the rows that they are."""
        weight = from_rows(self.module, rows[..., :-1], self.weight.shape).to(self.weight.dtype)
        exact = to_rows(self.module, weight).to(rows.dtype)
        weight = torch.where(self.masked.mask, weight, self.weight.detach())
        bias, shift = None, torch.zeros_like(rows[..., -1])
        if self.bias is not None:
            old = self.bias.detach().to(rows.dtype)
            bias = (old + rows[..., -1].flatten()).to(self.bias.dtype)
            shift = (bias.to(rows.dtype) - old).view_as(shift)
        if not (weight.isfinite().all() and shift.isfinite().all()):
            raise NonFiniteError(
                f"{self.what}: the reconstructed weights are not finite in "
                f"{self.weight.dtype}; try a larger ridge"
            )
        return weight, bias, torch.cat([exact, shift.unsqueeze(-1)], -1)


class _Session:
    """One call of `reconstruct`: what was found is in `found` until all is done."""

    def __init__(
        self,
        model: nn.Module,
        call: Callable[[nn.Module, Any], Any],
        method: Method,
        settings: Settings,
        fit_bias: bool,
        dtype: torch.dtype,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise OptionError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not callable(call):
            raise OptionError(f"call must take (model, batch), got {call!r}")
        self.layers = [_Layer(model, each, fit_bias, dtype) for each in some_masked(model)]
        self.fed, self.method, self.settings = _Fed(model, call), method, settings
        self.dense = {
            layer.mask_key: layer.masked.mask.new_ones(()).expand_as(layer.masked.mask)
            for layer in self.layers
        }
        self.found: dict[str, Tensor] = {}

    def sequential(self, batches: Any, held_out: Any) -> Iterator[LayerReconstruction]:
        """Reconstruct layers in the order of their calls, each fed by those before it."""
        for layer, calls in self._survey(batches):
            start = time.perf_counter()
            moments = [self._both_passes("calibration", batches, layer, calls)]
            if held_out is not None:
                moments.append(self._both_passes("validation", held_out, layer, None))
            with layer.in_own_dtype():
                done = self._solve(layer, *moments)
            yield replace(done, seconds=time.perf_counter() - start)

    def parallel(self, batches: Any, held_out: Any) -> Iterator[LayerReconstruction]:
        """Reconstruct every layer as the dense model feeds it."""
        fitted = self._dense_pass("calibration", batches)
        held = None if held_out is None else self._dense_pass("validation", held_out)
        for layer in list(fitted):
            # Taken out, so that the moments of a layer that is done make room.
            moments = [each.pop(layer) for each in (fitted, held) if each is not None]
            with layer.in_own_dtype():
                for each in moments:
                    each.aim_at(layer.rows())
                done = self._solve(layer, *moments)
            yield done

    def write(self) -> None:
        """Write what was found into the model."""
        for layer in self.layers:
            layer.weight.copy_(self.found[layer.weight_key])
            if layer.bias is not None:
                layer.bias.copy_(self.found[layer.bias_key])

    def _solve(
        self, layer: _Layer, fitted: Moments, held: Moments | None = None
    ) -> LayerReconstruction:
        start, rows, mask = time.perf_counter(), layer.rows(), layer.mask()
        try:
            solved = solve_rows(fitted, rows, mask, self.method, self.settings)
        except SolverError as error:
            raise SolverError(f"{layer.what}: {error}") from error
        if solved.residual:
            warnings.warn(
                f"{layer.what}: conjugate gradients left {solved.residual:.1e} of the "
                f"residual after {solved.steps} steps; allow more steps or a larger ridge",
                stacklevel=4,
            )
        weight, bias, after = layer.rounded(solved.rows)
        self.found[layer.weight_key] = weight
        if bias is not None:
            self.found[layer.bias_key] = bias
        before = rows * mask
        return LayerReconstruction(
            layer.name,
            tuple(layer.weight.shape),
            solved.method,
            solved.steps,
            fitted.error(before),
            fitted.error(after),
            math.nan if held is None else held.error(before),
            math.nan if held is None else held.error(after),
            time.perf_counter() - start,
        )

    def _survey(self, batches: Any) -> list[tuple[_Layer, int | None]]:
        """Return the layers as the model calls them, and how often a batch, if always as often."""
        calls: dict[_Layer, list[int]] = {}
        for number, batch in _numbered("calibration", batches):
            counts: Counter[_Layer] = Counter()

            def count(layer: _Layer, *_: Any, counts: Counter[_Layer] = counts) -> None:
                counts[layer] += 1

            self._run(batch, self.dense, dict.fromkeys(self.layers, count))
            for layer in counts:
                calls.setdefault(layer, [0] * number)
            for layer, each in calls.items():
                each.append(counts[layer])
        _check_reached("calibration", self.layers, calls)
        return [(k, each[0] if len(set(each)) == 1 else None) for k, each in calls.items()]

    def _dense_pass(self, what: str, batches: Any) -> dict[_Layer, Moments]:
        moments: dict[_Layer, Moments] = {}
        for number, batch in _numbered(what, batches):

            def add(
                layer: _Layer, module: nn.Module, x: Tensor, y: Tensor, where: Any = (what, number)
            ) -> None:
                _check_finite(x, "is fed", layer, *where)
                into = moments.setdefault(layer, layer.moments())
                for rows in input_rows(module, x, y):
                    into.add(rows)

            self._run(batch, self.dense, dict.fromkeys(self.layers, add))
        _check_reached(what, self.layers, [k for k, each in moments.items() if each.count])
        return moments

    def _both_passes(self, what: str, batches: Any, layer: _Layer, calls: int | None) -> Moments:
        """Gather inputs of the model as reconstructed so far, with targets of the dense model."""
        moments = layer.moments()
        for number, batch in _numbered(what, batches):
            targets: list[Tensor] = []

            def aim(
                _: _Layer,
                module: nn.Module,
                x: Tensor,
                y: Tensor,
                targets: list[Tensor] = targets,
                where: Any = (what, number),
            ) -> None:
                _check_finite(x, "is fed", layer, *where)
                _check_finite(y, "returns", layer, *where)
                targets.append(layer.targets(module, y))

            def add(
                _: _Layer,
                module: nn.Module,
                x: Tensor,
                y: Tensor,
                targets: list[Tensor] = targets,
                where: Any = (what, number),
            ) -> None:
                _check_finite(x, "is fed", layer, *where)
                _check_calls(bool(targets), layer, *where)
                target, done = targets.pop(0), 0
                for rows in input_rows(module, x, y):
                    moments.add(rows, target[done : done + len(rows)])
                    done += len(rows)

            self._run(batch, self.dense, {layer: aim}, calls)
            self._run(batch, self.found, {layer: add}, calls)
            _check_calls(not targets, layer, what, number)
        _check_reached(what, [layer], [layer] if moments.count else [])
        return moments

    def _run(
        self,
        batch: Any,
        changes: dict[str, Tensor],
        hear: dict[_Layer, Callable[..., None]],
        calls: int | None = None,
    ) -> None:
        """Feed a batch to the model with changed weights; stop after so many calls."""
        left = math.inf if calls is None else calls

        def listen(layer: _Layer, told: Callable[..., None]) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
                nonlocal left
                told(layer, module, args[0] if args else kwargs["input"], output)
                left -= 1
                if left <= 0:
                    raise _Enough

            return hook

        with ExitStack() as hooks:
            for layer, told in hear.items():
                for user in layer.users:
                    hook = listen(layer, told)
                    # First of all hooks: another may change what it is shown.
                    handle = user.register_forward_hook(hook, prepend=True, with_kwargs=True)
                    hooks.callback(handle.remove)
            with suppress(_Enough):
                functional_call(self.fed, changes, (batch,))


def _check_options(
    method: Any, order: Any, ridge: Any, steps: Any, learning_rate: Any, dtype: Any
) -> Settings:
    for name, value, allowed in (("method", method, Method), ("order", order, Order)):
        if not isinstance(value, str) or value not in get_args(allowed):
            choices = ", ".join(map(repr, get_args(allowed)))
            raise OptionError(f"{name} must be one of {choices}, got {value!r}")
    for name, value in (("ridge", ridge), ("learning_rate", learning_rate)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise OptionError(f"{name} must be a finite number of 0 or more, got {value!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise OptionError(f"steps must be a positive integer, got {steps!r}")
    if dtype not in (torch.float32, torch.float64):
        raise OptionError(f"dtype must be torch.float64 or torch.float32, got {dtype!r}")
    return Settings(float(ridge), steps, float(learning_rate))


def _as_batches(name: str, data: Any) -> Iterable[Any]:
    """Return something that can be gone through several times and has a batch."""
    if isinstance(data, Tensor | Mapping):
        return [data]
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise OptionError(
            f"{name} must be an iterable of batches, or a single Tensor or mapping, "
            f"got {type(data).__name__}"
        )
    return list(data) if isinstance(data, Iterator) else data


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, list | tuple) else model(batch)


def _numbered(name: str, batches: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    number = -1
    for number, batch in enumerate(batches):
        yield number, batch
    if number < 0:
        raise OptionError(f"the {name} data has no batch")


def _check_reached(name: str, layers: list[_Layer], called: Container[_Layer]) -> None:
    missing = [layer.what for layer in layers if layer not in called]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise OptionError(
            f"no input of the {name} data reaches {missing[0]}{more}; exclude it from "
            f"sparsify, or give data that does (and a model not yet compiled: hooks must be heard)"
        )


def _check_finite(tensor: Tensor, what: str, layer: _Layer, data: str, batch: int) -> None:
    if not tensor.isfinite().all():
        raise NonFiniteError(
            f"what {layer.what} {what} has {int((~tensor.isfinite()).sum())} NaN or "
            f"infinities in batch {batch} of the {data} data"
        )


def _check_calls(same: bool, layer: _Layer, data: str, batch: int) -> None:
    if not same:
        raise OptionError(
            f"{layer.what} is not called as often by the dense model as by the masked one "
            f'in batch {batch} of the {data} data; order="parallel" runs the dense model alone'
        )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients; modes and random numbers are put back."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {each.device for each in model.parameters()}
    cuda = sorted(device.index for device in devices if device.type == "cuda")
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        try:
            model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
