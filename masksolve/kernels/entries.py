"""Kernels that do something for every entry, of `LANES` blocks side by side or of one, whatever their size."""

import numpy as np

from .compiling import compiled
from .hints import apart, use_widest
from .lines import CHUNK, LANES

__all__ = ["every_column", "every_entry"]

COLUMNS = 4


def _kernel(name, arguments, loops, names):
    source = f"""
def {name}({arguments}):
    apart()
    use_widest()
    {loops}
"""
    scope = {"np": np, "apart": apart, "use_widest": use_widest, "__name__": __name__, **names}
    return compiled(source, name, __file__, scope)


def every_entry(name, arguments, statement, **names):
    """Make a kernel of these `arguments`, one Q (entries, LANES), with a `statement` for entry k of lane l.

    A loop over the lanes of one entry LLVM would unroll; that of a chunk of them it vectorises.
    `names`: what the statement uses besides.
    """
    chunk = "\n            ".join(statement.format(k=f"k + {a}") for a in range(CHUNK))
    loops = f"""chunks = len(Q) - len(Q) % {CHUNK}
    for k in range(0, chunks, {CHUNK}):
        for l in range({LANES}):
            {chunk}
    for k in range(chunks, len(Q)):
        for l in range({LANES}):
            {statement.format(k="k")}"""
    return _kernel(name, arguments, loops, names)


def every_column(name, arguments, statement, **names):
    """Make a kernel of these `arguments`, one `size`, with a `statement` for row i of column j, so many of each.

    A loop over the rows of one column is so short a piece of work that LLVM would take several vectors
    at a time, and then all rows of a small block one by one; that of several columns it does not.
    """
    chunk = "\n            ".join(statement.format(j=f"(j + {a})") for a in range(COLUMNS))
    loops = f"""chunks = size - size % {COLUMNS}
    for j in range(0, chunks, {COLUMNS}):
        for i in range(size):
            {chunk}
    for j in range(chunks, size):
        for i in range(size):
            {statement.format(j="j")}"""
    return _kernel(name, arguments, loops, names)
