"""Ask for memory ahead of its use: of short pieces of many rows, the hardware does not foresee the next."""

from numba import config, types
from numba.core import cgutils
from numba.core.cgutils import ir
from numba.extending import intrinsic

from .compiling import jit

__all__ = ["LINE", "prefetch", "prefetch_next"]

#: Bytes that one `prefetch` brings: a cache line.
LINE = 64

_NEAREST = 3  # into every level of cache


@intrinsic
def _prefetch(_, array, i, j):  # noqa: ARG001  # the types of the arguments
    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        matrix = context.make_array(kind)(context, builder, arguments[0])
        entry = cgutils.get_item_pointer(context, builder, kind, matrix, arguments[1:])
        address, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [address, word, word, word])
        hint = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
        options = word(0), word(_NEAREST), word(1)  # to read; data
        builder.call(hint, [builder.bitcast(entry, address), *options])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


def _no_prefetch(array, i, j):
    """What `prefetch` is in plain Python."""


#: ``prefetch(matrix, i, j)``: the cache line of an entry, which must exist.
prefetch = _no_prefetch if config.DISABLE_JIT else _prefetch


@jit(inline="always")
def prefetch_next(W, top, left, height, width):
    """Ask for the part of that size that is read after the one at (top, left).

    It lies to the right of it, or at the end of the rows below, at their start.
    """
    left += width
    if left >= W.shape[1]:
        top, left = top + height, 0
    if top < W.shape[0]:
        step = LINE // W.itemsize
        for r in range(height):
            for c in range(left, min(left + width, W.shape[1]), step):
                prefetch(W, top + r, c)
