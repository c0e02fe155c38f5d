"""The table of methods: one frozen record a (method, backend)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MethodError, MissingDependencyError, UnsupportedError
from .pattern import Degree, Pattern
from .solution import BlockSolution

__all__ = [
    "METHODS",
    "BlockSolver",
    "MatrixProver",
    "MatrixSolver",
    "Method",
    "WarmSolver",
    "find_method",
    "methods_table",
    "own_method",
]

#: Integer blocks (B, m, m), n, degree -> their solution.
BlockSolver = Callable[[NDArray[np.int64], int, Degree], BlockSolution]

#: Float16, bfloat16, float32 or float64 scores, sides multiples of m and C-contiguous; pattern,
#: degree, absolute, mask to write -> whether all scores are finite. The same answers as the
#: block solver's on the same scores, without integer blocks in between. Not called for
#: at_most with signed scores.
MatrixSolver = Callable[
    [NDArray[Any], Pattern, Degree, bool, NDArray[np.bool_]],
    bool,
]

#: Scores of float32 or float64, else as for a `MatrixSolver`; pattern, degree, absolute, mask to
#: write, potentials u and v (blocks, m) to write, and whether v holds prices to start from.
MatrixProver = Callable[
    [
        NDArray[Any],
        Pattern,
        Degree,
        bool,
        NDArray[np.bool_],
        NDArray[np.int64],
        NDArray[np.int64],
        bool,
    ],
    bool,
]

#: A block solver that also takes column prices (B, m) to start from; row prices follow from them.
WarmSolver = Callable[[NDArray[np.int64], int, Degree, NDArray[np.int64]], BlockSolution]

_FAST_BAND = 1 << 18
# An engine that takes long over a block answers Ctrl-C and tells progress between bands.
_SLOW_BAND = 1 << 13
# A matrix solver gets large bands, for the least fuss; the fastest the largest.
_MATRIX_BAND = 1 << 20


@dataclass(frozen=True)
class Method:
    """One way to solve blocks.

    Parameters
    ----------
    name, backend : str
        The formulation, and the engine that runs it.
    exact : bool
        Whether the mask is optimal.
    guarantee : str
        What is promised about the kept score, in a line.
    about : str
        What it does, in a line.
    home : str
        ``"module:function"`` of the block solver below `masksolve.solvers`.
    package : str
        The package that the engine comes from.
    matrix_home, prove_home, warm_home : str or None
        ``"module:function"`` of a `MatrixSolver`, of a `MatrixProver` and of a `WarmSolver`,
        where there is one.
    refuses : str or None
        ``"module:function"`` of ``(pattern, degree) -> reason or None``, for a method that
        does not do every pattern.
    band, matrix_band : int
        Entries a band should have, of blocks and of a raw matrix.
    solver : callable or None
        A caller's own block solver, instead of one at `home`.
    """

    name: str
    backend: str
    exact: bool
    guarantee: str
    about: str
    home: str
    package: str
    matrix_home: str | None = None
    prove_home: str | None = None
    warm_home: str | None = None
    refuses: str | None = None
    band: int = _FAST_BAND
    matrix_band: int = _MATRIX_BAND
    solver: BlockSolver | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """``"method/backend"``."""
        return f"{self.name}/{self.backend}" if self.backend else self.name

    def why_not(self, pattern: Pattern, degree: Degree) -> str | None:
        """Return the reason why this method does not do a pattern, or None if it does."""
        if self.refuses is None:
            return None
        reason: str | None = _load(self.refuses)(pattern, degree)
        return reason

    def load(self) -> BlockSolver:
        """Import and return the block solver.

        Raises
        ------
        MissingDependencyError
            The engine's package is not installed.
        """
        if self.solver is not None:
            return self.solver
        loaded: BlockSolver = self._load(self.home)
        return loaded

    def load_matrix_solver(self) -> MatrixSolver | None:
        """Import and return the solver of raw matrices, if the method has one."""
        return None if self.matrix_home is None else self._load(self.matrix_home)

    def load_matrix_prover(self) -> MatrixProver | None:
        """Import and return the solver of raw matrices that yields potentials, if there is one."""
        return None if self.prove_home is None else self._load(self.prove_home)

    def load_warm_solver(self) -> WarmSolver | None:
        """Import and return the solver that takes start prices, if the method has one."""
        return None if self.warm_home is None else self._load(self.warm_home)

    def _load(self, home: str) -> Any:
        try:
            return _load(home)
        except ImportError as error:
            raise MissingDependencyError(
                f"method {self.name!r} with backend {self.backend!r} needs the package "
                f"{self.package!r}, which cannot be imported ({error}); it comes with "
                f"masksolve itself: pip install --upgrade masksolve {self.package}"
            ) from error


def _load(home: str) -> Any:
    module, function = home.split(":")
    return getattr(import_module(f".solvers.{module}", __package__), function)


#: Every (method, backend). A method's default backend is its first that does the pattern.
METHODS: tuple[Method, ...] = (
    Method(
        "flow",
        "native",
        exact=True,
        guarantee="optimal",
        about="dual ascent on many blocks at once, then augmenting paths, in Numba",
        home="flow_native:solve",
        matrix_home="flow_native:solve_matrix",
        prove_home="flow_native:prove_matrix",
        warm_home="flow_native:solve_warm",
        package="numba",
    ),
    Method(
        "flow",
        "ortools",
        exact=True,
        guarantee="optimal",
        about="min-cost flow by OR-Tools' cost scaling, one graph a block",
        home="flow_ortools:solve",
        package="ortools",
        band=_SLOW_BAND,
    ),
    Method(
        "flow",
        "networkx",
        exact=True,
        guarantee="optimal",
        about="min-cost flow by networkx' network simplex; readable, slow",
        home="flow_networkx:solve",
        package="networkx",
        band=_SLOW_BAND,
    ),
    Method(
        "flow",
        "highs",
        exact=True,
        guarantee="optimal",
        about="the integer programme as a linear programme, by HiGHS",
        home="flow_highs:solve",
        package="scipy",
        band=_SLOW_BAND,
    ),
    Method(
        "conv",
        "native",
        exact=True,
        guarantee="optimal",
        about="all patterns at once, factored by column sums, in Numba (1:4, 2:4, exact 3:4)",
        home="conv_native:solve",
        matrix_home="conv_native:solve_matrix",
        matrix_band=4 * _MATRIX_BAND,
        package="numba",
        refuses="conv_native:refuses",
    ),
    Method(
        "conv",
        "numpy",
        exact=True,
        guarantee="optimal",
        about="every pattern of a block as a convolution filter, then an argmax",
        home="conv_numpy:solve",
        package="numpy",
        refuses="conv_numpy:too_many",
    ),
    Method(
        "greedy",
        "native",
        exact=False,
        guarantee="kept >= 1/2 optimal (`exact`: for m <= 2n, m >= 4n or n <= 7, else 2/5); `at_most`: pruned <= 2 optimal pruned",
        about="descending greedy, completed to exactly n by alternating paths",
        home="greedy:solve",
        matrix_home="greedy:solve_matrix",
        package="numba",
    ),
    Method(
        "greedy",
        "cover",
        exact=False,
        guarantee="pruned <= 2 optimal pruned",
        about="the literal 2-approximation of Hubara et al.; keeps fewer than n (at_most only)",
        home="greedy:solve_cover",
        package="numba",
        refuses="greedy:cover_refuses",
    ),
)


def find_method(method: Any, backend: str | None, pattern: Pattern, degree: Degree) -> Method:
    """Return the record for what a caller asked for.

    ``"auto"`` is the fastest exact method for the pattern; it depends on pattern and degree
    alone, never on what is installed.

    Raises
    ------
    MethodError
        No such method or backend; the message suggests the nearest name.
    UnsupportedError
        The method does not do this pattern or degree.
    """
    if callable(method):
        if backend is not None:
            raise MethodError(
                f"backend={backend!r} cannot go with a solver of your own; leave it out"
            )
        return own_method(method)
    if not isinstance(method, str):
        raise MethodError(
            f"method must be a name or a block solver, got {type(method).__name__}: {method!r}"
        )
    if method == "auto":
        if backend is not None:
            raise MethodError(
                f'method="auto" chooses its backend itself; to use backend={backend!r}, '
                f"name its method as well"
            )
        return _fastest_exact(pattern, degree)
    names = list(dict.fromkeys(record.name for record in METHODS))
    if method not in names:
        raise MethodError(f"unknown method {method!r}{_nearest(method, ['auto', *names])}")
    records = [record for record in METHODS if record.name == method]
    if backend is not None:
        backends = [record.backend for record in records]
        if backend not in backends:
            raise MethodError(
                f"method {method!r} has no backend {backend!r}{_nearest(backend, backends)}"
            )
        records = [records[backends.index(backend)]]
    for record in records:
        reason = record.why_not(pattern, degree)
        if reason is None:
            return record
    raise UnsupportedError(reason)


def own_method(solver: BlockSolver) -> Method:
    """Record for a caller's own block solver."""
    name = getattr(solver, "__name__", type(solver).__name__)
    return Method(name, "", exact=False, guarantee="", about="", home="", package="", solver=solver)


def _fastest_exact(pattern: Pattern, degree: Degree) -> Method:
    few = pattern.m == 4 and (pattern.n in (1, 2) or (pattern.n == 3 and degree == "exact"))
    return find_method("conv" if few else "flow", None, pattern, degree)


def _nearest(name: Any, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} There {'is' if len(known) == 1 else 'are'} {', '.join(map(repr, known))}"


def methods_table() -> str:
    """Return `METHODS` as a Markdown table, as the README shows it."""
    rows = [f"| `{r.name}` | `{r.backend}` | {r.guarantee} | {r.about} |" for r in METHODS]
    return "\n".join(["| method | backend | guarantee | how |", "|---|---|---|---|", *rows])
