"""Kernels that do something for every entry of `LANES` blocks side by side, whatever their size."""

import numpy as np

from .compiling import compiled
from .hints import apart, use_widest
from .lines import CHUNK, LANES

__all__ = ["every_entry"]


def every_entry(name, arguments, statement, **names):
    """Make a kernel of these `arguments`, Q (entries, LANES) first, with a `statement` for entry k of lane l.

    A loop over the lanes of one entry LLVM would unroll; that of a chunk of them it vectorises.
    `names`: what the statement uses besides.
    """
    chunk = "\n            ".join(statement.format(k=f"k + {a}") for a in range(CHUNK))
    source = f"""
def {name}({arguments}):
    apart()
    use_widest()
    chunks = len(Q) - len(Q) % {CHUNK}
    for k in range(0, chunks, {CHUNK}):
        for l in range({LANES}):
            {chunk}
    for k in range(chunks, len(Q)):
        for l in range({LANES}):
            {statement.format(k="k")}
"""
    scope = {"np": np, "apart": apart, "use_widest": use_widest, "__name__": __name__, **names}
    return compiled(source, name, __file__, scope)
