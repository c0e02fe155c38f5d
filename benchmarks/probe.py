"""One measurement in a fresh process: the first call, or the peak memory.

``python -m benchmarks.probe '{"what": "first" | "memory", "case": {...}, "label": ...}'`` prints
one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cases import Array, Case

__all__ = ["first_call", "first_calls_ever", "peak_memory"]

_ROOT = Path(__file__).parents[1]


def first_call(case: Case, label: str, *, limit: float) -> dict[str, Any]:
    """Seconds of the first call on one block in a fresh process.

    Returns
    -------
    dict
        ``seconds`` (imports of the method and kernels included), or ``error``.
    """
    return _ask({"what": "first", "case": asdict(case), "label": label}, limit, {})


def first_calls_ever(
    case: Case, label: str, *, limit: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `first_call`, with an empty Numba cache, and again with what that call put there."""
    task = {"what": "first", "case": asdict(case), "label": label}
    with tempfile.TemporaryDirectory() as folder:
        cache = {"NUMBA_CACHE_DIR": folder}
        return _ask(task, limit, cache), _ask(task, limit, cache)


def peak_memory(case: Case, label: str, path: Path, *, limit: float) -> dict[str, Any]:
    """MiB of anonymous memory beyond input and mask, on the matrix in a ``.npy`` file."""
    if not Path("/proc/self/status").exists():
        return {"error": "needs /proc"}
    return _ask(
        {"what": "memory", "case": asdict(case), "label": label, "path": str(path)}, limit, {}
    )


def _ask(task: dict[str, Any], limit: float, environment: dict[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.probe", json.dumps(task)],
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=_ROOT,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not finished in {limit:g} s", "timeout": True}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["died"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _main(task: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from .cases import Case, contestants

    start = time.perf_counter()
    case = Case(**{**task["case"], "who": (task["label"],)})
    contestant = next(c for c in contestants(case) if c.label == task["label"])
    m = case.m
    block = np.random.default_rng(0).standard_normal((m, m), np.float32)
    scores, run = contestant.prepare(block.astype(_dtype(case.dtype)))
    run(scores)
    if task["what"] == "first":
        return {"seconds": time.perf_counter() - start}
    array = np.load(task["path"], mmap_mode="r").view(_dtype(case.dtype))
    scores, run = contestant.prepare(array)
    before = _anonymous()
    peak, stop = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.001):
            peak = max(peak, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    mask = run(scores)
    stop.set()
    watcher.join()
    return {"mib": max(0, peak - before - mask.nbytes) / 2**20}


def _dtype(name: str) -> Any:
    import numpy as np

    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def save(array: Array, path: Path) -> None:
    """Write a matrix so that `peak_memory` can map it; bfloat16 as raw bits."""
    import numpy as np

    np.save(path, array.view(np.uint16) if array.dtype.name == "bfloat16" else array)


if __name__ == "__main__":
    print(json.dumps(_main(json.loads(sys.argv[1]))))
