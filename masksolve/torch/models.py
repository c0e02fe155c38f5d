"""sparsify, desparsify, check_sparsity: masks on a model's weights, put on, taken off, proven."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from ..bands import check_workers
from ..errors import (
    DtypeError,
    MaskError,
    NonFiniteError,
    OptionError,
    RaggedShapeError,
    ShapeError,
)
from ..methods import BlockSolver, find_method
from ..pattern import Degree, Pattern, check_degree
from .distributed import whole, wrapper_of
from .layers import (
    MaskedLayer,
    called,
    check_alone,
    check_numbers,
    find_masked,
    masked_layers,
    no_masks,
    some_masked,
    weight_name,
)
from .layout import LAYERS, Layout, layout_of
from .masking import Gradient, Masked, check_gradient, keep
from .mvue import (
    WeightGradient,
    as_mvue_linear,
    check_weight_gradient,
    weight_gradient_of,
)
from .search import find_mask, solve
from .semi_structured import (
    Execution,
    as_sparse_linear,
    check_execution,
    plain_class,
    why_not_sparse,
)

__all__ = [
    "LayerCheck",
    "ParameterReport",
    "Ragged",
    "Select",
    "SparsifyReport",
    "check_same_masks",
    "check_sparsity",
    "desparsify",
    "sparsify",
    "sparsify_each",
]

#: Which layers: by name or glob, by type, by a module itself, or by a predicate; see `sparsify`.
Choice = str | type[nn.Module] | nn.Module | Callable[[str, nn.Module], bool]
Select = Choice | Iterable[Choice] | None
#: Layers whose sizes are no multiples of m: padded by zeros, left out, or refused.
Ragged = Literal["pad", "skip", "error"]


@dataclass(frozen=True)
class ParameterReport:
    """What became of a parameter.

    Parameters
    ----------
    name : str
        As ``named_parameters`` had it; a tied one's other names follow in `tied`.
    shape : tuple of int
    masked : bool
    reason : str
        Why it was skipped; empty if it is masked.
    pattern : Pattern or None
    kept_share : float
        Share of the score that the mask keeps; NaN if skipped, or if all scores are 0.
    gap : float
        To the proven bound: 0 is optimal; NaN if skipped.
    weight_gradient : str
        ``"dense"``, ``"mvue"`` or ``"mvue_approximate"``; of a tied weight those of all its layers,
        say ``"mvue and dense"``.
    execution : {"masked", "sparse"}
    not_sparse : str
        Why it is to stay masked-dense though sparse execution was asked for.
    tied : tuple of str
    """

    name: str
    shape: tuple[int, ...]
    masked: bool
    reason: str = ""
    pattern: Pattern | None = None
    kept_share: float = float("nan")
    gap: float = float("nan")
    weight_gradient: str = "dense"
    execution: Execution = "masked"
    not_sparse: str = ""
    tied: tuple[str, ...] = ()

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape)) or "no shape"
        if not self.masked:
            return f"{self.name} ({shape}): skipped, {self.reason}"
        gradient = f", weight gradient {self.weight_gradient}" * (self.weight_gradient != "dense")
        sparse = ", execution sparse" * (self.execution == "sparse")
        sparse += f", execution masked: {self.not_sparse}" * bool(self.not_sparse)
        tied = f"; the same as {', '.join(self.tied)}" if self.tied else ""
        share = self.kept_share
        kept = "has no score" if math.isnan(share) else f"keeps {share:.2%} of the score"
        return (
            f"{self.name} ({shape}): {self.pattern}, {kept}, gap {self.gap:.2g}"
            f"{gradient}{sparse}{tied}"
        )


@dataclass(frozen=True)
class SparsifyReport:
    """What `sparsify` did with every parameter of a model.

    Parameters
    ----------
    parameters : tuple of ParameterReport
    """

    parameters: tuple[ParameterReport, ...]

    @property
    def masked(self) -> tuple[ParameterReport, ...]:
        """Those that were masked."""
        return tuple(entry for entry in self.parameters if entry.masked)

    @property
    def skipped(self) -> tuple[ParameterReport, ...]:
        """Those that were not, each with its reason."""
        return tuple(entry for entry in self.parameters if not entry.masked)

    def __str__(self) -> str:
        return "\n".join(map(str, self.parameters)) or "no parameter"


def sparsify(
    model: nn.Module,
    n: int,
    m: int,
    *,
    include: Select = None,
    exclude: Select = None,
    method: str | BlockSolver = "auto",
    backend: str | None = None,
    degree: Degree = "exact",
    gradient: Gradient = "straight_through",
    decay: float = 0.0,
    weight_gradient: WeightGradient = "dense",
    execution: Execution = "masked",
    remainder: Ragged = "pad",
    workers: int | None = None,
) -> SparsifyReport:
    """Mask the weights of a model's linear layers and convolutions, in place.

    From then on ``layer.weight`` is the dense weight where the mask keeps it and 0 elsewhere. The
    optimizer goes on with the dense weight, the very `Parameter` that it holds. Masks are buffers:
    ``state_dict`` saves them, ``load_state_dict`` checks and restores them (see `Masked`).

    Parameters
    ----------
    model : Module
        Or a single layer.
    n, m, method, backend, degree, workers
        As in `masksolve.torch.find_mask`. Blocks lie over outputs × inputs, for every group and
        every tap of a convolution.
    include, exclude
        Layers to mask, by default all that can be; and layers not to. Each is a name of a layer
        or its weight, a glob (``"encoder.*.linear1"``), a type, a module, a predicate ``(name,
        module) -> bool``, or a list of such. What fits a part of the model, such as
        ``"encoder"``, means all layers in it; predicates are asked about each layer alone. What
        reaches no linear layer or convolution is refused, but for predicates.
    gradient : {"straight_through", "sr_ste", "static"}
        What reaches the dense weight; see `masksolve.torch.masking`.
    decay : float
        The factor of ``"sr_ste"``, once for every backward pass: with micro-batches or a
        ``GradScaler`` take the decay of `masksolve.torch.SparseTraining` instead.
    weight_gradient : {"dense", "mvue", "mvue_approximate"}
        With the latter two, every masked `torch.nn.Linear` becomes a `masksolve.torch.MVUELinear`,
        in place: its weight gradient is computed from 2:4 sparse estimates of the output
        gradients. All other layers, subclasses too, keep theirs, and the report says so.
    execution : {"masked", "sparse"}
        With ``"sparse"``, for at most two of every four, every masked `torch.nn.Linear` becomes a
        `masksolve.torch.SparseLinear`, in place, whose products run on sparse tensor cores where
        they can and pay. The report says which layers never can, and
        `masksolve.torch.execution_report` what all of them do on their device.
    remainder : {"pad", "skip", "error"}
        A layer whose sizes are no multiples of m is masked as if padded by zeros, left dense, or
        refused.

    Returns
    -------
    SparsifyReport
        For every parameter: masked, with kept share and gap, or skipped, and why. The gap of
        an exact method is 0 by its proof; that of others is computed (`masksolve.solve`).

    Raises
    ------
    OptionError
        The model has no layer to mask, is masked or wrapped already, or an option makes no sense.
    NonFiniteError
        A weight has NaN or infinities; the message names the layer.
    PatternError, MethodError, ShapeError
        As in `masksolve.find_mask`. Whatever is raised, the model is as it was.

    Notes
    -----
    A weight that several masked layers share gets one mask; one that is shared with a part of the
    model that is not masked (an embedding, say) is skipped.

    Make the optimizer after. One made before goes on, but masked weights now come behind biases in
    ``model.parameters()``, and the state dict of an optimizer goes by position: it would not fit
    an optimizer made after.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = sparsify(model, n=2, m=4, exclude="2")
    >>> [entry.name for entry in report.masked], report.skipped[0].reason
    (['0.weight'], 'a bias: only weights of linear layers and convolutions are masked')
    >>> int(torch.count_nonzero(model[0].weight))
    256
    """
    pattern = Pattern(n, m)
    report = sparsify_each(
        model,
        lambda *_: pattern,
        include=include,
        exclude=exclude,
        method=method,
        backend=backend,
        degree=degree,
        gradient=gradient,
        decay=decay,
        weight_gradient=weight_gradient,
        execution=execution,
        remainder=remainder,
        workers=workers,
    )
    if not report.masked:
        raise OptionError(f"the model has no weight to mask; what it has:\n{report}")
    return report


def sparsify_each(
    model: nn.Module,
    choose: Callable[[str, Tensor], Pattern | str],
    *,
    include: Select,
    exclude: Select,
    method: str | BlockSolver,
    backend: str | None,
    degree: Degree,
    gradient: Gradient,
    decay: float,
    remainder: Ragged,
    workers: int | None,
    weight_gradient: WeightGradient = "dense",
    execution: Execution = "masked",
) -> SparsifyReport:
    """Mask each weight in the pattern that `choose` gives for its name and itself.

    A text instead of a pattern is the reason to skip it. For the rest as `sparsify`, but a model in
    which nothing is masked is no error.
    """
    degree = check_degree(degree)
    gradient, decay = check_gradient(gradient, decay)
    weight_gradient = check_weight_gradient(weight_gradient)
    execution = check_execution(execution)
    if remainder not in get_args(Ragged):
        raise OptionError(f"remainder must be 'pad', 'skip' or 'error', got {remainder!r}")
    if not isinstance(model, nn.Module):
        raise OptionError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    taken = next(masked_layers(model), None)
    if taken is not None:
        raise OptionError(
            f"the model is masked already, at {taken.name or 'its own weight'!r}; "
            f"desparsify(model, bake=False) takes the masks off"
        )
    wrapper = wrapper_of(model)
    if wrapper:
        raise OptionError(
            f"the model is spread over processes already, by {wrapper}; sparsify it first, and "
            f"then wrap it by DistributedDataParallel or fully_shard"
        )
    options: dict[str, Any] = {
        "method": method, "backend": backend, "degree": degree, "workers": check_workers(workers),
        "remainder": "pad",
    }  # fmt: skip
    reports, found = [], []
    for use in _parameters(model, include, exclude):
        pattern = use.reason or choose(use.names[0], use.parameter.detach())
        reason = pattern if isinstance(pattern, str) else _unfit(use, pattern, remainder)
        entry = ParameterReport(use.names[0], use.shape, not reason, reason)
        if isinstance(pattern, Pattern) and not reason:
            exact = find_method(method, backend, pattern, degree).exact
            masked, share, gap = _mask_weight(use, pattern, exact, gradient, decay, options)
            found.append((use, masked))
            sparse = execution == "sparse"
            why_not = next(filter(None, (why_not_sparse(m, pattern) for m in use.modules)), "")
            entry = replace(
                entry, pattern=pattern, kept_share=share, gap=gap, tied=tuple(use.names[1:]),
                weight_gradient=" and ".join(dict.fromkeys(use.weight_gradients(weight_gradient))),
                execution="sparse" if sparse and not why_not else "masked",
                not_sparse=why_not * sparse,
            )  # fmt: skip
        reports.append(entry)
    gradients = {each for use, _ in found for each in use.weight_gradients(weight_gradient)}
    if found and weight_gradient not in {"dense", *gradients}:
        raise OptionError(
            f"weight_gradient={weight_gradient!r} is for layers that are torch.nn.Linear itself, and "
            f"none of those to mask is one"
        )
    if (
        found
        and execution == "sparse"
        and all(entry.not_sparse for entry in reports if entry.masked)
    ):
        why = "; ".join(f"{e.name}: {e.not_sparse}" for e in reports if e.masked)
        raise OptionError(f"execution='sparse' is possible in no layer that is to mask; {why}")
    sparse_names = {entry.name for entry in reports if entry.execution == "sparse"}
    for use, masked in found:
        for module in use.modules:
            as_mvue_linear(module, weight_gradient)
            if use.names[0] in sparse_names:
                as_sparse_linear(module)
            # Unsafe leaves out a forward pass, by which it is checked that dtype and shape stay.
            parametrize.register_parametrization(module, "weight", masked, unsafe=True)
    return SparsifyReport(tuple(reports))


def desparsify(model: nn.Module, *, bake: bool = True) -> None:
    """Take the masks off a model, in place.

    Parameters
    ----------
    model : Module
    bake : bool
        Write the zeros of the masks into the weights, so that the model computes what it did (a
        layer that is switched to dense has none); with False, the dense weights come back.

    Raises
    ------
    OptionError
        The model has no masks or is wrapped for distributed training, or a weight has another
        parametrization beside its mask. The model is as it was.

    Examples
    --------
    >>> layer = nn.Linear(4, 4)
    >>> report = sparsify(layer, n=2, m=4)
    >>> desparsify(layer)
    >>> int(torch.count_nonzero(layer.weight)), type(layer.weight).__name__
    (8, 'Parameter')
    """
    layers = some_masked(model)
    wrapper = wrapper_of(model)
    if wrapper:
        instead = (
            "desparsify its .module, and wrap that anew"
            if wrapper == "DistributedDataParallel"
            else "load its full state_dict into a model that is not sharded, and desparsify that"
        )
        raise OptionError(
            f"masks cannot be taken off under {wrapper}, which keeps account of all parameters "
            f"and buffers; {instead}"
        )
    masked = [(n, each) for n, each in model.named_modules() if find_masked(each) is not None]
    for name, module in masked:
        check_alone(name, module)
    if bake:
        with torch.no_grad():
            for layer in layers:
                if not layer.masked.dense:
                    layer.weight.masked_fill_(~layer.masked.mask, 0)
    for _, module in masked:
        _give_own_class(module)
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        # Before all others again, as layers make it: states of optimizers go by this order.
        own = module._parameters
        for name in [name for name in own if name != "weight"]:
            own[name] = own.pop(name)


def _give_own_class(module: nn.Module) -> None:
    """Copy the class of a parametrized module, which its deep copies share, over its plain class.

    `remove_parametrizations` takes the weight off the class, hence off all of them; and with
    parametrizations of other parameters the class stays.
    """
    shared, base = type(module), plain_class(module)
    members = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(f"Parametrized{base.__name__}", (base,), members)


@dataclass(frozen=True)
class LayerCheck:
    """What `check_sparsity` found a layer to be.

    Parameters
    ----------
    name : str
    pattern : Pattern
    density : float
        Non-zero entries, of all of the weight that the layer computes with.
    """

    name: str
    pattern: Pattern
    density: float


@torch.no_grad()
def check_sparsity(model: nn.Module) -> list[LayerCheck]:
    """Prove that every masked layer is n:m along outputs and along inputs.

    Both are checked where it counts: on the mask, and on the weight that the layer computes with,
    which must be 0 wherever the mask is. Sharded weights are gathered for it, one at a time, so
    all processes must take part.

    Returns
    -------
    list of LayerCheck
        One for every masked layer.

    Raises
    ------
    MaskError
        Names the layer, and the first row or column of a block that keeps too many or too few.
    OptionError
        The model has no masks, or no numbers: it is on the device ``"meta"``.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    >>> report = sparsify(model, n=2, m=4)
    >>> [(found.name, str(found.pattern), found.density) for found in check_sparsity(model)]
    [('0', '2:4', 0.5), ('2', '2:4', 0.5)]
    """
    found = []
    for layer in some_masked(model):
        what = called(layer.name)
        check_numbers(what, layer.weight)
        try:
            layer.masked.check()
        except (MaskError, ShapeError) as error:
            raise MaskError(f"{what}: {error}") from error
        weight = _computed(layer)
        beyond = int(torch.count_nonzero(weight[~layer.masked.mask]))
        if beyond:
            why = (
                "it is switched to dense (masked.dense is True)"
                if layer.masked.dense
                else "another parametrization after the mask may have changed them"
            )
            raise MaskError(
                f"{what} computes with {beyond} non-zero weights that its mask does not keep; {why}"
            )
        density = int(torch.count_nonzero(weight)) / max(weight.numel(), 1)
        found.append(LayerCheck(layer.name, layer.masked.pattern, density))
    return found


def _computed(layer: MaskedLayer) -> Tensor:
    """Return the weight that a layer computes with, whole."""
    chain: nn.Module = layer.module.parametrizations.weight  # type: ignore[union-attr,assignment]
    weight: Tensor = functional_call(chain, {"original": whole(layer.weight)}, ())
    return weight


@torch.no_grad()
def check_same_masks(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Prove that all processes of a distributed run have the same masks.

    They send each other the names of the masked layers and a digest (SHA-256) of each one's
    pattern and mask. It is a collective call: all processes of the group must take part.

    Parameters
    ----------
    model : Module
        As it is, or wrapped.
    group : ProcessGroup, optional
        By default all processes.

    Raises
    ------
    MaskError
        On every process; names the first layer, and the ranks (of the group) that differ.
    OptionError
        ``torch.distributed`` is not initialized, this process is not in the group, or the model
        has no masks on any process.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise OptionError(
            "torch.distributed is not initialized, so there are no other processes to compare "
            "with; torch.distributed.init_process_group comes first"
        )
    if dist.get_rank(group) < 0:
        raise OptionError("this process is not in the group")
    found: list[Any] = [None] * dist.get_world_size(group)
    # What is wrong is told after all have sent theirs, or the others would wait for ever.
    own = {layer.name: _digest(layer.masked) for layer in masked_layers(model)}
    dist.all_gather_object(found, own, group=group)
    if not any(found):
        raise no_masks()
    first, *others = found
    for rank, other in enumerate(others, 1):
        alone = sorted(first.keys() ^ other.keys())
        if alone:
            raise MaskError(
                f"{called(alone[0])} is masked on one of the ranks 0 and {rank} alone; sparsify "
                f"the same layers on all"
            )
        for name, digest in first.items():
            if digest != other[name]:
                raise MaskError(
                    f"the mask of {called(name)} is not the same on ranks 0 and {rank}; masks are "
                    f"found from weights, which must be the same on all ranks before sparsify"
                )


def _digest(masked: Masked) -> bytes:
    mask = whole(masked.mask).cpu().numpy()
    what = f"{masked.pattern} {masked.degree} {mask.shape}".encode()
    return hashlib.sha256(what + np.packbits(mask).tobytes()).digest()


@dataclass
class _Use:
    """A parameter, and where the model has it."""

    parameter: nn.Parameter
    names: list[str]
    modules: list[nn.Module]
    reason: str = ""

    @property
    def layout(self) -> Layout:
        return layout_of(self.modules[0])

    @property
    def shape(self) -> tuple[int, ...]:
        unknown = isinstance(self.parameter, UninitializedParameter)
        return () if unknown else tuple(self.parameter.shape)

    def weight_gradients(self, chosen: WeightGradient) -> list[WeightGradient]:
        """Return what `as_mvue_linear` makes of the weight gradient of each module."""
        return [weight_gradient_of(module, chosen) for module in self.modules]


def _parameters(model: nn.Module, include: Select, exclude: Select) -> Iterator[_Use]:
    """Yield every parameter once, with the reason why it cannot or is not to be masked, if any."""
    wanted, unwanted = _Selection("include", include, model), _Selection("exclude", exclude, model)
    reasons = defaultdict(list)
    uses: dict[int, _Use] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            use = uses.setdefault(id(parameter), _Use(parameter, [], []))
            use.names.append(f"{prefix}.{name}" if prefix else name)
            use.modules.append(module)
            reason = _why_not(module, name, parameter)
            if not reason and wanted.given and not wanted(prefix, module):
                reason = "not among those to include"
            elif not reason and unwanted(prefix, module):
                reason = "excluded"
            reasons[id(parameter)].append(reason)
    for key, use in uses.items():
        first = next((i for i, reason in enumerate(reasons[key]) if reason), None)
        if first is not None:
            use.reason = reasons[key][first]
            if not all(reasons[key]):
                use.reason = f"shared with {use.names[first]}, which is not masked: {use.reason}"
        elif len({layout_of(module) for module in use.modules}) > 1:
            use.reason = f"shared by layers of different kinds: {', '.join(use.names)}"
        yield use


def _why_not(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    """Say why a parameter is not one that can be masked."""
    if isinstance(parameter, UninitializedParameter):
        return "not initialized yet: run the model once before"
    if parameter.is_meta:
        return "on the device 'meta', which holds no numbers to find a mask for"
    if parametrize.is_parametrized(module) or isinstance(module, parametrize.ParametrizationList):
        return "parametrized otherwise already"
    if name == "bias":
        return "a bias: only weights of linear layers and convolutions are masked"
    if isinstance(module, LAYERS) and name.startswith("weight_"):
        return (
            "what a hook makes the weight of at every call, as torch.nn.utils.weight_norm, "
            "spectral_norm and prune do: remove that before"
        )
    if name != "weight" or not isinstance(module, LAYERS):
        return f"of a {type(module).__name__}: only linear layers and convolutions are masked"
    if not parameter.is_floating_point():
        return f"of dtype {parameter.dtype}: only real floating-point weights are masked"
    return ""


def _unfit(use: _Use, pattern: Pattern, remainder: Ragged) -> str:
    """Say why the pattern does not do for a weight."""
    _, rows, columns, *_ = use.layout.as_matrices(use.parameter).shape
    if max(rows, columns) <= pattern.n < pattern.m:
        return f"its matrices are {rows}×{columns}: no line of them has more than {pattern.n}"
    if remainder == "pad" or not (rows % pattern.m or columns % pattern.m):
        return ""
    why = f"its matrices are {rows}×{columns}: no multiples of {pattern.m}"
    if remainder == "error":
        raise RaggedShapeError(
            f'{use.names[0]}: {why}; remainder="pad" treats the edge as padded by zeros, "skip" '
            f"leaves such layers dense"
        )
    return why


def _mask_weight(
    use: _Use,
    pattern: Pattern,
    exact: bool,
    gradient: Gradient,
    decay: float,
    options: dict[str, Any],
) -> tuple[Masked, float, float]:
    """Find the mask of a weight; returns also kept share and gap."""
    layout, weight = use.layout, use.parameter.detach()
    mask, gap = search(weight, layout, pattern, exact, use.names[0], options)
    scores = weight.abs()
    # Sums by cascades: float32 is enough, and conversion to float64 takes twice as long.
    wide = torch.promote_types(weight.dtype, torch.float32)
    whole, kept = (float(part.sum(dtype=wide)) for part in (scores, keep(scores, mask)))
    masked = Masked(mask, pattern, options["degree"], layout, gradient=gradient, decay=decay)
    return masked, kept / whole if whole else float("nan"), gap


def search(
    weight: Tensor,
    layout: Layout,
    pattern: Pattern,
    exact: bool,
    name: str,
    options: dict[str, Any],
) -> tuple[Tensor, float]:
    """Find the mask of a weight, in its shape, and its gap; errors name it."""
    check_numbers(name, weight)
    weight = weight.detach()
    matrices = layout.as_matrices(weight)
    try:
        if exact:
            found = find_mask(matrices, pattern.n, pattern.m, axes=layout.axes, **options)
            return found.reshape(weight.shape), 0.0
        solution = solve(matrices, pattern.n, pattern.m, axes=layout.axes, **options)
        return solution.mask.reshape(weight.shape), solution.gap
    except NonFiniteError as error:
        bad = ~weight.isfinite()
        first = tuple(map(int, torch.unravel_index(bad.flatten().byte().argmax(), bad.shape)))
        count = int(bad.sum())
        others = f"; {count} entries are not finite" if count > 1 else ""
        raise NonFiniteError(
            f"{name}: weights must be finite, but the entry at {first} is "
            f"{float(weight[first])}{others}; look for where they come from"
        ) from error
    except DtypeError as error:
        raise DtypeError(f"{name}: {error}") from error


class _Selection:
    """Layers by name, glob, type, module or predicate."""

    def __init__(self, option: str, choices: Select, model: nn.Module) -> None:
        self.given = choices is not None
        if isinstance(choices, str) or callable(choices):
            choices = [choices]
        elif not isinstance(choices, Iterable | None):
            raise _no_choice(option, choices)
        self.modules = dict(model.named_modules())
        layers = [name for name, module in self.modules.items() if isinstance(module, LAYERS)]
        weights = {weight_name(name) for name in layers}
        self.choices: list[Any] = []
        for choice in choices or ():
            fits = choice
            if isinstance(choice, str) and (choice in self.modules or choice in weights):
                fits = glob.escape(choice)  # a name, whatever signs it has
            elif not isinstance(choice, str) and not callable(choice):
                raise _no_choice(option, choice)
            by_place = isinstance(choice, str | type | nn.Module)
            if by_place and layers and not any(self._reaches(fits, name) for name in layers):
                raise OptionError(
                    f"{option}={choice!r} fits no layer of the model that could be masked (linear "
                    f"layers and convolutions), nor a part with such a layer; names of layers are "
                    f"like {', '.join(repr(name) for name in layers[:5] if name) or repr('weight')}"
                )
            self.choices.append(fits)

    def __call__(self, name: str, module: nn.Module) -> bool:
        return any(
            self._reaches(choice, name)
            if isinstance(choice, str | type | nn.Module)
            else bool(choice(name, module))
            for choice in self.choices
        )

    def _reaches(self, choice: Any, layer: str) -> bool:
        """Whether a choice fits a layer, or a part of the model that it is in."""
        path = layer.split(".")
        parts = ["", *(".".join(path[: i + 1]) for i in range(len(path)))]
        if isinstance(choice, str):
            return any(fnmatch.fnmatchcase(each, choice) for each in (*parts, weight_name(layer)))
        if isinstance(choice, type):
            return any(isinstance(self.modules[each], choice) for each in parts)
        return any(self.modules[each] is choice for each in parts)


def _no_choice(option: str, choice: Any) -> OptionError:
    return OptionError(
        f"{option} takes names, globs, types of layers, modules and predicates, got {choice!r}"
    )
