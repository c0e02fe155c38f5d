"""Bands over a thread pool: answers in place, progress told, Ctrl-C obeyed."""

from __future__ import annotations

import functools
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .errors import OptionError
from .pattern import as_integer

__all__ = ["Progress", "available_cores", "check_workers", "report_progress", "run_bands"]

T = TypeVar("T")

#: ``True`` shows a tqdm bar; a callable is told ``(blocks_done, blocks_in_all)``, or steps.
Progress = bool | Callable[[int, int], None]

_OWN_CGROUPS = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 30


def available_cores() -> int:
    """Cores this process may use: its affinity mask, cut to its cgroups' CPU quota (v2).

    The quota is read once: files take as long to read as a small matrix takes to solve.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(cores, _quota()))


@functools.cache
def _quota() -> int:
    return _cgroup_cores()


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = _OWN_CGROUPS) -> int:
    """Smallest CPU quota of this process's cgroup (version 2) and of those above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return _NO_LIMIT
    place = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = root / place.strip("/")
    cores = _NO_LIMIT
    for group in (folder, *folder.parents):
        try:
            quota, period = (group / "cpu.max").read_text().split()
            cores = min(cores, math.ceil(int(quota) / int(period)))
        except (OSError, ValueError):  # no such file, or quota "max"
            pass
        if group == root:
            break
    return cores


def check_workers(workers: Any) -> int:
    """Return the number of threads to use; None means `available_cores`."""
    if workers is None:
        return available_cores()
    found = as_integer(workers)
    if found is None or found < 1:
        raise OptionError(f"workers must be a positive integer or None, got {workers!r}")
    return found


def run_bands(bands: Sequence[T], work: Callable[[T], None], *, workers: int) -> None:
    """Call ``work(band)`` for every band on up to `workers` threads, the caller's among them.

    Each call writes its answer to its own place, so order does not matter. Each thread begins
    with a share of neighbouring bands: two that write side by side would wait for one another
    wherever a new page of the answer is touched for the first time. Then it takes over from the
    others what they would come to last. The first error, or Ctrl-C, stops the bands that have
    not begun and is raised when those under way have returned: no work goes on after the call.
    """
    threads = max(1, min(workers, len(bands)))
    cuts = [len(bands) * k // threads for k in range(threads + 1)]
    shares = [deque(bands[a:b]) for a, b in itertools.pairwise(cuts)]
    lock, busy = threading.Lock(), threading.Condition()
    failures: list[BaseException] = []
    active = 0

    def take(own: deque[T]) -> T:
        """Return the next band; IndexError if there is none."""
        with lock:
            return own.popleft() if own else max(shares, key=len).pop()

    def drain(own: deque[T]) -> None:
        try:
            while not failures:
                try:
                    band = take(own)
                except IndexError:
                    return
                work(band)
        except BaseException as error:  # Ctrl-C too, in the main thread
            failures.append(error)

    def help_out(own: deque[T]) -> None:
        nonlocal active
        with busy:
            active += 1
        drain(own)  # a helper that begins too late finds nothing left, or a failure
        with busy:
            active -= 1
            busy.notify_all()

    helpers = [
        threading.Thread(target=help_out, args=(own,), name=f"masksolve-{index}")
        for index, own in enumerate(shares[1:], 1)
    ]
    try:
        for helper in helpers:
            helper.start()
        drain(shares[0])
    except BaseException as error:
        failures.append(error)
    # Not Thread.join alone: interrupted, it may call a thread ended that is not.
    while True:
        try:
            with busy:
                busy.wait_for(lambda: active == 0)
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()
            break
        except BaseException as interrupt:
            failures.append(interrupt)
    if failures:
        raise next((f for f in failures if isinstance(f, KeyboardInterrupt)), failures[0])


@contextmanager
def report_progress(
    progress: Progress, total: int, label: str, *, unit: str = "block"
) -> Iterator[Callable[[int], None]]:
    """Yield a thread-safe function that is told how many more blocks, or other units, are done."""
    if progress is False or progress is None:
        yield lambda _: None
        return
    if progress is True:
        from tqdm import tqdm

        with tqdm(total=total, desc=label, unit=unit, unit_scale=True) as bar:
            guard = threading.Lock()

            def update(blocks: int) -> None:
                with guard:
                    bar.update(blocks)

            yield update
        return
    if not callable(progress):
        raise OptionError(
            f"progress must be True, False or a callable taking (done, total), got {progress!r}"
        )
    done, lock = 0, threading.Lock()

    def advance(blocks: int) -> None:
        nonlocal done
        with lock:
            done += blocks
            progress(done, total)

    yield advance
