"""find_mask, solve, compare: check -> tile -> solve band by band -> certify -> untile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bands import Progress, check_workers, report_progress, run_bands
from .certify import relative_gap
from .errors import OptionError, SolverError
from .matrices import MatrixProblem, Proof, matrix_dtype
from .methods import METHODS, BlockSolver, MatrixSolver, Method, find_method
from .pattern import Degree, Pattern, as_integer, check_degree
from .residual import (
    block_objective,
    drop_wild_prices,
    dual_ascent,
    find_potentials,
    first_bad_line,
    still_proven,
    weak_bound,
)
from .scores import (
    LARGEST,
    as_real_array,
    nonfinite_error,
    safe_ldexp,
    scaled_ratio,
    scaled_sum,
    scaled_total,
    to_fixed_point,
)
from .solution import BlockSolution, Certificate, Comparison, MaskSolution, SolveStats
from .tiling import Band, Remainder, make_tiling

__all__ = ["compare", "find_mask", "solve"]

#: What is done with a band of integer blocks once it is solved: band, q, shift, solution, seconds.
_BandWork = Callable[
    [Band, NDArray[np.int64], NDArray[np.int64], BlockSolution, float],
    None,
]

# Matrices of fewer entries take less long to solve than to ask for; those of fewer blocks across fill
# half a group at best.
_TINY, _NARROW = 1 << 14, 8

# Blocks beyond this size may take long, so that bands of them stay small.
_LARGE_M = 32

#: What is done with a proven band: band, seconds to solve it, seconds to prove it.
_Record = Callable[[Band, float, float], None]


def _may_overlap(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays share memory, or it takes too long to tell."""
    effort: Any = 10_000  # NumPy's stubs know two special values only
    try:
        return bool(np.shares_memory(one, other, max_work=effort))
    except np.exceptions.TooHardError:
        return True


class _Start(NamedTuple):
    """An earlier answer to all blocks."""

    mask: NDArray[np.bool_]
    u: NDArray[np.int64]
    v: NDArray[np.int64]


