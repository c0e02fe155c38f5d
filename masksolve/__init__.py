"""Transposable N:M sparsity masks: the best one, with a proof that it is the best.

>>> import numpy as np
>>> import masksolve as ms
>>> W = np.random.default_rng(0).normal(size=(64, 64))
>>> solution = ms.solve(W, n=2, m=4)
>>> solution.gap
0.0
>>> ms.check_mask(solution.mask, n=2, m=4)

Names are loaded when first used: ``import masksolve`` costs NumPy and no more.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors
    from .certify import certify_mask, check_certificate, check_mask, kept_per_block, kept_share
    from .diversity import count_masks
    from .errors import MaskSolveError
    from .find import compare, find_mask, solve
    from .methods import METHODS
    from .pattern import Pattern
    from .rows import find_row_mask
    from .solution import (
        BlockSolution,
        Certificate,
        Comparison,
        ImprovingCycle,
        MaskSolution,
        SolveStats,
    )

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "BlockSolution",
    "Certificate",
    "Comparison",
    "ImprovingCycle",
    "MaskSolution",
    "MaskSolveError",
    "Pattern",
    "SolveStats",
    "certify_mask",
    "check_certificate",
    "check_mask",
    "compare",
    "count_masks",
    "errors",
    "find_mask",
    "find_row_mask",
    "kept_per_block",
    "kept_share",
    "solve",
]

_HOMES = {
    "certify": [
        "certify_mask",
        "check_certificate",
        "check_mask",
        "kept_per_block",
        "kept_share",
    ],
    "diversity": ["count_masks"],
    "errors": ["MaskSolveError"],
    "find": ["compare", "find_mask", "solve"],
    "methods": ["METHODS"],
    "pattern": ["Pattern"],
    "rows": ["find_row_mask"],
    "solution": [
        "BlockSolution",
        "Certificate",
        "Comparison",
        "ImprovingCycle",
        "MaskSolution",
        "SolveStats",
    ],
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module(".errors", __name__)
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module 'masksolve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
