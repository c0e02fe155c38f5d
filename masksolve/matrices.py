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

__all__ = ["MatrixProblem", "Proof", "Start", "matrix_dtype"]

Prices = NDArray[np.int64]


def matrix_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype in which a matrix solver takes scores of `dtype` without error, if any."""
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize > 8):
        return None
    if dtype == np.float16 or dtype.name == "bfloat16":
        return dtype.newbyteorder("=")
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


class Proof(NamedTuple):
    """Prices (..., m) of a band's blocks and what they prove (...)."""

    u: Prices
    v: Prices
    shift: NDArray[np.int64]
    objective: NDArray[np.int64]
    bound: NDArray[np.int64]
    total: NDArray[np.int64]


class Start(NamedTuple):
    """An earlier answer to a band: its part of the mask, and the prices (rows, columns, m)."""

    mask: NDArray[np.bool_]
    u: Prices
    v: Prices


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

    def prove(
        self, solve: MatrixProver, band: Band, start: Start | None
    ) -> tuple[Proof, float, float] | None:
        """Fill a band of the mask and prove it; None if a score is not finite.

        What an earlier answer, `start`, still proves is kept. Returns the proof, and the seconds that
        solving and proving took.
        """
        job = self._proving(band)
        proof = job.solve(solve) if start is None else job.resume(solve, start)
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

    def resume(self, solver: MatrixProver, start: Start) -> Proof | None:
        """Keep what an earlier answer still proves, and solve the other blocks from its prices.

        Of few blocks a matrix is made; with many, the others are solved too, and then put back.
        """
        rows, columns = start.mask.shape
        self.mask[...] = False
        self.mask[:rows, :columns] = start.mask
        measured = self._measure(start.u, start.v)
        if measured is None:
            return None
        proof, sound = measured
        left, masks = ~sound, self._blocks(self.mask)
        many = np.count_nonzero(left)
        if many > left.size // 2:
            kept = [part[sound] for part in (masks, *proof)]
            answer = self.solve(solver, (proof.u, proof.v))
            if answer is not None:
                for target, part in zip((masks, *answer), kept, strict=True):
                    target[sound] = part
            return answer
        if many:
            m = self.problem.pattern.m
            scores = self._blocks(self.scores)[left].swapaxes(0, 1).reshape(m, -1)
            job = _Proving(self.problem, scores, np.empty(scores.shape, dtype=np.bool_))
            answer = job.solve(solver, (proof.u[left][np.newaxis], proof.v[left][np.newaxis]))
            self.solving, self.proving = self.solving + job.solving, self.proving + job.proving
            if answer is None:
                return None
            for target, part in zip((masks, *proof), (job._blocks(job.mask), *answer), strict=True):
                target[left] = part[0]
        return proof

    def _blocks(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """View a matrix of the band as blocks (rows, columns, m, m)."""
        (rows, columns), m = self.grid, self.problem.pattern.m
        return matrix.reshape(rows, m, columns, m).swapaxes(1, 2)

    def solve(
        self, solver: MatrixProver, prices: tuple[Prices, Prices] | None = None
    ) -> Proof | None:
        """Solve all blocks, from prices if given, and prove the answer."""
        begin, problem = time.perf_counter(), self.problem
        m = problem.pattern.m
        u, v = prices or np.empty((2, *self.grid, m), dtype=np.int64)
        how = problem.pattern, problem.degree, problem.absolute, self.mask
        flat = u.reshape(-1, m), v.reshape(-1, m)
        finite = solver(self.scores, *how, *flat, prices is not None)
        self.solving += time.perf_counter() - begin
        return self._proof(u, v) if finite else None

    def find(self, solver: MatrixSolver) -> Proof | None:
        """Solve all blocks, then find potentials of their masks, which prove them."""
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
        return self._proof(u, v)

    def _proof(self, u: Prices, v: Prices) -> Proof | None:
        """Measure what a solver answered: that it has kept to the pattern, not that its mask is the best."""
        problem = self.problem
        if not bound_fits(u, v, problem.pattern.n, LARGEST):
            raise SolverError(
                "the solver's potentials are too large for their bound to fit an int64; this is a "
                "defect of masksolve, please report it"
            )
        measured = self._measure(u, v)
        if measured is None:
            return None
        proof, sound = measured
        wrong = int((~sound & (proof.objective == proof.bound)).sum())
        if wrong:  # else the caller, who knows the method, sees the gap
            raise SolverError(
                f"the solver kept other than {problem.pattern} ({problem.degree}) in {wrong} "
                f"blocks; this is a defect of masksolve, please report it"
            )
        return proof

    def _measure(self, u: Prices, v: Prices) -> tuple[Proof, NDArray[np.bool_]] | None:
        """Measure mask and prices, and tell of which blocks they are a proof."""
        from .solvers.proving import measure

        begin, problem = time.perf_counter(), self.problem
        how = problem.pattern, problem.degree, problem.absolute, self.mask
        measured = measure(self.scores, *how, u, v)
        self.proving += time.perf_counter() - begin
        if measured is None:
            return None
        *numbers, sound = measured
        return Proof(u, v, *numbers), sound
