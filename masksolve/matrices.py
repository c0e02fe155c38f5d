"""Bands of one raw matrix, solved and measured as they lie in memory: no integer blocks in between."""

from __future__ import annotations

import time
from collections.abc import Callable
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

__all__ = ["MatrixProblem", "Proof", "matrix_dtype"]

Prices = NDArray[np.int64]


def matrix_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype in which a matrix solver takes scores of `dtype` without error, if any."""
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize > 8):
        return None
    if dtype == np.float16 or dtype.name == "bfloat16":
        return dtype.newbyteorder("=")
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


#: What fills in the mask and the proof of a band; False if a score is not finite.
_Answer = Callable[["_Proving"], bool]


class Proof(NamedTuple):
    """Prices (..., m) of blocks and what they prove (...): those of a band, or room for them."""

    u: Prices
    v: Prices
    shift: NDArray[np.int64]
    objective: NDArray[np.int64]
    bound: NDArray[np.int64]
    total: NDArray[np.int64]


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
        self,
        solve: MatrixProver,
        band: Band,
        room: Proof,
        *,
        old: NDArray[np.bool_] | None = None,
    ) -> tuple[float, float] | None:
        """Fill a band of the mask and its proof; None if a score is not finite.

        `room`: (rows, columns) and (rows, columns, m). With an `old` array of masks, the prices in
        there are those of an earlier answer: what they still prove is kept, the rest begins with
        them. Returns the seconds that solving and proving took.
        """
        return self._prove(lambda job: job.solve(solve, warm=old is not None), band, room, old)

    def find_and_prove(
        self,
        solve: MatrixSolver,
        band: Band,
        room: Proof,
        *,
        old: NDArray[np.bool_] | None = None,
    ) -> tuple[float, float] | None:
        """Do as `prove` does, for an exact solver that knows no prices."""
        return self._prove(lambda job: job.find(solve), band, room, old)

    def _prove(
        self, answer: _Answer, band: Band, room: Proof, old: NDArray[np.bool_] | None
    ) -> tuple[float, float] | None:
        job = _Proving(self, widened(self._scores(band)), self._target(band), room)
        if old is None:
            finite = answer(job)
        else:
            (mask,) = self.tiling.views(old, band)
            finite = job.resume(answer, self._matrix(mask, old.dtype, band))
        if not finite:
            return None
        self._store(job.mask, band)
        return job.solving, job.proving

    def _scores(self, band: Band) -> NDArray[Any]:
        (scores,) = self.tiling.views(self.array, band)
        return self._matrix(scores, self.dtype, band)

    def _matrix(self, part: NDArray[Any], dtype: np.dtype[Any], band: Band) -> NDArray[Any]:
        """Return a band of a matrix as it lies in memory, or a padded copy."""
        shape = self._shape(band)
        if part.shape != shape or part.dtype != dtype or not part.flags.c_contiguous:
            padded = np.zeros(shape, dtype=dtype)
            padded[: part.shape[0], : part.shape[1]] = part
            return padded
        return part

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
    """One band on its way to a proof. Its steps return False if a score is not finite."""

    def __init__(
        self, problem: MatrixProblem, scores: NDArray[Any], mask: NDArray[np.bool_], room: Proof
    ) -> None:
        self.problem, self.scores, self.mask, self.room = problem, scores, mask, room
        self.how = problem.pattern, problem.degree, problem.absolute
        self.solving = self.proving = 0.0

    def resume(self, answer: _Answer, old: NDArray[np.bool_]) -> bool:
        """Keep what an old mask and its prices still prove, and have the other blocks answered.

        Of few blocks a matrix is made; with many, the others are answered too, and then put back.
        """
        sound = self._measure(old)
        if sound is None:
            return False
        left, masks, room = ~sound, self._blocks(self.mask), self.room
        many = np.count_nonzero(left)
        if many > left.size // 2:
            kept = [part[sound] for part in (self._blocks(old), *room)]
            finite = answer(self)
            for target, part in zip((masks, *room), kept, strict=True):
                target[sound] = part
            return finite
        self.mask[...] = old
        if many == 0:
            return True
        scores = self._blocks(self.scores)[left].swapaxes(0, 1).reshape(self.how[0].m, -1)
        rest = Proof(*(part[left][np.newaxis] for part in room))
        job = _Proving(self.problem, scores, np.empty(scores.shape, dtype=np.bool_), rest)
        finite = answer(job)
        self.solving, self.proving = self.solving + job.solving, self.proving + job.proving
        for target, part in zip((masks, *room), (job._blocks(job.mask), *rest), strict=True):
            target[left] = part[0]
        return finite

    def _blocks(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """View a matrix of the band as blocks (rows, columns, m, m)."""
        (rows, columns), m = self.room.shift.shape, self.how[0].m
        return matrix.reshape(rows, m, columns, m).swapaxes(1, 2)

    def solve(self, solver: MatrixProver, *, warm: bool = False) -> bool:
        """Solve all blocks, from the prices there if `warm`, and prove the answer."""
        begin, m = time.perf_counter(), self.how[0].m
        prices = self.room.u.reshape(-1, m), self.room.v.reshape(-1, m)
        finite = solver(self.scores, *self.how, self.mask, *prices, warm)
        self.solving += time.perf_counter() - begin
        return finite and self._prove()

    def find(self, solver: MatrixSolver) -> bool:
        """Solve all blocks, then find potentials of their masks, which prove them."""
        from .solvers.proving import potentials

        begin = time.perf_counter()
        finite = solver(self.scores, *self.how, self.mask)
        found = time.perf_counter()
        self.solving += found - begin
        if not finite:
            return False
        potentials(self.scores, *self.how, self.mask, self.room.u, self.room.v)
        self.proving += time.perf_counter() - found
        return self._prove()

    def _prove(self) -> bool:
        """Measure what a solver answered: that it has kept to the pattern, not that its mask is the best."""
        room, (pattern, degree, _) = self.room, self.how
        if not bound_fits(room.u, room.v, pattern.n, LARGEST):
            raise SolverError(
                "the solver's potentials are too large for their bound to fit an int64; this is a "
                "defect of masksolve, please report it"
            )
        sound = self._measure(self.mask)
        if sound is None:
            return False
        wrong = int((~sound & (room.objective == room.bound)).sum())
        if wrong:  # else the caller, who knows the method, sees the gap
            raise SolverError(
                f"the solver kept other than {pattern} ({degree}) in {wrong} "
                f"blocks; this is a defect of masksolve, please report it"
            )
        return True

    def _measure(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Measure a mask with the prices there, and tell of which blocks they are a proof."""
        from .solvers.proving import measure

        begin = time.perf_counter()
        sound = measure(self.scores, *self.how, mask, *self.room)
        self.proving += time.perf_counter() - begin
        return sound
