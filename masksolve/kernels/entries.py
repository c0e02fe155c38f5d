"""Kernels that do something for every entry, of `LANES` blocks side by side or of one, whatever their size."""

import numpy as np

from .choosing import choose, larger, smaller
from .compiling import compiled
from .hints import apart, use_widest
from .lines import LANES

__all__ = ["every_column", "every_entry"]

ENTRIES = 4
COLUMNS = 4  # of a statement that takes little


def _kernel(name, arguments, loops, names, signature=None):
    source = f"""
def {name}({arguments}):
    apart()
    use_widest()
    {loops}
"""
    scope = {
        "np": np,
        "apart": apart,
        "choose": choose,
        "larger": larger,
        "smaller": smaller,
        "use_widest": use_widest,
        "__name__": __name__,
        **names,
    }
    return compiled(source, name, __file__, scope, signature)


def every_entry(name, arguments, statement, signature=None, **names):
    """Make a kernel of these `arguments`, one Q (entries, LANES), with a `statement` for entry k of lane l.

    A loop over the lanes of one entry LLVM would unroll; that of a chunk of them it vectorises.
    `names`: what the statement uses besides.
    """
    chunk = "\n            ".join(statement.format(k=f"k + {a}") for a in range(ENTRIES))
    loops = f"""chunks = len(Q) - len(Q) % {ENTRIES}
    for k in range(0, chunks, {ENTRIES}):
        for l in range({LANES}):
            {chunk}
    for k in range(chunks, len(Q)):
        for l in range({LANES}):
            {statement.format(k="k")}"""
    return _kernel(name, arguments, loops, names, signature)


def every_column(name, arguments, statement, together=COLUMNS, **names):
    """Make a kernel of these `arguments`, one `size`, with a `statement` for row i of column j, so many of each.

    A loop over the rows of one column is so short a piece of work that LLVM would take several vectors
    at a time, and then all rows of a small block one by one; that of several columns it does not.
    """
    chunk = "\n            ".join(statement.format(j=f"(j + {a})") for a in range(together))
    loops = f"""chunks = size - size % {together}
    for j in range(0, chunks, {together}):
        for i in range(size):
            {chunk}
    for j in range(chunks, size):
        for i in range(size):
            {statement.format(j="j")}"""
    return _kernel(name, arguments, loops, names)
