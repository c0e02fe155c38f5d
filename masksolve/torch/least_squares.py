"""Least squares over the kept weights, from second moments of a layer's inputs and targets."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import SolverError

__all__ = ["Method", "Moments", "Settings", "Solved", "choose_method", "solve_rows"]

#: How the kept weights are found: `reconstruct` tells what each costs.
Method = Literal["auto", "least_squares", "cg", "adam"]

# A factorisation of many small matrices runs at about this fraction of a matrix product's rate.
_FACTOR_RATE = 0.2
# Steps of conjugate gradients that a layer takes, to compare costs by; real inputs need 40 to 300.
_TYPICAL_STEPS = 200
# Conjugate gradients end when every row's residual is this small beside its first.
_TOLERANCE = 1e-6
# Numbers in the matrices that are factorised at once.
_CHUNK = 1 << 24


class Settings(NamedTuple):
    """What the solvers are told."""

    ridge: float
    steps: int
    learning_rate: float


class Solved(NamedTuple):
    """Rows, and how they were found; `residual` is what conjugate gradients left, else 0."""

    rows: Tensor
    method: str
    steps: int
    residual: float


class Moments:
    """Sums over the inputs x and the targets y of a layer, for every group of its outputs.

    An input is extended by a last entry that is always 1, so that a bias is one more weight and
    the sum of the inputs is the last row of `gram`.

    Parameters
    ----------
    groups, inputs, outputs : int
        Shape of the layer's weight as rows.
    dtype, device
        Of the sums.

    Attributes
    ----------
    gram : (groups, inputs + 1, inputs + 1)
        Sum of x x^T.
    cross : (groups, outputs, inputs + 1)
        Sum of y x^T.
    energy : (groups, outputs)
        Sum of y^2.
    """

    def __init__(
        self, groups: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.gram = torch.zeros(groups, inputs + 1, inputs + 1, dtype=dtype, device=device)
        self.cross = torch.zeros(groups, outputs, inputs + 1, dtype=dtype, device=device)
        self.energy = torch.zeros(groups, outputs, dtype=dtype, device=device)

    @property
    def count(self) -> int:
        """How many inputs were added."""
        return int(self.gram[0, -1, -1])

    def add(self, x: Tensor, y: Tensor | None = None) -> None:
        """Add inputs (positions, groups, inputs) and, if given, targets (positions, groups, outputs)."""
        x = torch.nn.functional.pad(x.to(self.gram.dtype), (0, 1), value=1.0).transpose(0, 1)
        self.gram.baddbmm_(x.mT, x)
        if y is not None:
            y = y.to(self.gram.dtype).transpose(0, 1)
            self.cross.baddbmm_(y.mT, x)
            self.energy += y.square().sum(1)

    def aim_at(self, weight: Tensor) -> None:
        """Let the targets be what dense rows (groups, outputs, inputs + 1) make of the inputs."""
        self.cross = weight @ self.gram
        self.energy = (self.cross * weight).sum(-1)

    def error(self, weight: Tensor) -> float:
        """Return ||Y - W X||^2 / ||Y||^2 for rows (groups, outputs, inputs + 1); NaN if Y is 0."""
        loss = self.energy + ((weight @ self.gram - 2 * self.cross) * weight).sum(-1)
        return float(loss.clamp_min(0).sum() / self.energy.sum())


class _Problem:
    """For each row, ``min_z z A_SS z / 2 - z r_S`` over the change z of its kept weights."""

    def __init__(self, moments: Moments, weight: Tensor, mask: Tensor, ridge: float) -> None:
        self.mask = mask
        sizes = moments.gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1)
        # Inputs that are all zero ask for no change, whatever the ridge is relative to.
        sizes = torch.where(sizes > 0, sizes, 1)
        self.scale = sizes[:, None, None]
        self.A = moments.gram.clone()
        self.A.diagonal(dim1=1, dim2=2)[:, :-1] += ridge * sizes[:, None]
        start = weight * mask
        self.r = (moments.cross - start @ moments.gram) * mask

    def times(self, z: Tensor) -> Tensor:
        """Return A_SS z for all rows."""
        return (z @ self.A) * self.mask

    def absorbed_mean(self) -> Tensor:
        """Return the change that makes up, as far as one number can, for the mean that was lost."""
        direction = torch.where(
            self.mask[..., -1:],
            torch.eye(1, self.A.shape[-1], dtype=self.A.dtype, device=self.A.device).flip(-1),
            self.A[:, -1:, :] * self.mask,
        )
        return direction * _ratio(self.r, direction, direction, self.times(direction))

    def energy(self, z: Tensor) -> Tensor:
        """Return the objective of every row."""
        return ((self.times(z) / 2 - self.r) * z).sum(-1, keepdim=True)


def _ratio(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Row by row <a, b> / <c, d>; 0 where the divisor is."""
    over, under = (a * b).sum(-1, keepdim=True), (c * d).sum(-1, keepdim=True)
    return torch.where(under > 0, over / torch.where(under > 0, under, 1), 0)


