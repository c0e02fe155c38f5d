"""Hints to LLVM reach it: what they are for is speed, which no test sees."""

import re

import numpy as np
import pytest
from numba import config, types

from masksolve.kernels.compiling import bare
from masksolve.kernels.hints import apart, use_widest


def add_one(source, target):
    for k in range(len(source)):
        target[k] = source[k] + 1


def add_one_hinted(source, target):
    apart()
    use_widest()
    for k in range(len(source)):
        target[k] = source[k] + 1


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_hints_are_attributes_of_the_compiled_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))  # what is cached cannot be looked at
    signature = types.void(types.float32[::1], types.float32[::1])
    for function, hinted in ((add_one, False), (add_one_hinted, True)):
        kernel = bare(function, signature)
        (text,) = kernel.inspect_llvm().values()
        head = next(
            line for line in text.splitlines() if re.match(f"define .*{function.__name__}", line)
        )
        number = re.search(r"#(\d+)", head)
        attributes = re.search(rf"attributes #{number[1]} = .*", text)[0] if number else ""
        assert ("noalias" in head.split("%arg.source.0")[-1]) == hinted
        assert ('"prefer-vector-width"="512"' in attributes) == hinted


@pytest.mark.skipif(not config.DISABLE_JIT, reason="only where nothing is compiled")
def test_hints_mean_nothing_in_plain_python():
    target = np.zeros(3)
    add_one_hinted(np.arange(3.0), target)
    assert target.tolist() == [1, 2, 3]
