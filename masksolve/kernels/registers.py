"""Let LLVM use the widest registers there are: for some processors it prefers half of them."""

from numba import config, types
from numba.extending import intrinsic

__all__ = ["use_widest"]


@intrinsic
def _use_widest(_):
    def generate(context, builder, signature, arguments):  # noqa: ARG001  # as intrinsics go
        # llvmlite lists the attributes it knows, and none that have a value
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


def _of_no_use():
    """What `use_widest` is in plain Python."""


#: ``use_widest()`` in a kernel whose loops have work enough for the widest registers.
use_widest = _of_no_use if config.DISABLE_JIT else _use_widest
