"""Bands of one raw matrix, solved and measured as they lie in memory: no integer blocks in between."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import SolverError
from .methods import MatrixProver, MatrixSolver
from .pattern import Degree, Pattern
from .residual import bound_fits
from .scores import LARGEST
from .solvers.widening import widened
from .tiling import Band, Tiling

__all__ = ["MatrixProblem", "OldPrices", "Proof", "matrix_dtype", "rescaled"]

Prices = NDArray[np.int64]
Shifts = NDArray[np.int64]

# Of prices beyond, none prove anything: scores are at most 2**40.
_HIGHEST = 2.0**50
# A sample of blocks tells whether old prices prove enough for a look at all of them to pay.
_WORTH = 0.8


def matrix_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype in which a matrix solver takes scores of `dtype` without error, if any."""
    if dtype.kind in "biu" or dtype == np.longdouble:
        return None
    if dtype == np.float16 or dtype.name == "bfloat16":
        return dtype.newbyteorder("=")
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


def rescaled(prices: Prices, shift: NDArray[np.int64]) -> Prices:
    """Prices times ``2**shift``, a block at a time: a start, so neither exact nor too large."""
    with np.errstate(over="ignore"):
        scaled = np.ldexp(prices.astype(np.float64), np.clip(shift, -100, 100)[..., None])
    return np.clip(np.rint(scaled), -_HIGHEST, _HIGHEST).astype(np.int64)


class Proof(NamedTuple):
    """Prices (..., m) of a band's blocks and what they prove (...)."""

    u: Prices
    v: Prices
    shift: NDArray[np.int64]
    objective: NDArray[np.int64]
    bound: NDArray[np.int64]
    total: NDArray[np.int64]


class OldPrices(NamedTuple):
    """Prices (rows, columns, m) and shifts (rows, columns) of an earlier proof of a band."""

    u: Prices
    v: Prices
    shift: Shifts


class MatrixProblem:
    """What is the same for all bands of a call."""

    def __init__(
        self,
        array: NDArray[Any],
        mask: NDArray[np.bool_],
        tiling: Tiling,
        pattern: Pattern,
        degree: Degree,
        absolute: bool,
        dtype: np.dtype[Any],
    ) -> None:
        self.array, self.mask, self.tiling = array, mask, tiling
        self.pattern, self.degree, self.absolute, self.dtype = pattern, degree, absolute, dtype

    def find(self, solve: MatrixSolver, band: Band) -> bool:
        """Fill a band of the mask; False if a score is not finite."""
        scores, target = self._scores(band), self._target(band)
        if not solve(scores, self.pattern, self.degree, self.absolute, target):
            return False
        self._store(target, band)
        return True

    def worth_reading(self, old: OldPrices, band: Band) -> bool:
        """Whether old prices still prove so much of a band that looking at all of them pays."""
        scores = widened(self._scores(band))
        proven = np.zeros(old.shift.shape, dtype=np.bool_)
        mask = np.empty(scores.shape, dtype=np.bool_)
        _Proving(self, scores, mask).read(old, proven)
        return bool(proven.mean() > _WORTH)

    def prove(
        self, solve: MatrixProver, band: Band, old: OldPrices | None, *, read: bool
    ) -> tuple[Proof, float, float] | None:
        """Fill a band of the mask and prove it; None if a score is not finite.

        `old`: where to start. With `read`, blocks whose old prices still prove a mask are done
        with it. Returns the proof, and the seconds that solving and proving took.
        """
        job = self._proving(band)
        if old is None:
            proof = job.solve(solve)
        else:
            proof = job.solve_rest(solve, old) if read else job.solve(solve, old.v)
        return self._proven(job, proof, band)

    def find_and_prove(self, solve: MatrixSolver, band: Band) -> tuple[Proof, float, float] | None:
        """Do as `prove` does, for an exact solver that knows no prices."""
        job = self._proving(band)
        return self._proven(job, job.find(solve), band)

    def _proving(self, band: Band) -> _Proving:
        return _Proving(self, widened(self._scores(band)), self._target(band))

    def _proven(
        self, job: _Proving, proof: Proof | None, band: Band
    ) -> tuple[Proof, float, float] | None:
        if proof is None:
            return None
        self._store(job.mask, band)
        return proof, job.solving, job.proving

    def _scores(self, band: Band) -> NDArray[Any]:
        """Return a band of the matrix as it lies in memory, or a padded copy."""
        (scores,) = self.tiling.views(self.array, band)
        shape = self._shape(band)
        if scores.shape != shape or scores.dtype != self.dtype or not scores.flags.c_contiguous:
            padded = np.zeros(shape, dtype=self.dtype)
            padded[: scores.shape[0], : scores.shape[1]] = scores
            return padded
        return scores

    def _target(self, band: Band) -> NDArray[np.bool_]:
        """Return where the band's mask is to be written: in place if it can be."""
        (mask,) = self.tiling.views(self.mask, band)
        direct = mask.shape == self._shape(band) and mask.flags.c_contiguous
        return mask if direct else np.empty(self._shape(band), dtype=np.bool_)

    def _store(self, target: NDArray[np.bool_], band: Band) -> None:
        (mask,) = self.tiling.views(self.mask, band)
        if not np.shares_memory(mask, target):
            mask[...] = target[: mask.shape[0], : mask.shape[1]]

    def _shape(self, band: Band) -> tuple[int, int]:
        return band.shape[1] * self.pattern.m, band.shape[2] * self.pattern.m


