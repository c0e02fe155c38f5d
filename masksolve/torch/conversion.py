"""convert_unstructured: from zeros anywhere to transposable n:m masks, with n for each layer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..methods import BlockSolver
from ..pattern import Degree, Pattern
from .layers import MaskedLayer, masked_layers, weight_name
from .masking import Gradient
from .models import Ragged, Select, SparsifyReport, desparsify, sparsify_each
from .reconstruction import ReconstructionReport, reconstruct

__all__ = ["ConversionReport", "LayerConversion", "choose_n", "convert_unstructured"]


@dataclass(frozen=True)
class LayerConversion:
    """What `convert_unstructured` made of a weight.

    Parameters
    ----------
    name : str
        Of the weight in the model.
    shape : tuple of int
    zero_share : float
        p, the share of its entries that are exactly 0.
    pattern : Pattern
        What was chosen; with n = m the weight stays dense.
    kept_share : float
        Share of the sum of magnitudes that the mask keeps.
    dropped, nonzeros : int
        Entries other than 0 that the mask drops, and all there were.
    error_before, error_after : float
        On the calibration data, as in `masksolve.torch.LayerReconstruction`; NaN without.
    """

    name: str
    shape: tuple[int, ...]
    zero_share: float
    pattern: Pattern
    kept_share: float
    dropped: int
    nonzeros: int
    error_before: float = math.nan
    error_after: float = math.nan

    @property
    def dense(self) -> bool:
        """Whether the weight has no mask because too few of its entries are 0."""
        return self.pattern.n == self.pattern.m


@dataclass(frozen=True)
class ConversionReport:
    """What `convert_unstructured` did; as text, a table.

    Parameters
    ----------
    layers : tuple of LayerConversion
        Every weight that can be masked and was not excluded.
    masks : SparsifyReport
        Every parameter of the model: its mask, or why it has none.
    reconstruction : ReconstructionReport or None
        If calibration data was given and something was masked.
    """

    layers: tuple[LayerConversion, ...]
    masks: SparsifyReport
    reconstruction: ReconstructionReport | None

    def __str__(self) -> str:
        width = max([6, *(len(layer.name) for layer in self.layers)])
        heads = ("zeros", "pattern", "kept", "dropped", "before", "after")
        lines = [f"{'weight':{width}}" + "".join(f"  {head:>9}" for head in heads)]
        for layer in self.layers:
            cells = [
                f"{layer.zero_share:.2%}",
                "dense" if layer.dense else str(layer.pattern),
                f"{layer.kept_share:.2%}",
                f"{layer.dropped / max(layer.nonzeros, 1):.2%}",
                *(
                    "" if math.isnan(error) else f"{error:.4g}"
                    for error in (layer.error_before, layer.error_after)
                ),
            ]
            row = f"{layer.name:{width}}" + "".join(f"  {cell:>9}" for cell in cells)
            lines.append(row.rstrip())
        return "\n".join(lines)


def convert_unstructured(
    model: nn.Module,
    m: int,
    confidence: float,
    *,
    include: Select = None,
    exclude: Select = None,
    calibration: Any = None,
    reconstruction: Mapping[str, Any] | None = None,
    method: str | BlockSolver = "auto",
    backend: str | None = None,
    degree: Degree = "exact",
    gradient: Gradient = "straight_through",
    decay: float = 0.0,
    remainder: Ragged = "pad",
    workers: int | None = None,
) -> ConversionReport:
    r"""Mask a model that was pruned to zeros anywhere, layer by layer with an n of its own.

    If a share p of a layer's entries is 0, and zeros fall independently, then k or more of m
    entries are 0 with probability

    .. math:: P(k) = \Pr[\mathrm{Bin}(m, p) \ge k] = \sum_{j=k}^{m} \binom{m}{j} p^j (1-p)^{m-j}

    and the layer keeps :math:`n = m - \max\{k : P(k) > \text{confidence}\}` of m: a pattern that
    most groups fulfil already, so that its mask drops few weights that are not 0. P is compared
    in whole numbers, without rounding. The mask is the best by magnitude.

    Parameters
    ----------
    model : Module
        With exact zeros in its weights and no masks yet.
    m : int
        Edge of the blocks.
    confidence : float
        Between 0 and 1, both excluded. The higher, the more is kept.
    include, exclude, method, backend, degree, gradient, decay, remainder, workers
        As in `masksolve.torch.sparsify`.
    calibration : as in `masksolve.torch.reconstruct`, optional
        With it, layers are reconstructed after they are masked.
    reconstruction : mapping, optional
        Other options of `masksolve.torch.reconstruct`, by name.

    Returns
    -------
    ConversionReport
        Per weight: p, pattern, what it keeps and drops, and errors; ``print`` it for a table.
        Weights for which n = m stay dense, and are reported so.

    Raises
    ------
    OptionError
        The model has no weight that can be masked, is masked already, or an option makes no sense.
    PatternError, MethodError, ShapeError, NonFiniteError, SolverError
        As in `masksolve.torch.sparsify` and `masksolve.torch.reconstruct`. Whatever is raised, the
        model is as it was.

    References
    ----------
    Hubara et al. 2021, arXiv 2102.08124 (from unstructured to N:M sparsity). The paper counts zeros.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    >>> with torch.no_grad():
    ...     _ = model[0].weight[torch.rand(64, 64) < 0.8] = 0
    >>> report = convert_unstructured(model, m=8, confidence=0.9)
    >>> [(layer.name, str(layer.pattern), layer.dense) for layer in report.layers]
    [('0.weight', '3:8', False), ('2.weight', '8:8', True)]
    """
    edge, threshold = Pattern(0, m).m, _as_confidence(confidence)
    if calibration is None and reconstruction is not None:
        raise OptionError("options of the reconstruction are given, but no calibration data")
    if reconstruction is not None and not isinstance(reconstruction, Mapping):
        raise OptionError(
            f"reconstruction must be options of reconstruct by name, got {reconstruction!r}"
        )
    known = [*inspect.signature(reconstruct).parameters][2:]  # behind model and calibration
    unknown = [name for name in reconstruction or () if name not in known]
    if unknown:
        raise OptionError(
            f"reconstruct has no option {unknown[0]!r} to give it; it has {', '.join(known)}"
        )
    zeros: dict[str, int] = {}
    patterns: dict[str, Pattern] = {}

    def choose(name: str, weight: Tensor) -> Pattern | str:
        zeros[name] = int((weight == 0).sum())
        n = choose_n(zeros[name], weight.numel(), edge, threshold)
        patterns[name] = Pattern(n, edge)
        return patterns[name] if n < edge else "too few of its entries are 0: it stays dense"

    masks = sparsify_each(
        model,
        choose,
        include=include,
        exclude=exclude,
        method=method,
        backend=backend,
        degree=degree,
        gradient=gradient,
        decay=decay,
        remainder=remainder,
        workers=workers,
    )
    if not zeros:
        raise OptionError(f"the model has no weight to mask; what it has:\n{masks}")
    lost = {weight_name(layer.name): _dropped(layer) for layer in masked_layers(model)}
    try:
        done = None
        if calibration is not None and lost:
            done = reconstruct(model, calibration, **(reconstruction or {}))
    except BaseException:
        desparsify(model, bake=False)
        raise
    errors = {weight_name(each.name): each for each in done.layers} if done else {}
    layers = []
    for entry in masks.parameters:
        name = entry.name
        if name not in lost and (name not in patterns or patterns[name].n < edge):
            continue  # excluded, or too small for the pattern
        total = math.prod(entry.shape)
        layers.append(
            LayerConversion(
                name,
                entry.shape,
                zeros[name] / total if total else math.nan,
                patterns[name],
                entry.kept_share if entry.masked else 1.0,
                lost.get(name, 0),
                total - zeros[name],
                errors[name].error_before if name in errors else math.nan,
                errors[name].error_after if name in errors else math.nan,
            )
        )
    return ConversionReport(tuple(layers), masks, done)


def choose_n(zeros: int, total: int, m: int, confidence: Fraction) -> int:
    """Return n = m - max{k : Pr[Bin(m, zeros / total) >= k] > confidence}, in exact arithmetic."""
    tail, bound = 0, confidence * total**m
    for k in range(m, 0, -1):
        tail += math.comb(m, k) * zeros**k * (total - zeros) ** (m - k)
        if tail > bound:
            return m - k
    return m


def _as_confidence(confidence: Any) -> Fraction:
    number = isinstance(confidence, int | float | Fraction) and not isinstance(confidence, bool)
    if not number or not 0 < confidence < 1:
        raise OptionError(
            f"confidence must be a number between 0 and 1, both excluded, got {confidence!r}"
        )
    return Fraction(confidence)


def _dropped(layer: MaskedLayer) -> int:
    return int(torch.count_nonzero(layer.weight.detach()[~layer.masked.mask]))
