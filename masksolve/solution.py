"""What a solve returns: frozen records, no behaviour beyond reading them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pattern import Degree, Pattern

__all__ = [
    "BlockSolution",
    "Certificate",
    "Comparison",
    "ImprovingCycle",
    "MaskSolution",
    "SolveStats",
]


@dataclass(frozen=True, eq=False)
class BlockSolution:
    """What a block solver returns for integer blocks ``(B, m, m)``.

    Parameters
    ----------
    mask : (B, m, m) bool
        True = kept.
    u, v : (B, m) int64 or None
        Row and column potentials, if the engine has them at no extra cost.
    """

    mask: NDArray[np.bool_]
    u: NDArray[np.int64] | None = None
    v: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ImprovingCycle:
    """Why a mask is not optimal: an exchange along a cycle of the residual graph.

    Parameters
    ----------
    block : tuple of int
        Where: index of the block, ``(*batch, block_row, block_column)``.
    add, remove : tuple of (int, int)
        Entries to keep and to drop, as (row, column) within the block. Entries that lie
        in the zero padding of a ragged edge are left out.
    gain : float
        What the exchange adds to the kept score.
    """

    block: tuple[int, ...]
    add: tuple[tuple[int, int], ...]
    remove: tuple[tuple[int, int], ...]
    gain: float


@dataclass(frozen=True, eq=False)
class Certificate:
    r"""Potentials with the bound that they prove; see `masksolve.check_certificate`.

    For any mask of the degree constraint, and any potentials u, v of a block,

    .. math::

        \sum_{ij} q_{ij} x_{ij} \le \; & n \sum_i (u_i + v_i) \\
        & + \sum_{ij} \max(0, q_{ij} - u_i - v_j)

    (weak duality; for ``at_most``, u and v must not be negative). The fixed-point scores
    are ``q = rint(s * 2**shift)``. All arithmetic is on integers, so equality means that
    the mask is optimal, exactly.

    Parameters
    ----------
    pattern, degree
        The problem that was solved.
    absolute : bool
        Whether the scores are the magnitudes of the array.
    axes : (int, int)
        The two axes of the array that form the matrix.
    shape : tuple of int
        Shape of the array.
    u, v : (..., block_rows, block_columns, m) int64
        Row and column potentials of every block, in units of ``2**-shift``.
    shift : (..., block_rows, block_columns) int64
        Fixed-point shift of every block.
    objective, bound : (..., block_rows, block_columns) int64
        Kept score and its certified upper bound, in units of ``2**-shift``.
    cycle : ImprovingCycle or None
        For a mask that `masksolve.certify_mask` finds not optimal: the first improving exchange.
        It is an illustration; the proof is in the potentials.
    """

    pattern: Pattern
    degree: Degree
    absolute: bool
    axes: tuple[int, int]
    shape: tuple[int, ...]
    u: NDArray[np.int64]
    v: NDArray[np.int64]
    shift: NDArray[np.int64]
    objective: NDArray[np.int64]
    bound: NDArray[np.int64]
    cycle: ImprovingCycle | None = None

    @property
    def optimal_blocks(self) -> NDArray[np.bool_]:
        """Which blocks are proven optimal, shape ``(*batch, block_rows, block_columns)``."""
        return np.equal(self.objective, self.bound)

    @property
    def optimal(self) -> bool:
        """Whether every block is proven optimal."""
        return bool(self.optimal_blocks.all())

    @property
    def block_scores(self) -> NDArray[np.float64]:
        """Kept score of every block, ``objective * 2**-shift``, shape as `shift`."""
        return _unscaled(self.objective, self.shift)

    @property
    def block_bounds(self) -> NDArray[np.float64]:
        """Certified bound of every block, ``bound * 2**-shift``, shape as `shift`."""
        return _unscaled(self.bound, self.shift)

    def __str__(self) -> str:
        proven, total = int(self.optimal_blocks.sum()), self.shift.size
        if proven == total:
            return f"optimal {self.pattern} mask ({self.degree}), proven for all {total} blocks"
        text = f"{self.pattern} mask ({self.degree}), proven optimal in {proven} of {total} blocks"
        if self.cycle is not None:
            text += (
                f"; in block {self.cycle.block}, keeping {list(self.cycle.add)} instead of "
                f"{list(self.cycle.remove)} gains {self.cycle.gain:.6g}"
            )
        return text


def _unscaled(values: NDArray[np.int64], shift: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", under="ignore"):  # infinite where no double holds it
        return np.ldexp(values.astype(np.float64), -shift)


@dataclass(frozen=True)
class SolveStats:
    """How an answer was found.

    Parameters
    ----------
    method, backend : str
        What ran; a caller's own solver is named by its ``__name__``.
    blocks, optimal_blocks : int
        Blocks solved, and blocks proven optimal.
    workers : int
        Threads used.
    solve_seconds, certify_seconds : float
        Wall time of the block solver and of the proof, summed over the threads.
    """

    method: str
    backend: str
    blocks: int
    optimal_blocks: int
    workers: int
    solve_seconds: float
    certify_seconds: float


@dataclass(frozen=True, eq=False)
class MaskSolution:
    """A mask, what it keeps, and the proof of how good that is.

    Parameters
    ----------
    mask : bool array of the shape of the scores
        True = kept.
    objective : float
        Kept score: the sum of the (fixed-point) scores where the mask is True.
    bound : float
        Certified upper bound on the kept score of any mask.
    gap : float
        ``(bound - objective) / abs(bound)``, formed from the integers; exactly 0 if and only
        if every block is proven optimal.
    total : float
        Sum of all scores.
    kept_share : float
        ``objective / total``, formed from the integers; NaN if the total is not positive.
    certificate : Certificate
        The potentials behind the bound.
    stats : SolveStats
        Method, blocks, time.
    """

    mask: NDArray[np.bool_] = field(repr=False)
    objective: float
    bound: float
    gap: float
    total: float
    kept_share: float
    certificate: Certificate = field(repr=False)
    stats: SolveStats

    @property
    def optimal(self) -> bool:
        """Whether every block is proven optimal."""
        return self.certificate.optimal


@dataclass(frozen=True)
class Comparison:
    """One method's line in a comparison.

    Parameters
    ----------
    method, backend : str
        What ran.
    exact : bool
        Whether the method promises an optimal mask.
    objective, bound : float
        Kept score, and the best upper bound that any of the compared methods certified.
    gap : float
        ``(bound - objective) / abs(bound)``: with an exact method among those compared, the
        distance to the optimum.
    total : float
        Sum of all scores.
    kept_share : float
        Kept score as a share of that sum; NaN if the sum is not positive.
    optimal_blocks, blocks : int
        Blocks whose kept score equals the best certified bound, of all blocks.
    seconds : float
        Wall time of finding the mask, without the proof.
    pattern, degree
        The problem that was solved.
    name : str
        What the scores are, as `masksolve.compare` was told.
    """

    method: str
    backend: str
    exact: bool
    objective: float
    bound: float
    gap: float
    total: float
    kept_share: float
    optimal_blocks: int
    blocks: int
    seconds: float
    pattern: Pattern
    degree: Degree
    name: str = ""

    @property
    def label(self) -> str:
        """What ran, ``"method/backend"``; without the stroke for a caller's own solver."""
        return f"{self.method}/{self.backend}".rstrip("/")

    @property
    def seconds_per_block(self) -> float:
        """Wall time of finding the mask of one block; NaN if there is none."""
        return self.seconds / self.blocks if self.blocks else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for a data frame or JSON; the pattern as ``"n:m"``."""
        return {**self.__dict__, "pattern": str(self.pattern)}