def choose_method(mask: Tensor) -> str:
    """Return the cheaper of a factorisation for each row and of conjugate gradients for all rows."""
    kept = mask.sum(-1).double()
    factorising = float((kept**3).sum()) / 3 / _FACTOR_RATE
    iterating = _TYPICAL_STEPS * 2.0 * mask.numel() * mask.shape[-1]
    return "least_squares" if factorising <= iterating else "cg"


def solve_rows(
    moments: Moments, weight: Tensor, mask: Tensor, method: Method, settings: Settings
) -> Solved:
    """Find the kept weights of every row; rows and mask are (groups, outputs, inputs + 1)."""
    problem = _Problem(moments, weight, mask, settings.ridge)
    chosen = choose_method(mask) if method == "auto" else method
    steps, residual = 0, 0.0
    if chosen == "least_squares":
        change = _factorise(problem)
    elif chosen == "cg":
        change, steps, residual = _conjugate_gradients(problem, settings.steps)
    else:
        change, steps = _adam(problem, settings), settings.steps
    return Solved(weight * mask + change, chosen, steps, residual)


def _factorise(problem: _Problem) -> Tensor:
    """Solve A_SS z = r_S by Cholesky, for many rows of equally many kept weights at once."""
    inputs = problem.mask.shape[-1]
    mask, r = problem.mask.reshape(-1, inputs), problem.r.reshape(-1, inputs)
    group = torch.arange(len(mask), device=mask.device) // problem.mask.shape[1]
    change, kept = torch.zeros_like(r), mask.sum(-1)
    for size in sorted(set(kept.tolist())):
        if size == 0:
            continue
        for rows in (kept == size).nonzero()[:, 0].split(max(1, _CHUNK // size**2)):
            columns = mask[rows].nonzero()[:, 1].view(-1, size)
            matrices = problem.A[group[rows, None, None], columns[:, :, None], columns[:, None, :]]
            factors, failed = torch.linalg.cholesky_ex(matrices)
            if failed.any():
                raise SolverError(
                    f"the inputs do not determine the kept weights of output "
                    f"{int(rows[failed.nonzero()[0, 0]])}: their Gram matrix is singular; give "
                    f"more calibration inputs or a larger ridge"
                )
            wanted = r[rows[:, None], columns].unsqueeze(-1)
            change[rows[:, None], columns] = torch.cholesky_solve(wanted, factors).squeeze(-1)
    return change.view_as(problem.r)


def _conjugate_gradients(problem: _Problem, steps: int) -> tuple[Tensor, int, float]:
    """Solve A_SS z = r_S for all rows at once, preconditioned by the diagonal."""
    diagonal = problem.A.diagonal(dim1=1, dim2=2)[:, None, :]
    inverse = torch.where(diagonal > 0, 1 / torch.where(diagonal > 0, diagonal, 1), 0)
    z = problem.absorbed_mean()
    r = problem.r - problem.times(z)
    first = _norms(problem.r * inverse.sqrt())
    direction = y = r * inverse
    done, left = 0, _left(r * inverse.sqrt(), first)
    while done < steps and left > _TOLERANCE:
        product = problem.times(direction)
        z = z + (step := _ratio(r, y, direction, product)) * direction
        before, r = (r, y), r - step * product
        y = r * inverse
        direction = y + _ratio(r, y, *before) * direction
        done, left = done + 1, _left(r * inverse.sqrt(), first)
    return z, done, 0.0 if left <= _TOLERANCE else left


def _norms(rows: Tensor) -> Tensor:
    return rows.square().sum(-1)


def _left(residual: Tensor, first: Tensor) -> float:
    """Return the largest residual of a row beside its first one."""
    ratio = _norms(residual) / torch.where(first > 0, first, 1)
    return float(ratio.max().sqrt()) if ratio.numel() else 0.0


def _adam(problem: _Problem, settings: Settings) -> Tensor:
    """Descend from the absorbed mean; a row that Adam has not improved keeps its start."""
    start = problem.absorbed_mean()
    change = torch.nn.Parameter(start.clone(), requires_grad=False)
    optimizer = torch.optim.Adam([change], lr=settings.learning_rate)
    for step in range(settings.steps):
        # To zero in the end: with a step of constant length Adam would circle around the optimum.
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        change.grad = (problem.times(change) - problem.r) / problem.scale
        optimizer.step()
    return torch.where(problem.energy(change) < problem.energy(start), change, start)
