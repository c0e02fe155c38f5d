"""What is measured: the cases, their matrices, and the contestants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import masksolve as ms
from masksolve.methods import METHODS, find_method
from masksolve.pattern import Degree, Pattern

from . import peers

__all__ = [
    "DISTRIBUTIONS",
    "DTYPES",
    "Case",
    "Contestant",
    "contestants",
    "crossed_cases",
    "default_cases",
    "make_matrix",
    "sample_blocks",
]

Array = NDArray[Any]
Run = Callable[[Array], Any]
Prepare = Callable[[Array], tuple[Array, Run]]

DTYPES = ("float32", "float16", "bfloat16")
DISTRIBUTIONS = ("gaussian", "student", "integer", "minilm")
LIMITS = ("limit", "limit, new mask")
#: What is added to the label of an engine that writes into an array that is there, as `limit` does.
THERE = "mask there"
#: Noise on the matrix of a warm start, as a share of its standard deviation.
NOISES = (0.01, 0.001, 0.0001)

_WEIGHTS = Path(__file__).parents[1] / "notebooks" / "data" / "minilm_sample.safetensors"
_FAST = ("limit", "auto", "flow/native")


@dataclass(frozen=True)
class Case:
    """A matrix, a pattern, and who is to run on it.

    Parameters
    ----------
    size : int
        Rows and columns of the square matrix.
    n, m, degree
        The pattern.
    dtype, distribution : str
        Of `DTYPES` and `DISTRIBUTIONS`.
    workers : int
        Threads of every contestant.
    who : tuple of str
        Labels of contestants; ``"auto"`` is what ``method="auto"`` chooses, ``"*"`` all.
    memory : bool
        Whether the peak memory is measured.
    """

    size: int
    n: int
    m: int
    workers: int
    degree: Degree = "exact"
    dtype: str = "float32"
    distribution: str = "gaussian"
    who: tuple[str, ...] = _FAST
    memory: bool = False

    @property
    def pattern(self) -> str:
        """``"n:m"``."""
        return f"{self.n}:{self.m}"

    @property
    def blocks(self) -> int:
        """Blocks of the matrix."""
        return (self.size // self.m) ** 2

    @property
    def key(self) -> str:
        """One line that names the case."""
        parts = [f"{self.size}²", self.pattern, self.distribution, self.dtype]
        if self.degree != "exact":
            parts.append(self.degree)
        return " ".join([*parts, f"{self.workers} worker{'s' if self.workers > 1 else ''}"])

    def __post_init__(self) -> None:
        Pattern(self.n, self.m)
        if self.size < self.m or self.size % self.m:
            raise ValueError(f"size {self.size} is no multiple of m = {self.m}")


@dataclass(frozen=True)
class Contestant:
    """Something that finds masks, or the limit.

    Parameters
    ----------
    label : str
    kind : {"limit", "engine", "there", "peer", "solve"}
        ``"there"``: an engine that writes into an array that is there.
    exact : bool
        Whether the mask is claimed to be optimal.
    prepare : callable
        ``prepare(array)`` does what is not to be timed and returns ``(scores, run)``;
        ``run(scores)`` is timed and returns a mask of the scores.
    compiled : bool
        Whether Numba compiles it, so that its first call ever is slower than the next.
    """

    label: str
    kind: str
    exact: bool
    prepare: Prepare
    compiled: bool = False


def default_cases(size: int, workers: int, *, quick: bool = False) -> list[Case]:
    """List the cases that cover every axis once, around a Gaussian float32 matrix of `size`."""
    everyone = ("*",)
    patterns = [(2, 4), (8, 16)] if quick else [(1, 4), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64)]
    cases = [Case(size, n, m, workers, who=everyone, memory=True) for n, m in patterns]
    cases += [
        Case(size // k, n, m, workers, who=everyone)
        for k in ((8,) if quick else (8, 2))
        for n, m in ((2, 4), (8, 16))
    ]
    cases += [
        Case(size // k, n, m, workers)
        for k in (8, 2)
        for n, m in patterns
        if (n, m) not in ((2, 4), (8, 16))
    ]
    main = ((8, 16),) if quick else ((2, 4), (4, 8), (8, 16), (16, 32))
    cases += [Case(size, n, m, workers, distribution=d) for n, m in main for d in DISTRIBUTIONS[1:]]
    cases += [Case(size, n, m, workers, dtype=d) for n, m in ((2, 4), (8, 16)) for d in DTYPES[1:]]
    cases += [Case(size, n, m, 1) for n, m in ((2, 4), (8, 16)) if workers > 1]
    cases += [Case(size, 2, 4, workers, "at_most", who=everyone, memory=True)]
    cases += [Case(size, 8, 16, workers, "at_most", who=(*_FAST, "greedy/*"))]
    cases += [Case(size // 4, n, m, workers, memory=True) for n, m in ((2, 4), (8, 16))]
    # The same blocks, one worker each, none sampled.
    cases += [Case(size // 8, 8, 16, 1, who=(*_FAST, "flow/ortools", "tsenor*"))]
    return list(dict.fromkeys(cases))


def crossed_cases(
    sizes: Sequence[int],
    patterns: Sequence[str],
    dtypes: Sequence[str],
    distributions: Sequence[str],
    workers: int,
) -> list[Case]:
    """List the full cross product of the axes, all contestants on each."""
    cases = []
    for size, pattern, dtype, distribution in product(sizes, patterns, dtypes, distributions):
        try:
            n, m = map(int, pattern.split(":"))
        except ValueError:
            raise ValueError(f"a pattern is n:m, got {pattern!r}") from None
        for known, name in ((DTYPES, dtype), (DISTRIBUTIONS, distribution)):
            if name not in known:
                raise ValueError(f"{name!r} is none of {', '.join(known)}")
        cases.append(
            Case(
                size, n, m, workers, dtype=dtype, distribution=distribution,
                who=("*",), memory=True,
            )
        )  # fmt: skip
    return cases


@cache
def make_matrix(size: int, distribution: str, dtype: str) -> Array:
    """Make the matrix of a case, the same on every run; read-only.

    ``gaussian``: standard normal. ``student``: Student's t with 3 degrees of freedom.
    ``integer``: integers from -8 to 8, uniform, many ties. ``minilm``: 64×64 tiles of the four
    MiniLM matrices in turn, repeated as often as needed.
    """
    if dtype != "float32":
        matrix = make_matrix(size, distribution, "float32").astype(_dtype(dtype))
    elif distribution == "minilm":
        matrix = _minilm(size)
    else:
        rng = np.random.default_rng([size, DISTRIBUTIONS.index(distribution)])
        matrix = np.empty((size, size), np.float32)
        step = max(1, (1 << 22) // size)
        for start in range(0, size, step):
            shape = matrix[start : start + step].shape
            part: Array
            if distribution == "gaussian":
                part = rng.standard_normal(shape, np.float32)
            elif distribution == "student":
                part = rng.standard_t(3, shape)
            else:
                part = rng.integers(-8, 9, shape)
            matrix[start : start + step] = part
    matrix.flags.writeable = False
    return matrix


def _dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.dtype(name)


def _minilm(size: int) -> Array:
    from safetensors.numpy import load_file

    tile = 64
    tiles = np.concatenate(
        [sample_grid(w, tile).reshape(-1, tile, tile) for w in load_file(_WEIGHTS).values()]
    )
    side = -(-size // tile)
    chosen = tiles[np.arange(side * side) % len(tiles)].astype(np.float32)
    whole = chosen.reshape(side, side, tile, tile).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(whole.reshape(side * tile, side * tile)[:size, :size])


def sample_grid(array: Array, m: int) -> Array:
    """Return a matrix as a grid of its blocks (rows/m, columns/m, m, m), a view."""
    rows, columns = array.shape
    return array.reshape(rows // m, m, columns // m, m).transpose(0, 2, 1, 3)


def sample_blocks(array: Array, m: int, count: int) -> Array:
    """Return about `count` evenly spaced blocks, laid side by side as a matrix, up to 64 a row."""
    grid = sample_grid(array, m)
    total = grid.shape[0] * grid.shape[1]
    count = max(1, min(count, total))
    width = min(count, 64)
    height = count // width
    chosen = np.linspace(0, total - 1, width * height).round().astype(int)
    blocks = grid[chosen // grid.shape[1], chosen % grid.shape[1]].reshape(height, width, m, m)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3).reshape(height * m, width * m))


def auto_label(case: Case) -> str:
    """Name the engine that ``method="auto"`` chooses."""
    return find_method("auto", None, Pattern(case.n, case.m), case.degree).label


def contestants(case: Case, methods: Sequence[str] = ("*",)) -> list[Contestant]:
    """List who runs on a case: the limit first, then engines, peers, and a warm start."""
    auto = auto_label(case)

    def wanted(label: str) -> bool:
        if label in LIMITS:
            return True
        names = [label, "auto"] if label in (auto, f"{auto}, {THERE}") else [label]
        return all(
            any(fnmatchcase(name, glob) for name in names for glob in globs)
            for globs in (case.who, methods)
        )

    found = _limits(case)
    pattern = Pattern(case.n, case.m)
    for record in METHODS:
        if record.why_not(pattern, case.degree) is None:
            found.append(_engine(case, record))
            if record.label == auto and case.m == 4:  # elsewhere a new array matters little
                found.append(_engine_there(case, record))
    if case.degree == "exact":
        found += _peers(case)
        found += _solves(case)
    return [contestant for contestant in found if wanted(contestant.label)]


def _limits(case: Case) -> list[Contestant]:
    """Thresholding into an array that is there, and into a new one, as `find_mask` returns it."""

    def there(array: Array) -> tuple[Array, Run]:
        out = np.zeros(array.shape, np.bool_)
        return array, lambda array: peers.threshold(array, case.workers, out)

    def new(array: Array) -> Any:
        return peers.threshold(array, case.workers, np.empty(array.shape, np.bool_))

    return [
        Contestant(label, "limit", False, prepare)
        for label, prepare in zip(LIMITS, (there, _nothing_before(new)), strict=True)
    ]


def _nothing_before(run: Run) -> Prepare:
    return lambda array: (array, run)


def _find(case: Case, record: Any, array: Array, **more: Any) -> Any:
    return ms.find_mask(
        array, case.n, case.m, method=record.name, backend=record.backend,
        degree=case.degree, workers=case.workers, **more,
    )  # fmt: skip


def _engine_there(case: Case, record: Any) -> Contestant:
    """Masks into an array that is there."""

    def prepare(array: Array) -> tuple[Array, Run]:
        out = np.zeros(array.shape, np.bool_)
        return array, lambda array: _find(case, record, array, out=out)

    return Contestant(f"{record.label}, {THERE}", "there", record.exact, prepare)


def _engine(case: Case, record: Any) -> Contestant:
    run = partial(_find, case, record)
    return Contestant(
        record.label, "engine", record.exact, _nothing_before(run), record.package == "numba"
    )


def _peers(case: Case) -> list[Contestant]:
    n, m, workers = case.n, case.m, case.workers
    runs: dict[str, Run] = {}
    if m == 4:
        runs["all-patterns/numpy"] = lambda array: peers.all_patterns(array, n, m, workers)
    for label, settings in peers.TSENOR.items():
        runs[label] = partial(peers.tsenor, n=n, m=m, workers=workers, settings=settings)
    return [
        Contestant(
            label, "peer", label.startswith("all"), _nothing_before(run), label in peers.TSENOR
        )
        for label, run in runs.items()
    ]


def _solves(case: Case) -> list[Contestant]:
    """`solve` with its proof: from nothing, and from the solution of the matrix before noise."""

    def solve(array: Array, **more: Any) -> Any:
        return ms.solve(array, case.n, case.m, workers=case.workers, **more).mask

    def cold(array: Array) -> tuple[Array, Run]:
        return _add_noise(array, NOISES[0]), solve

    def warm(noise: float) -> Prepare:
        def prepare(array: Array) -> tuple[Array, Run]:
            before = ms.solve(array, case.n, case.m, workers=case.workers)
            return _add_noise(array, noise), partial(solve, warm_start=before)

        return prepare

    return [
        Contestant("solve", "solve", True, cold),
        *(Contestant(f"solve, warm, {x:g} noise", "solve", True, warm(x)) for x in NOISES),
    ]


def _add_noise(array: Array, share: float) -> Array:
    """Return W plus Gaussian noise of a share of its standard deviation."""
    spread = np.float32(share) * array.astype(np.float32).std()
    noise = np.random.default_rng(1).standard_normal(array.shape, np.float32)
    noise *= spread
    noise += array
    return noise.astype(array.dtype, copy=False)