class _Proving:
    """One band on its way to a proof. Of its steps each returns None if a score is not finite."""

    def __init__(
        self, problem: MatrixProblem, scores: NDArray[Any], mask: NDArray[np.bool_]
    ) -> None:
        self.problem, self.scores, self.mask = problem, scores, mask
        m = problem.pattern.m
        self.grid = scores.shape[0] // m, scores.shape[1] // m
        self.solving = self.proving = 0.0

    def solve(self, solver: MatrixProver, start: Prices | None = None) -> Proof | None:
        """Solve all blocks, from column prices `start` if given, and measure the answer."""
        begin, pattern = time.perf_counter(), self.problem.pattern
        u, v = (np.empty((*self.grid, pattern.m), dtype=np.int64) for _ in range(2))
        if start is not None:
            v[...] = start
        finite = solver(
            self.scores,
            pattern,
            self.problem.degree,
            self.problem.absolute,
            self.mask,
            u.reshape(-1, pattern.m),
            v.reshape(-1, pattern.m),
            start is not None,
        )
        self.solving += time.perf_counter() - begin
        return self._measure(u, v, None) if finite else None

    def find(self, solver: MatrixSolver) -> Proof | None:
        """Solve all blocks, then find potentials of their masks, and measure both."""
        from .solvers.proving import potentials

        begin, problem = time.perf_counter(), self.problem
        how = problem.pattern, problem.degree, problem.absolute, self.mask
        finite = solver(self.scores, *how)
        found = time.perf_counter()
        self.solving += found - begin
        if not finite:
            return None
        u, v = potentials(self.scores, *how)
        self.proving += time.perf_counter() - found
        return self._measure(u, v, None)

    def solve_rest(self, solver: MatrixProver, old: OldPrices) -> Proof | None:
        """Read off the old prices what they prove; solve the other blocks, side by side."""
        m = self.problem.pattern.m
        proven = np.zeros(self.grid, dtype=np.bool_)
        proof = self.read(old, proven)
        left = ~proven
        if proof is None or not left.any():
            return proof
        scores, mask = (_as_blocks(matrix, m) for matrix in (self.scores, self.mask))
        rest = np.ascontiguousarray(scores[left].swapaxes(0, 1)).reshape(m, -1)
        job = _Proving(self.problem, rest, np.empty(rest.shape, dtype=np.bool_))
        solved = job.solve(solver, rescaled(old.v, proof.shift - old.shift)[left])
        if solved is None:
            return None
        mask[left] = _as_blocks(job.mask, m)[0]
        for whole, part in zip(proof, solved, strict=True):
            whole[left] = part[0]
        self.solving += job.solving
        self.proving += job.proving
        return proof

    def read(self, old: OldPrices, proven: NDArray[np.bool_]) -> Proof | None:
        """Write the mask that old prices select, and which blocks of it they prove."""
        if not bound_fits(old.u, old.v, self.problem.pattern.n, LARGEST):
            old = OldPrices(np.zeros_like(old.u), np.zeros_like(old.v), old.shift)
        proof = self._measure(old.u, old.v, proven)
        if proof is not None:  # where the scale has moved, prices were read in a wrong unit
            proven &= proof.shift == old.shift
        return proof

    def _measure(self, u: Prices, v: Prices, proven: NDArray[np.bool_] | None) -> Proof | None:
        """Measure mask and prices; with `proven` the mask is written: what the prices select."""
        from .solvers.proving import measure

        problem = self.problem
        if not bound_fits(u, v, problem.pattern.n, LARGEST):
            raise SolverError("the potentials are too large for their bound to fit an int64")
        begin = time.perf_counter()
        how = problem.pattern, problem.degree, problem.absolute, self.mask
        measured = measure(self.scores, *how, u, v, select=proven is not None)
        self.proving += time.perf_counter() - begin
        if measured is None:
            return None
        *numbers, sound = measured
        proof = Proof(u, v, *numbers)
        if proven is not None:
            proven[...] = sound
            return proof
        wrong = int((~sound & (proof.objective == proof.bound)).sum())
        if wrong:  # else the caller, who knows the method, sees the gap
            raise SolverError(
                f"the solver kept other than {problem.pattern} ({problem.degree}) in {wrong} "
                f"blocks; this is a defect of masksolve, please report it"
            )
        return proof


def _as_blocks(matrix: NDArray[Any], m: int) -> NDArray[Any]:
    """View a matrix of whole blocks as (rows, columns, m, m)."""
    rows, columns = matrix.shape
    return matrix.reshape(rows // m, m, columns // m, m).swapaxes(1, 2)
