"""tune_decay: the factor of masked decay, by short runs from copies of model and optimizer."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..bands import Progress, report_progress
from ..errors import NonFiniteError, OptionError
from ..methods import BlockSolver
from .layers import masked_layers
from .training import MaskUpdate, SparseTraining, check_decay, check_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DecayRun", "DecaySearch", "tune_decay"]


@dataclass(frozen=True)
class DecayRun:
    """One short run of `tune_decay`.

    Parameters
    ----------
    decay : float
        0 of the dense reference.
    flip_rates : tuple of float
        At every update of the masks.
    ratio : float
        Its mean flip rate by that of the dense reference; NaN if the run diverged.
    """

    decay: float
    flip_rates: tuple[float, ...]
    ratio: float

    @property
    def flip_rate(self) -> float:
        """Mean of the flip rates."""
        return float(np.mean(self.flip_rates)) if self.flip_rates else math.nan


@dataclass(frozen=True)
class DecaySearch:
    """What `tune_decay` found.

    Parameters
    ----------
    accept : (float, float)
        The band of acceptable ratios.
    dense : DecayRun
        The dense reference.
    runs : tuple of DecayRun
        One for every decay, ascending.
    """

    accept: tuple[float, float]
    dense: DecayRun
    runs: tuple[DecayRun, ...]

    @property
    def decay(self) -> float | None:
        """The decay whose ratio is acceptable and nearest to the middle of the band, or None.

        Of two that are as near the smaller.
        """
        low, high = self.accept
        fitting = [run for run in self.runs if low <= run.ratio <= high]
        best = min(fitting, key=lambda run: abs(run.ratio - (low + high) / 2), default=None)
        return None if best is None else best.decay

    @property
    def message(self) -> str:
        """What was found, or what to try next, as a sentence."""
        low, high = self.accept
        if self.decay is not None:
            return f"decay {self.decay:g} has a ratio in [{low:g}, {high:g}], nearest its middle"
        weak = [run.decay for run in self.runs if run.ratio > high]
        strong = [run.decay for run in self.runs if not run.ratio > high]
        if weak and strong:
            least, largest = sorted((weak[-1], strong[0]))
            advice = f"try some from {least:g} to {largest:g}"
        else:
            advice = f"try larger than {weak[-1]:g}" if weak else f"try smaller than {strong[0]:g}"
        return f"no decay has a ratio in [{low:g}, {high:g}]: {advice}, or longer runs"

    def __str__(self) -> str:
        named = [("dense", self.dense), *((f"{run.decay:g}", run) for run in self.runs)]
        rows = [f"{name:>10} {run.flip_rate:>10.5f} {run.ratio:>8.3f}" for name, run in named]
        head = f"{'decay':>10} {'flip rate':>10} {'ratio':>8}"
        return "\n".join([head, *rows, self.message])

    def plot(self, *, title: str = "") -> Figure:
        """Draw the ratios against the decays; see `masksolve.plot.plot_flip_ratios`."""
        from ..plot import plot_flip_ratios

        return plot_flip_ratios(
            [run.decay for run in self.runs],
            [run.ratio for run in self.runs],
            accept=self.accept,
            chosen=self.decay,
            title=title,
        )


def tune_decay(
    model: nn.Module,
    optimizer: Optimizer,
    train_step: Callable[[nn.Module, Optimizer, int], object],
    *,
    decays: Sequence[float] = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
    steps: int = 200,
    update_every: int = 40,
    accept: tuple[float, float] = (0.60, 0.95),
    method: str | BlockSolver = "auto",
    backend: str | None = None,
    workers: int | None = None,
    progress: Progress = False,
) -> DecaySearch:
    r"""Find a factor of masked decay in warm-up, by the flip rates of short runs.

    A decay :math:`\lambda` is judged by the mean flip rate r of its run, against that of a run
    of the dense model, whose masks are found but not applied (Hu et al. 2024):

    .. math:: \mu(\lambda) = r(\lambda) / r_\mathrm{dense}

    Too small a decay lets masks flip as they would not in dense training, too large a one holds
    them. Acceptable is a ratio within `accept`; of these the one nearest to its middle is taken.

    Parameters
    ----------
    model : Module
        As `masksolve.torch.sparsify` left it, at best after some steps of warm-up.
    optimizer : Optimizer
        Holds its dense weights.
    train_step : callable
        Is called as ``train_step(model, optimizer, step)`` with copies of both and the step from
        0, and takes one optimizer step with them: forward, backward and all. It should choose its
        batch by `step`, and leave what is outside alone: a scheduler, a ``GradScaler``.
    decays : sequence of float
        To be tried, each 0 or more.
    steps : int
        Of each run.
    update_every : int
        As in `masksolve.torch.SparseTraining`.
    accept : (float, float)
        The band of acceptable ratios.
    method, backend, workers
        As in `masksolve.torch.SparseTraining`.
    progress : bool or callable
        As in `masksolve.solve`, told of steps.

    Returns
    -------
    DecaySearch
        Its `decay` is the one chosen, None if no ratio is acceptable; ``print`` shows all.

    Raises
    ------
    OptionError
        An option makes no sense, `train_step` took too few steps with the optimizer it was given
        for a mask update, or in the dense run nothing flipped.
    MethodError
        As in `masksolve.torch.SparseTraining`.
    NonFiniteError
        The dense run diverged. A run with decay that diverges has the ratio NaN.

    Notes
    -----
    Each run starts from a deep copy of model and optimizer, with masks found for its weights, and
    from the same state of the random number generators of Python, NumPy and PyTorch, which is
    there again at the end, whatever happens. Model and optimizer are not touched.

    Examples
    --------
    >>> import masksolve.torch as mt
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    >>> report = mt.sparsify(model, n=2, m=4)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    >>> def train_step(model, optimizer, step):
    ...     optimizer.zero_grad()
    ...     x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
    ...     (model(x) - x).square().mean().backward()
    ...     optimizer.step()
    >>> found = tune_decay(
    ...     model, optimizer, train_step, decays=[0, 1e-4, 1e-2], steps=10, update_every=5
    ... )
    >>> [run.decay for run in found.runs], len(found.dense.flip_rates)
    ([0.0, 0.0001, 0.01], 2)
    """
    chosen = _check_decays(decays)
    low, high = _check_accept(accept)
    steps, update_every = check_steps("steps", steps), check_steps("update_every", update_every)
    if update_every > steps:
        raise OptionError(
            f"a run of steps={steps} has no update with update_every={update_every}; give more steps"
        )
    if not callable(train_step):
        raise OptionError(f"train_step must be callable, got {train_step!r}")
    options = {
        "update_every": update_every, "method": method, "backend": backend, "workers": workers
    }  # fmt: skip
    with report_progress(progress, steps * (1 + len(chosen)), "tune_decay", unit="step") as advance:

        def run(decay: float | None) -> list[float]:
            with _same_randomness(model):
                copies = copy.deepcopy(
                    (model, optimizer)
                )  # together: one holds the other's weights
                return _flip_rates(*copies, train_step, decay, steps, options, advance)

        rates = run(None)
        reference = float(np.mean(rates))
        if not reference:
            raise OptionError(
                f"in {steps} steps of dense training no entry of a mask changed; give more steps, "
                f"or a later stage of the warm-up"
            )
        dense = DecayRun(0.0, tuple(rates), 1.0)
        runs = []
        for decay in chosen:
            try:
                rates = run(decay)
            except NonFiniteError:
                runs.append(DecayRun(decay, (), math.nan))
            else:
                runs.append(DecayRun(decay, tuple(rates), float(np.mean(rates)) / reference))
    return DecaySearch((low, high), dense, tuple(runs))


def _flip_rates(
    model: nn.Module,
    optimizer: Optimizer,
    train_step: Callable[[nn.Module, Optimizer, int], object],
    decay: float | None,
    steps: int,
    options: dict[str, Any],
    advance: Callable[[int], None],
) -> list[float]:
    """Train copies, dense if `decay` is None; returns the flip rates."""
    layers = list(masked_layers(model))
    for layer in layers:
        layer.masked.dense = False
    updates: list[MaskUpdate] = []
    with SparseTraining(
        model, optimizer, decay=decay or 0.0, on_update=updates.append, **options
    ) as training:
        for layer in layers:
            layer.masked.dense = decay is None
        training.update()  # masks may be older than the weights
        for step in range(steps):
            train_step(model, optimizer, step)
            advance(1)
    if len(updates) < 2:
        raise OptionError(
            f"train_step took {training.step} steps with the optimizer that it was given, too few "
            f"for an update every {training.update_every}: it must step this one, once in a call"
        )
    return [update.flip_rate for update in updates[1:]]


@contextmanager
def _same_randomness(model: nn.Module) -> Iterator[None]:
    """Put the generators of Python, NumPy and PyTorch back at the end."""
    kinds = {p.device.type for p in model.parameters()} - {"cpu"}
    kind = kinds.pop() if kinds else None
    devices = {p.device.index for p in model.parameters() if p.device.type == kind}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # what users draw from
    with torch.random.fork_rng(sorted(devices), device_type=kind or "cuda"):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _check_decays(decays: Any) -> list[float]:
    if isinstance(decays, np.ndarray | Tensor):
        decays = decays.tolist()
    if isinstance(decays, str) or not isinstance(decays, Sequence) or not len(decays):
        raise OptionError(f"decays must be a sequence of numbers of 0 or more, got {decays!r}")
    return sorted({check_decay(decay) for decay in decays})


def _check_accept(accept: Any) -> tuple[float, float]:
    try:
        low, high = map(float, accept)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0 <= low < high < math.inf:
        raise OptionError(
            f"accept must be two numbers, the least and the largest ratio, got {accept!r}"
        )
    return low, high
