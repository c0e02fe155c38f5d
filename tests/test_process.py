"""Threads, forks, Ctrl-C and the kernels' disk cache: what only whole processes show."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import masksolve as ms

CASES = [(2, 4, "exact"), (2, 4, "at_most"), (4, 8, "exact"), (3, 5, "at_most")]


def run(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
        check=False,
    )


def test_many_threads_at_once():
    """Eight threads, fifty calls each, of different patterns and methods."""
    scores = np.random.default_rng(0).normal(size=(40, 72)).astype(np.float32)
    calls = [(case, method) for case in CASES for method in ("auto", "flow", "greedy")]

    def call(case, method):
        n, m, degree = case
        return ms.find_mask(scores, n, m, degree=degree, method=method, workers=2)

    expected = {key: call(*key) for key in calls}
    wrong = []

    def hammer(thread):
        for index in range(50):
            key = calls[(thread + index) % len(calls)]
            try:
                if not (call(*key) == expected[key]).all():
                    wrong.append(key)
            except BaseException as error:
                wrong.append(error)
                raise

    threads = [threading.Thread(target=hammer, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_goes_on():
    script = """
import os, sys
import numpy as np, masksolve as ms
scores = np.random.default_rng(0).normal(size=(512, 512))
expected = [ms.find_mask(scores, n, m) for n, m in ((2, 4), (4, 8))]
child = os.fork()
if child == 0:
    same = all((ms.find_mask(scores, n, m, workers=2) == mask).all()
               for (n, m), mask in zip(((2, 4), (4, 8)), expected))
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = run(script)
    assert (result.stdout, result.stderr) == ("0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_fork_waits_for_the_compiler():
    """Else the child inherits a lock whose owner it does not have."""
    script = """
import os, signal, threading, time, warnings
from numba.core.compiler_lock import global_compiler_lock
from masksolve.kernels.compiling import COMPILING, jit
warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
compiling = threading.Event()
def compile():
    with COMPILING, global_compiler_lock:
        compiling.set()
        time.sleep(1)
threading.Thread(target=compile).start()
compiling.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(jit(lambda x: x - 1)(1))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = run(script)
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_what_python_calls_is_compiled_under_the_lock(tmp_path):
    """Whatever is compiled while the lock is free, a fork could cut in two."""
    script = """
import numpy as np
from numba.core.dispatcher import Dispatcher
from masksolve.diversity import count_masks
from masksolve.kernels import greedy, widen
from masksolve.kernels.compiling import COMPILING
outside, compile = [], Dispatcher.compile
def watched(self, signature):
    if not COMPILING._is_owned():
        outside.append(self.py_func.__name__)
    return compile(self, signature)
Dispatcher.compile = watched
bits = np.zeros((4, 4), np.uint16)
for kernel in (widen.widen_float16, widen.widen_bfloat16):
    kernel(bits, np.zeros((4, 4), np.int32))
greedy.cover(np.zeros((1, 4, 4), np.int64), 2, True, np.zeros((1, 4, 4), bool))
count_masks(2, 5, degree="at_most")
print(outside)
"""
    result = run(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert (result.stdout, result.stderr) == ("[]\n", "")


@pytest.mark.parametrize("method", ["auto", "flow/ortools"])
def test_ctrl_c_ends_a_long_call_and_its_threads(method):
    """The call would take minutes; it ends with KeyboardInterrupt and leaves no thread."""
    script = """
import signal, sys, threading
import numpy as np, masksolve as ms
signal.signal(signal.SIGINT, signal.default_int_handler)
method, _, backend = sys.argv[1].partition("/")
scores = np.broadcast_to(np.float32(1), (1 << 17, 1 << 13))
told = []
def tell(done, total):
    if not told:
        told.append(done)
        print("working", flush=True)
try:
    ms.find_mask(scores, 8, 16, method=method, backend=backend or None, progress=tell)
except KeyboardInterrupt:
    print("interrupted", threading.active_count(), flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, method], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "working\n"
    start = time.perf_counter()
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=120)
    assert out == "interrupted 1\n"
    assert time.perf_counter() - start < 30


def test_threads_that_need_the_same_kernel_at_once_make_it_once(tmp_path):
    script = """
import threading
from collections import Counter
from numba.core.dispatcher import Dispatcher
from numba.core.sigutils import normalize_signature
import numpy as np, masksolve as ms
made, compile = Counter(), Dispatcher.compile
def watched(self, signature):
    arguments = tuple(normalize_signature(signature)[0])
    if self.py_func.__module__.startswith("masksolve") and arguments not in self.overloads:
        made[self.py_func.__qualname__, arguments] += 1
    return compile(self, signature)
Dispatcher.compile = watched
scores = np.random.default_rng(0).normal(size=(40, 80))
masks, begin = [None] * 6, threading.Barrier(6)
def call(index):
    begin.wait()
    method = ("flow", "greedy", "conv")[index % 3]
    masks[index] = ms.find_mask(scores, 2, 4, method=method)
threads = [threading.Thread(target=call, args=(index,)) for index in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*[(masks[i] == masks[i + 3]).all() for i in range(3)], len(made) > 10)
print([name for name, times in made.items() if times > 1])
"""
    result = run(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert (result.stdout, result.stderr) == ("True True True True\n[]\n", "")


NO_PLACE = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
for implementation in (caching.CompileResultCacheImpl, caching.CodeLibraryCacheImpl):
    implementation._locator_classes = []
"""
SMALL_CALL = """
import numpy as np, masksolve as ms
mask = ms.find_mask(np.arange(32.0).reshape(4, 8), 2, 4)
ms.check_mask(mask, 2, 4)
print(mask.sum())
"""


def test_without_a_place_for_the_cache_it_compiles_quietly():
    result = run(NO_PLACE + SMALL_CALL)
    assert (result.stdout, result.stderr) == ("16\n", "")


def test_kernels_are_cached_on_disk(tmp_path):
    """A second process finds what the first one compiled."""
    for call in range(2):
        result = run(SMALL_CALL, NUMBA_CACHE_DIR=str(tmp_path))
        assert (result.stdout, result.stderr) == ("16\n", "")
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
        if call == 0:
            first = files
    assert first
    assert files == first
