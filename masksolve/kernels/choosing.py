"""Choices as one instruction each: the same in plain Python's `if`, `max` and `min` takes Numba long to compile.

An `if` makes three basic blocks, which LLVM takes out again; `max` and `min` are looked up among many.
"""

from numba import config, types
from numba.extending import intrinsic

__all__ = ["choose", "larger", "smaller"]


@intrinsic
def _choose(_, condition, yes, no):  # noqa: ARG001  # their types
    def generate(context, builder, signature, values):  # noqa: ARG001  # as intrinsics go
        return builder.select(*values)

    return yes(types.boolean, yes, yes), generate


def _of_two(relation):
    """An intrinsic: the one of two numbers that stands in that relation to the other."""

    @intrinsic
    def of_two(_, first, second):  # noqa: ARG001  # their types
        def generate(context, builder, signature, values):  # noqa: ARG001  # as intrinsics go
            if isinstance(first, types.Float):
                compare = builder.fcmp_ordered
            else:
                compare = builder.icmp_signed if first.signed else builder.icmp_unsigned
            return builder.select(compare(relation, *values), *values)

        return first(first, first), generate

    return of_two


def _pick(condition, yes, no):
    return yes if condition else no


#: ``choose(condition, yes, no)``: of two of one type.
choose = _pick if config.DISABLE_JIT else _choose
#: ``larger(a, b)`` and ``smaller(a, b)``: of two numbers of one type, neither NaN.
larger = max if config.DISABLE_JIT else _of_two(">")
smaller = min if config.DISABLE_JIT else _of_two("<")