class _Problem:
    """A checked call: what to solve, how, and where the mask goes."""

    def __init__(
        self,
        scores: Any,
        n: int,
        m: int,
        *,
        method: str | BlockSolver,
        backend: str | None,
        degree: Degree,
        absolute: bool,
        axes: tuple[int, int],
        remainder: Remainder,
        workers: int | None,
        progress: Progress,
        warm_start: MaskSolution | None = None,
        out: NDArray[np.bool_] | None = None,
    ) -> None:
        self.pattern = Pattern(n, m)
        self.degree = check_degree(degree)
        self.method = find_method(method, backend, self.pattern, self.degree)
        self.array = as_real_array(scores)
        self.absolute = bool(absolute)
        self.tiling = make_tiling(self.array.shape, self.pattern.m, axes=axes, remainder=remainder)
        self.workers = check_workers(workers)
        self.progress = progress
        self.solver = self.method.load()
        self.old = None if warm_start is None else self._old_answer(warm_start)
        self.mask = self._room_for_mask(out)

    def _room_for_mask(self, out: Any) -> NDArray[np.bool_]:
        """Return `out` if it can take the mask, or a new array."""
        if out is None:
            return np.empty_like(self.array, dtype=np.bool_, subok=False)
        shape = self.array.shape
        wanted = f"out must be a writeable bool array of shape {shape}, the shape of the scores"
        if not isinstance(out, np.ndarray):
            raise OptionError(f"{wanted}, got {type(out).__name__}")
        if out.dtype != np.bool_ or out.shape != shape or not out.flags.writeable:
            kind = "" if out.flags.writeable else "read-only "
            raise OptionError(f"{wanted}, got a {kind}{out.dtype} array of shape {out.shape}")
        if _may_overlap(out, self.array) or any(
            step == 0 and size > 1 for step, size in zip(out.strides, shape, strict=True)
        ):
            raise OptionError(
                f"{wanted}, with memory of its own for each entry, but it shares memory with the "
                f"scores or within itself"
            )
        return out.view(np.ndarray)

    def _old_answer(self, previous: MaskSolution) -> _Start | None:
        """Check an earlier solution and return it, if the method is to keep what it still proves."""
        if not isinstance(previous, MaskSolution):
            raise OptionError(
                f"warm_start must be a MaskSolution, as solve returns it, "
                f"got {type(previous).__name__}"
            )
        old = previous.certificate
        if not isinstance(old, Certificate):
            raise OptionError(
                f"warm_start must be a MaskSolution as solve returns it, but its certificate is "
                f"{type(old).__name__}"
            )
        for name, was, now in (
            ("pattern", old.pattern, self.pattern),
            ("degree", old.degree, self.degree),
            ("shape", old.shape, self.tiling.shape),
            ("axes", old.axes, self.tiling.axes),
        ):
            if was != now:
                raise OptionError(
                    f"warm_start is a solution for {name} {was}, but this call has {name} {now}"
                )
        shape = (*self.tiling.block_shape, self.pattern.m)
        u, v = (np.asarray(prices) for prices in (old.u, old.v))
        for name, found in (("u", u), ("v", v)):
            if found.dtype.kind != "i" or found.dtype.itemsize != 8 or found.shape != shape:
                raise OptionError(
                    f"warm_start must be a MaskSolution as solve returns it, but {name} of its "
                    f"certificate is {found.dtype} of shape {found.shape}, not int64 of shape {shape}"
                )
        mask: Any = previous.mask
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != old.shape:
            array = isinstance(mask, np.ndarray)
            kind = f"{mask.dtype} of shape {mask.shape}" if array else type(mask).__name__
            raise OptionError(
                f"warm_start must be a MaskSolution as solve returns it, but its mask is {kind}, "
                f"not a bool array of shape {old.shape}"
            )
        return _Start(mask, u, v) if self.method.exact else None

    def _copy_prices(
        self, old: _Start, band: Band, u: NDArray[np.int64], v: NDArray[np.int64]
    ) -> None:
        """Copy a band's old prices to u, v (blocks, m)."""
        for target, prices in ((u, old.u), (v, old.v)):
            whole = prices.reshape(*self.tiling.grid, self.pattern.m)
            target[...] = whole[band].reshape(target.shape)
        drop_wild_prices(u, v, self.pattern.n, LARGEST)

    def find(self) -> None:
        """Fill the mask: from raw matrices where the method and the dtype allow it."""
        matrix, solve = self._matrix_problem(), self.method.load_matrix_solver()
        if matrix is None or solve is None:
            self._run(lambda band: self._solve_band(band, lambda *_: None), self.method.band)
            return
        by_matrix: MatrixSolver = solve

        def one_band(band: Band) -> None:
            if self._is_as_blocks(band):
                self._solve_band(band, lambda *_: None)
                return
            for part in band.each_matrix():
                if not matrix.find(by_matrix, part):
                    raise nonfinite_error(self.array)

        # The fastest masks of fewer entries take less long than another thread takes to start.
        self._run(one_band, self._matrix_band(self.method.matrix_band // 4))

    def room(self) -> Proof:
        """Make room for the proof of all blocks."""
        grid, m = self.tiling.grid, self.pattern.m
        shapes = (*grid, m), (*grid, m), grid, grid, grid, grid
        return Proof(*(np.empty(shape, dtype=np.int64) for shape in shapes))

    def prove(self, room: Proof, record: _Record) -> None:
        """Fill the mask and the proof of every band, and have that recorded."""
        matrix, find = self._matrix_problem(), self.method.load_matrix_solver()

        def blockwise(band: Band) -> None:
            def proven(_: Band, *found: Any) -> None:
                proof, solving, proving = self._prove_blocks(*found)
                for target, part in zip(room, proof, strict=True):
                    target[band] = part.reshape(target[band].shape)
                record(band, solving, proving)

            self._solve_band(band, proven)

        # What a heuristic's mask is worth, dual ascent tells, and that takes blocks.
        if matrix is None or find is None or not self.method.exact:
            self._run(blockwise, self.method.band)
            return
        by_matrix: MatrixSolver = find
        with_prices, start = self.method.load_matrix_prover(), self.old
        old = None if start is None else start.mask

        def one_matrix(band: Band) -> None:
            part = Proof(*(whole[band][0] for whole in room))
            if start is not None:
                prices = (p.reshape(-1, self.pattern.m) for p in (part.u, part.v))
                self._copy_prices(start, band, *prices)
            if with_prices is None:
                seconds = matrix.find_and_prove(by_matrix, band, part, old=old)
            else:
                seconds = matrix.prove(with_prices, band, part, old=old)
            if seconds is None:
                raise nonfinite_error(self.array)
            record(band, *seconds)

        def one_band(band: Band) -> None:
            if self._is_as_blocks(band):
                blockwise(band)
                return
            for part in band.each_matrix():
                one_matrix(part)

        self._run(one_band, self._matrix_band(self.method.band))

    def _matrix_problem(self) -> MatrixProblem | None:
        """Return how to solve bands as they lie in memory, or None if they must become blocks."""
        dtype = matrix_dtype(self.array.dtype)
        if dtype is None or (self.degree == "at_most" and not self.absolute):
            return None
        return MatrixProblem(
            self.array, self.mask, self.tiling, self.pattern, self.degree, self.absolute, dtype
        )

    def _is_as_blocks(self, band: Band) -> bool:
        """Whether matrices of a band are sooner solved as blocks, all at once, than where they lie.

        So are many tiny ones, and narrow ones: engines take up to 16 blocks of one row at a time.
        """
        narrow = self.pattern.m > 4 and self.tiling.grid[2] < _NARROW
        return band.shape[0] > 1 and (narrow or math.prod(self.tiling.matrix_shape) < _TINY)

    def _matrix_band(self, least: int) -> int:
        # Small matrices go many to a band; a large one in a few bands a worker.
        if self.pattern.m > _LARGE_M:  # so that Ctrl-C does not wait for degenerate large blocks
            return self.method.band
        rows, columns = self.tiling.matrix_shape
        share = max(least, rows * columns // (4 * self.workers))
        return min(share, self.method.matrix_band)

    def _run(self, one_band: Callable[[Band], None], entries: int) -> None:
        with report_progress(
            self.progress, self.tiling.blocks, f"{self.method.label} {self.pattern}"
        ) as advance:

            def told(band: Band) -> None:
                one_band(band)
                advance(band.blocks)

            run_bands(self.tiling.bands(entries), told, workers=self.workers)

    def _solve_band(self, band: Band, work: _BandWork) -> None:
        scaled = to_fixed_point(self.tiling.gather(self.array, band), absolute=self.absolute)
        if scaled is None:
            raise nonfinite_error(self.array)
        q, shift = scaled
        start = time.perf_counter()
        solution = self._solve_blocks(q, band)
        seconds = time.perf_counter() - start
        self.tiling.scatter(solution.mask, band, self.mask)
        work(band, q, shift, solution, seconds)

    def _solve_blocks(self, q: NDArray[np.int64], band: Band) -> BlockSolution:
        """Solve a band of blocks; with an earlier answer, those that it does not prove any more."""
        if self.old is None:
            return self._solve_cold(q)
        n, degree = self.pattern.n, self.degree
        mask = self.tiling.gather(self.old.mask, band)
        u, v = (np.empty(q.shape[:2], dtype=np.int64) for _ in range(2))
        self._copy_prices(self.old, band, u, v)
        left = ~still_proven(q, mask, u, v, n, degree)
        if left.any():
            warm = self.method.load_warm_solver()
            changed = q[left]
            found = self._solve_cold(changed) if warm is None else warm(changed, n, degree, v[left])
            mask[left] = found.mask
            u[left], v[left] = self._potentials(changed, found)
        return BlockSolution(mask, u, v)

    def _solve_cold(self, q: NDArray[np.int64]) -> BlockSolution:
        if self.method.solver is None:
            return self.solver(q, self.pattern.n, self.degree)
        # A caller's own solver gets a copy to scribble on, and is not believed.
        answer = self.solver(q.copy(), self.pattern.n, self.degree)
        return _checked_solution(answer, q, self.method, self.pattern, self.degree)

    def _prove_blocks(
        self,
        q: NDArray[np.int64],
        shift: NDArray[np.int64],
        solution: BlockSolution,
        seconds: float,
    ) -> tuple[Proof, float, float]:
        """Prove a band of integer blocks: the proof, the seconds to solve it, and to prove it."""
        start, n = time.perf_counter(), self.pattern.n
        u, v = self._potentials(q, solution)
        objective, bound = block_objective(q, solution.mask), weak_bound(q, u, v, n)
        proof = Proof(u, v, shift, objective, bound, q.sum(axis=(1, 2)))
        return proof, seconds, time.perf_counter() - start

    def _potentials(
        self, q: NDArray[np.int64], solution: BlockSolution
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Potentials of blocks: the engine's own, else from the mask, else by dual ascent."""
        own, n = self.method.solver is not None, self.pattern.n
        if solution.u is not None and solution.v is not None:
            return solution.u, solution.v
        if not (self.method.exact or own):
            return dual_ascent(q, n, self.degree)
        u, v, optimal = find_potentials(q, solution.mask, n, self.degree)
        if own and not optimal.all():
            u[~optimal], v[~optimal] = dual_ascent(q[~optimal], n, self.degree)
        return u, v


def find_mask(
    scores: Any,
    n: int,
    m: int,
    *,
    method: str | BlockSolver = "auto",
    backend: str | None = None,
    degree: Degree = "exact",
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    workers: int | None = None,
    progress: Progress = False,
    out: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    r"""Find the transposable n:m mask that keeps the largest score.

    In every m×m block, independently,

    .. math::

        \max_x \; & \sum_{ij} s_{ij} x_{ij}, \quad x_{ij} \in \{0, 1\}, \\
        & \sum_j x_{ij} = n \;\forall i, \quad \sum_i x_{ij} = n \;\forall j

    (``<= n`` for ``degree="at_most"``), where s is ``abs(scores)``. The mask is n:m along
    rows and along columns, so it serves a matrix and its transpose alike.

    Parameters
    ----------
    scores : (..., R, C) array_like, real
        The weights. Any real dtype (bfloat16 included), memory order and byte order;
        read-only and memory-mapped arrays are fine. Not modified.
    n, m : int
        Entries **kept** of every m, ``0 <= n <= m``. Papers that count zeros write
        ``m - n`` for our n; see `Pattern.from_zeros`.
    method : str or callable
        ``"auto"`` (the fastest exact method for the pattern), ``"flow"``, ``"conv"``,
        ``"greedy"`` (see `masksolve.METHODS`), or your own block solver
        ``(blocks, n, degree) -> BlockSolution or bool array`` over int64 blocks (B, m, m).
    backend : str, optional
        Engine of the method, for example ``"ortools"``, ``"networkx"`` or ``"highs"``.
    degree : {"exact", "at_most"}
        Keep exactly n in every full row and column of a block, or no more than n.
    absolute : bool
        Maximise the kept magnitudes; with False, the scores as they stand, sign included.
    axes : (int, int)
        The two axes that form the matrix; all others are a batch. A convolution weight
        ``(C_out, C_in, kh, kw)`` takes ``axes=(0, 1)``.
    remainder : {"pad", "error"}
        A ragged edge is treated as if padded by zero scores, or refused.
    workers : int, optional
        Threads; by default the cores that this process may use. Does not change the mask.
    progress : bool or callable
        True shows a progress bar; a callable is told ``(blocks_done, blocks_in_all)``.
    out : bool array of the shape of `scores`, optional
        Where to write the mask, instead of a new array, whose pages take time to make. After an
        error what it holds is undefined.

    Returns
    -------
    bool array of the shape of `scores`
        True = kept; `out`, if given. The same array gives the same mask, for any `workers`.

    Raises
    ------
    PatternError, MethodError, OptionError, ShapeError, DtypeError, NonFiniteError
        Each names what was given and what was expected.

    See Also
    --------
    solve : The same with objective, certified bound and certificate.

    Notes
    -----
    Masks as min-cost flow: I. Hubara et al., *Accelerated Sparse Neural Training: A Provable
    and Efficient Method to Find N:M Transposable Masks*, NeurIPS 2021, section 4. Scores are
    scaled to 40-bit integers relative to each block's largest (see `masksolve.scores`), and
    that integer problem is solved exactly.

    Examples
    --------
    >>> W = np.array([[9.0, 1.0, 8.0, 2.0], [1.0, 9.0, 2.0, 8.0],
    ...               [8.0, 2.0, 1.0, 9.0], [2.0, 8.0, 9.0, 1.0]])
    >>> find_mask(W, n=2, m=4).astype(int)
    array([[1, 0, 1, 0],
           [0, 1, 0, 1],
           [1, 0, 0, 1],
           [0, 1, 1, 0]])
    """
    problem = _Problem(
        scores, n, m, method=method, backend=backend, degree=degree, absolute=absolute,
        axes=axes, remainder=remainder, workers=workers, progress=progress, out=out,
    )  # fmt: skip
    problem.find()
    return problem.mask if out is None else out


def solve(
    scores: Any,
    n: int,
    m: int,
    *,
    method: str | BlockSolver = "auto",
    backend: str | None = None,
    degree: Degree = "exact",
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    workers: int | None = None,
    progress: Progress = False,
    warm_start: MaskSolution | None = None,
) -> MaskSolution:
    """Find a mask as `find_mask` does, and prove how good it is.

    For an exact method the potentials close the gap to exactly 0. For a heuristic the bound
    comes from dual ascent, so its gap is an upper bound on the distance to the optimum.

    Parameters
    ----------
    scores, n, m, method, backend, degree, absolute, axes, remainder, workers, progress
        As in `find_mask`.
    warm_start : MaskSolution, optional
        An earlier solution for the same pattern, degree, axes and shape, of scores much like
        these. Exact methods keep its answer to each block that its potentials still prove, and
        solve the others, ``flow/native`` from those potentials. The result is exactly as
        optimal as without. Heuristics have no use for it. It pays where weights have moved by less
        than about a thousandth of their spread, for 1:4, 2:4 and 3:4 where most blocks have not
        moved at all; where few blocks are still proven, it takes longer than a cold start, and much
        longer from prices of quite other weights. Blocks on a ragged edge are solved anew with
        ``degree="exact"``: what they keep of the padding is not part of the mask.

    Returns
    -------
    MaskSolution
        ``mask``, ``objective``, ``bound``, ``gap``, ``certificate``, ``stats``.

    Raises
    ------
    SolverError
        An exact method's mask is not optimal, or your own solver's is not a mask: a defect
        of the solver. All errors of `find_mask` besides.

    Examples
    --------
    >>> W = np.random.default_rng(0).normal(size=(16, 16))
    >>> best = solve(W, n=4, m=8)
    >>> best.gap, best.optimal
    (0.0, True)
    >>> 0 <= solve(W, n=4, m=8, method="greedy").gap < 0.1
    True
    """
    problem = _Problem(
        scores, n, m, method=method, backend=backend, degree=degree, absolute=absolute,
        axes=axes, remainder=remainder, workers=workers, progress=progress,
        warm_start=warm_start,
    )  # fmt: skip
    return _solve(problem)


def _solve(problem: _Problem) -> MaskSolution:
    tiling, pattern, method = problem.tiling, problem.pattern, problem.method
    whole = problem.room()
    seconds = {"solve": 0.0, "certify": 0.0}

    def record(band: Band, solving: float, proving: float) -> None:
        short = whole.objective[band] != whole.bound[band]
        if method.exact and short.any():
            raise SolverError(
                f"{method.label} returned a mask that is not optimal in "
                f"{int(short.sum())} of {short.size} blocks; this is a defect of masksolve, "
                f"please report it"
            )
        seconds["solve"] += solving
        seconds["certify"] += proving

    problem.prove(whole, record)
    shape = tiling.block_shape
    objective, bound, shift = whole.objective, whole.bound, whole.shift
    kept, total = scaled_sum(objective, shift), scaled_sum(whole.total, shift)
    gap = relative_gap(objective, bound, shift)
    certificate = Certificate(
        pattern=pattern,
        degree=problem.degree,
        absolute=problem.absolute,
        axes=tiling.axes,
        shape=tiling.shape,
        u=whole.u.reshape(*shape, pattern.m),
        v=whole.v.reshape(*shape, pattern.m),
        shift=shift.reshape(shape),
        objective=objective.reshape(shape),
        bound=bound.reshape(shape),
    )
    return MaskSolution(
        mask=problem.mask,
        objective=safe_ldexp(*kept),
        bound=safe_ldexp(*kept) if gap == 0 else scaled_total(bound, shift),
        gap=gap,
        total=safe_ldexp(*total),
        kept_share=scaled_ratio(kept, total),
        certificate=certificate,
        stats=SolveStats(
            method=method.name,
            backend=method.backend,
            blocks=tiling.blocks,
            optimal_blocks=int(certificate.optimal_blocks.sum()),
            workers=problem.workers,
            solve_seconds=seconds["solve"],
            certify_seconds=seconds["certify"],
        ),
    )


def _checked_solution(
    answer: Any, q: NDArray[np.int64], method: Method, pattern: Pattern, degree: Degree
) -> BlockSolution:
    """Copy what a caller's solver returned into plain arrays, and check that it is a solution."""
    if not isinstance(answer, BlockSolution):
        answer = BlockSolution(answer)
    mask, u, v = (
        None if part is None else np.array(part) for part in (answer.mask, answer.u, answer.v)
    )
    if mask is None or mask.dtype != np.bool_ or mask.shape != q.shape:
        found = "None" if mask is None else f"dtype {mask.dtype} and shape {mask.shape}"
        raise SolverError(
            f"solver {method.name!r} must return a bool array of shape {q.shape}, got {found}"
        )
    bad = first_bad_line(mask, pattern.n, degree)
    if bad is not None:
        word = "exactly" if degree == "exact" else "at most"
        raise SolverError(
            f"solver {method.name!r} keeps {bad.kept} entries in {bad.line} {bad.at} of block "
            f"{bad.block} of its {len(q)}, but {pattern} keeps {word} {pattern.n}"
        )
    for name, prices in (("u", u), ("v", v)):
        if prices is not None and (
            prices.dtype != np.int64
            or prices.shape != q.shape[:2]
            or (degree == "at_most" and prices.min(initial=0) < 0)
        ):
            raise SolverError(
                f"solver {method.name!r} must return potentials {name} as int64 of shape "
                f"{q.shape[:2]}, not negative for at_most, or None"
            )
    return BlockSolution(mask, u, v)


def compare(
    scores: Any,
    n: int,
    m: int,
    *,
    methods: Iterable[str | BlockSolver] | None = None,
    degree: Degree = "exact",
    absolute: bool = True,
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
    sample: int | None = None,
    name: str = "",
    workers: int | None = None,
    progress: Progress = False,
) -> list[Comparison]:
    """Run several methods on the same scores and list what each keeps and takes.

    Parameters
    ----------
    scores, n, m, degree, absolute, axes, remainder, workers, progress
        As in `find_mask`.
    methods : iterable of str or callable, optional
        ``"method"``, ``"method/backend"``, or your own block solvers. By default every row
        of `masksolve.METHODS` that does this pattern and degree.
    sample : int, optional
        Compare on this many blocks, evenly spaced, instead of on all; for slow engines.
    name : str
        What the scores are, noted in the records: rows of several matrices, patterns and
        degrees can then be put together, as `masksolve.plot.plot_losses` draws them.

    Returns
    -------
    list of Comparison
        One record a method, in the order asked for. Each is measured against the best bound
        that any of them certified.

    Examples
    --------
    >>> W = np.random.default_rng(0).normal(size=(32, 32))
    >>> for row in compare(W, n=2, m=4, methods=["conv", "flow/networkx", "greedy"]):
    ...     print(f"{row.label:14} {row.gap < 1e-12} {row.optimal_blocks == row.blocks}")
    conv/native    True True
    flow/networkx  True True
    greedy/native  False False
    """
    pattern, degree = Pattern(n, m), check_degree(degree)
    n, m = pattern.n, pattern.m
    if not isinstance(name, str):
        raise OptionError(f"name must be a text that says what the scores are, got {name!r}")
    if methods is None:
        methods = [r.label for r in METHODS if r.why_not(pattern, degree) is None]
    elif isinstance(methods, str) or callable(methods) or not isinstance(methods, Iterable):
        methods = [methods]
    array = as_real_array(scores)
    if sample is not None:
        array = _sample_blocks(array, m, sample, axes, remainder)
        axes = (-2, -1)
    asked = list(methods)
    problems, solutions, seconds = [], [], []
    for entry in asked:
        method, _, backend = entry.partition("/") if isinstance(entry, str) else (entry, "", "")
        options: dict[str, Any] = {
            "method": method, "backend": backend or None, "degree": degree, "absolute": absolute,
            "remainder": remainder, "workers": workers,
        }  # fmt: skip
        problems.append(_Problem(array, n, m, axes=axes, progress=progress, **options))
        # Compile and import before the clock runs: one matrix of the same kind is enough, and
        # two for a batch, whose small matrices are solved together.
        for shape in ((m, m), (2, m, m))[: array.ndim - 1]:
            few = np.zeros(shape, dtype=array.dtype)
            small = _Problem(few, n, m, axes=(-2, -1), progress=False, **options)
            small.prove(small.room(), lambda *_: None)
    for problem in problems:
        start = time.perf_counter()
        solution = _solve(problem)
        wall = time.perf_counter() - start
        spent = solution.stats
        share = spent.solve_seconds / max(spent.solve_seconds + spent.certify_seconds, 1e-12)
        solutions.append(solution)
        seconds.append(wall * share)
    return _rank(problems, solutions, seconds, name)


def _rank(
    problems: list[_Problem], solutions: list[MaskSolution], seconds: list[float], name: str
) -> list[Comparison]:
    if not solutions:
        return []
    bound = np.minimum.reduce([s.certificate.bound for s in solutions])
    shift = solutions[0].certificate.shift
    return [
        Comparison(
            method=problem.method.name,
            backend=problem.method.backend,
            exact=problem.method.exact,
            objective=solution.objective,
            bound=scaled_total(bound, shift),
            gap=relative_gap(solution.certificate.objective, bound, shift),
            total=solution.total,
            kept_share=solution.kept_share,
            optimal_blocks=int((solution.certificate.objective == bound).sum()),
            blocks=solution.stats.blocks,
            seconds=spent,
            pattern=problem.pattern,
            degree=problem.degree,
            name=name,
        )
        for problem, solution, spent in zip(problems, solutions, seconds, strict=True)
    ]


def _sample_blocks(
    array: NDArray[Any], m: int, sample: int, axes: tuple[int, int], remainder: Remainder
) -> NDArray[Any]:
    """Return `sample` evenly spaced blocks as a batch (sample, m, m)."""
    size = as_integer(sample)
    if size is None or size < 1:
        raise OptionError(f"sample must be a positive number of blocks or None, got {sample!r}")
    tiling = make_tiling(array.shape, m, axes=axes, remainder=remainder)
    count = min(size, tiling.blocks)
    chosen = np.linspace(0, max(tiling.blocks - 1, 0), count).round().astype(int)
    blocks = np.empty((count, m, m), dtype=array.dtype)
    for block, index in zip(blocks, chosen, strict=True):
        place = np.unravel_index(index, tiling.grid)
        band = Band(*(slice(int(i), int(i) + 1) for i in place))
        block[...] = tiling.gather(array, band)[0]
    return blocks
