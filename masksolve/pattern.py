"""The sparsity pattern n:m and the degree constraint."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import OptionError, PatternError, PatternTypeError

__all__ = ["MAX_M", "Degree", "Pattern", "as_integer", "check_degree"]

#: Every full row and column of a block keeps exactly n entries, or no more than n.
Degree = Literal["exact", "at_most"]

#: Largest block edge. Up to here every sum of n*m fixed-point scores of 40 bits fits an int64.
MAX_M = 1024


def as_integer(value: Any) -> int | None:
    """Return the integer that `value` is, or None if it is something else."""
    if isinstance(value, bool):  # an int to Python, but n=True is always a slip
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _check_integer(name: str, value: Any) -> int:
    found = as_integer(value)
    if found is None:
        raise PatternTypeError(
            f"{name} must be an integer, got {value!r} of type {type(value).__name__}; "
            f"write for example n=2, m=4"
        )
    return found


@dataclass(frozen=True, order=True)
class Pattern:
    """The pattern n:m: of every m consecutive entries, n are **kept**.

    Parameters
    ----------
    n : int
        Entries kept of every ``m``, ``0 <= n <= m``.
    m : int
        Edge of the blocks, ``1 <= m <= 1024``.

    Raises
    ------
    PatternError
        ``n`` or ``m`` is out of range.
    PatternTypeError
        ``n`` or ``m`` is not an integer.

    Examples
    --------
    >>> Pattern(2, 4)
    Pattern(n=2, m=4)
    >>> str(Pattern.parse("4:8")), Pattern.parse("4:8").density
    ('4:8', 0.5)

    Some papers count the zeros instead ("at least 1 zero of 4"):

    >>> Pattern.from_zeros(1, 4)
    Pattern(n=3, m=4)
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        n, m = _check_integer("n", self.n), _check_integer("m", self.m)
        if m < 1:
            raise PatternError(f"m must be at least 1, got m={m}")
        if m > MAX_M:
            raise PatternError(f"m must be at most {MAX_M}, got m={m}")
        if n < 0:
            raise PatternError(f"n must be at least 0, got n={n}")
        if n > m:
            raise PatternError(
                f"n must not exceed m: n={n} entries cannot be kept of every m={m}; "
                f"n counts the entries kept, m the entries in a group"
            )
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "m", m)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``"n:m"``, as in ``Pattern.parse("2:4")``."""
        match = (
            re.fullmatch(r"\s*(\d{1,9})\s*:\s*(\d{1,9})\s*", text)
            if isinstance(text, str)
            else None
        )
        if match is None:
            raise PatternError(f"a pattern is written n:m, for example 2:4; got {text!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def from_zeros(cls, zeros: int, m: int) -> Pattern:
        """Pattern of a paper that says "``zeros`` zeros of every ``m``": ``n = m - zeros``."""
        zeros, m = _check_integer("zeros", zeros), _check_integer("m", m)
        if not 0 <= zeros <= m:
            raise PatternError(f"zeros must lie between 0 and m={m}, got zeros={zeros}")
        return cls(m - zeros, m)

    @property
    def density(self) -> float:
        """Share of the entries that is kept, ``n / m``."""
        return self.n / self.m

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


def check_degree(degree: Any) -> Degree:
    """Return `degree` if it is one of the two degree constraints, else raise `OptionError`."""
    if not isinstance(degree, str) or degree not in get_args(Degree):
        raise OptionError(
            f'degree must be "exact" (n kept in every row and column of a block) or '
            f'"at_most" (no more than n), got {degree!r}'
        )
    return degree  # type: ignore[return-value]
