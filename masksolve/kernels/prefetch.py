"""Ask for memory ahead of its use: where several rows are read side by side, the hardware does not."""

from numba import config, types
from numba.core import cgutils
from numba.core.cgutils import ir
from numba.extending import intrinsic

__all__ = ["LINE", "prefetch"]

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
