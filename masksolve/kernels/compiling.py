"""One way to compile: without the GIL, and cached on disk where there is a place for it."""

import functools
import os
import threading
import zlib

import numpy as np
from numba import njit

__all__ = ["COMPILING", "bare", "compiled", "inner", "jit", "once"]

#: Held while kernels are made; see `once`.
COMPILING = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A fork waits until no kernel is being made: its child would inherit the compiler's locks.
    os.register_at_fork(
        before=COMPILING.acquire,
        after_in_parent=COMPILING.release,
        after_in_child=COMPILING.release,
    )


def once(make):
    """Keep what `make` makes of its arguments. Two threads that need the same kernel make it once.

    What is made is found without a lock: nobody waits for the kernels of others.
    """
    made = {}

    @functools.wraps(make)
    def find(*given):
        if given not in made:
            with COMPILING:
                if given not in made:
                    made[given] = make(*given)
        return made[given]

    return find


def jit(function=None, signature=None, **options):
    """Compile `function` for `signature`, or for what it is called with; decorator or call.

    Where no cache directory can be written to, it compiles anew in every process, silently.
    """
    if function is None:
        return functools.partial(jit, signature=signature, **options)
    arguments = () if signature is None else (signature,)
    try:
        return njit(*arguments, nogil=True, cache=True, **options)(function)
    except RuntimeError as error:  # Numba found no place for its cache
        if "cannot cache" not in str(error):
            raise
        return njit(*arguments, nogil=True, **options)(function)


#: The same for what only kernels call: the entries for calls from Python take long to make.
inner = functools.partial(jit, no_cpython_wrapper=True, no_cfunc_wrapper=True)

#: The same for what makes no arrays: nobody counts references to the arguments and their parts, which
#: takes as long as many a kernel.
bare = functools.partial(inner, _nrt=False)


def compiled(source, name, home, scope, signature=None):
    """Compile the function `name` that the text `source` defines, as `bare`.

    Numba's disk cache goes by the time stamp of the file `home`, the function's name and its byte
    code, which holds no constants: so the name gets a checksum of the source and of the numbers in
    `scope`, which holds the names that the source uses.
    """
    scope = dict(scope)
    exec(compile(source, home, "exec"), scope)
    function = scope[name]
    numbers = sorted(
        (k, repr(v)) for k, v in scope.items() if isinstance(v, int | float | np.generic)
    )
    checksum = zlib.crc32(repr((source, numbers)).encode())
    function.__name__ = function.__qualname__ = f"{name}_{checksum:08x}"
    return bare(function, signature)
