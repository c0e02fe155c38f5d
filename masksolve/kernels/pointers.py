"""Kernels as arguments of kernels, by address: one compilation of the caller serves them all.

Numba has function pointers of its own, but runs Python code to take each one in: that takes long beside a
small band, and a Ctrl-C that falls in there comes out as a TypeError.
"""

import functools

from numba import config, types
from numba.core import cgutils
from numba.core.typing import Signature
from numba.extending import intrinsic

__all__ = ["NONE", "POINTER", "address", "caller"]

#: Type of a kernel that is passed as an argument.
POINTER = types.int64
#: Where no kernel is needed.
NONE = 0


@functools.cache
def address(kernel, signature):
    """Return a compiled kernel as an argument; in plain Python, the function itself."""
    if config.DISABLE_JIT:
        return kernel
    compiled = kernel.overloads[signature.args]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def caller(signature, *, raises=True):
    """Make ``call(pointer, (argument, ...))`` for kernels without a result.

    `signature`: that of the kernels, or what makes it of the types of the arguments. Of kernels that
    do not raise, or may as well not have run, Numba need not look at the outcome; then it sees
    that it need not count references to the arguments either, which takes as long as a small kernel.
    """
    if config.DISABLE_JIT:
        return lambda kernel, arguments: kernel(*arguments)

    @intrinsic
    def call(_, pointer, arguments):  # noqa: ARG001  # their types
        def generate(context, builder, typed, values):
            given = cgutils.unpack_tuple(builder, values[1])
            kernel = signature if isinstance(signature, Signature) else signature(*arguments)
            pairs = zip(given, typed.args[1], kernel.args, strict=True)
            cast = [context.cast(builder, value, is_, to) for value, is_, to in pairs]
            form = context.call_conv.get_function_type(types.none, kernel.args)
            function = builder.inttoptr(values[0], form.as_pointer())
            convention = context.call_conv
            status, _ = convention.call_function(builder, function, types.none, kernel.args, cast)
            if raises:
                with cgutils.if_unlikely(builder, status.is_error):
                    convention.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.void(POINTER, arguments), generate

    return call
