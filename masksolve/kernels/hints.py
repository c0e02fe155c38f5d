"""What LLVM cannot know of a kernel: that its arrays do not overlap, how wide its vectors should be.

Each is said in the kernel's first lines, and has no meaning in plain Python.
"""

from numba import config, types
from numba.core.cgutils import ir
from numba.extending import intrinsic

__all__ = ["apart", "use_widest"]


@intrinsic
def _apart(_):
    def generate(context, builder, signature, arguments):  # noqa: ARG001  # as intrinsics go
        for argument in builder.function.args:
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _use_widest(_):
    def generate(context, builder, signature, arguments):  # noqa: ARG001  # as intrinsics go
        # past llvmlite, which knows no attributes with values
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


def _nothing():
    """What both are in plain Python."""


#: ``apart()``: no array argument that is written to shares memory with another. Else LLVM tests all
#: pairs of them before every loop, which for short loops takes as long as the loop.
apart = _nothing if config.DISABLE_JIT else _apart
#: ``use_widest()``: LLVM prefers half of AVX-512's registers on some processors; not here.
use_widest = _nothing if config.DISABLE_JIT else _use_widest
