"""The run: probe, then time everything interleaved, then look at what was found."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import masksolve as ms
from masksolve.errors import MaskError

from . import probe
from .cases import (
    Array,
    Case,
    Contestant,
    Run,
    auto_label,
    contestants,
    make_matrix,
    sample_blocks,
    sample_grid,
)

__all__ = ["CALLS", "Settings", "Tell", "measure"]

#: Told what is done now, the steps done and the steps in all of the present stage.
Tell = Callable[[str, int, int], None]

_FIRST_BLOCKS = 16
#: Calls of a contestant in its turn, while they take less than a tenth of the time limit: the median counts.
#: Before them comes one that does not count: who comes after a contestant that used much memory, or none for
#: long, gets pages that the system has to make first.
CALLS = 5


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    repeats : int
        Turns of every contestant on every case; in each it is called once uncounted, then `CALLS`
        times, if it is fast.
    time_limit : float
        Seconds that one timed run may take; what would take longer runs on a sample of blocks
        that takes about a tenth of it, and is scaled.
    first_limit : float
        Seconds for the first call on one block, in a process of its own.
    compile_fresh : bool
        Measure the first call with an empty Numba cache as well.
    gap_blocks : int
        Blocks, evenly spaced, on which the gap is certified.
    methods : sequence of str
        Patterns of the labels to measure.
    processes : sequence of str
        Patterns of the labels whose first call and memory are measured, in fresh processes.
    """

    repeats: int = 5
    time_limit: float = 5.0
    first_limit: float = 120.0
    compile_fresh: bool = True
    gap_blocks: int = 1024
    methods: Sequence[str] = ("*",)
    processes: Sequence[str] = ("*",)


@dataclass
class _Entry:
    """One contestant on one case."""

    case: Case
    contestant: Contestant
    scores: Array | None = None
    run: Run | None = None
    blocks: int = 0
    status: str = "ok"
    seconds: list[float] = field(default_factory=list)
    quality: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        return self.case.blocks / self.blocks if self.blocks else 1.0

    def gets_process(self, settings: Settings) -> bool:
        label = self.contestant.label
        names = [label, "auto"] if label == auto_label(self.case) else [label]
        return self.contestant.kind in ("engine", "peer") and any(
            fnmatchcase(name, glob) for name in names for glob in settings.processes
        )

    def record(self, first: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return all that is known, for the JSON file."""
        case = asdict(self.case)
        del case["who"]
        return {
            "case": {**case, "key": self.case.key, "pattern": self.case.pattern},
            "label": self.contestant.label,
            "kind": self.contestant.kind,
            "exact": self.contestant.exact,
            "auto": self.contestant.label == auto_label(self.case),
            "status": self.status,
            "blocks": self.case.blocks,
            "measured_blocks": self.blocks,
            "sampled": 0 < self.blocks < self.case.blocks,
            "raw_seconds": self.seconds,
            "seconds": [s * self.scale for s in self.seconds],
            "quality": self.quality,
            "memory": self.memory,
            "first_call": first.get(_first_key(self.case, self.contestant.label), {}),
        }


def measure(cases: Sequence[Case], settings: Settings, tell: Tell) -> list[dict[str, Any]]:
    """Measure every contestant on every case; one record each.

    The repeats are the outermost loop, and the cases and the contestants within them are
    rotated from one repeat to the next: what the machine does meanwhile hits all alike.
    """
    entries = {
        case: [_Entry(case, c) for c in contestants(case, settings.methods)] for case in cases
    }
    first = _first_calls(entries, settings, tell)
    _plan(entries, first, settings, tell)
    _time(entries, settings, tell)
    _measure_memory(entries, settings, tell)
    return [entry.record(first) for group in entries.values() for entry in group]


def _first_key(case: Case, label: str) -> str:
    return f"{label} {case.pattern} {case.degree} {case.dtype}"


def _first_calls(
    entries: dict[Case, list[_Entry]], settings: Settings, tell: Tell
) -> dict[str, dict[str, Any]]:
    """Measure first calls in fresh processes; one that hangs or dies does so there."""
    asked = {
        _first_key(case, e.contestant.label): (case, e.contestant)
        for case, group in entries.items()
        for e in group
        if e.gets_process(settings)
    }
    found = {}
    for done, (key, (case, contestant)) in enumerate(asked.items()):
        tell(f"first call: {key}", done, len(asked))
        answer: dict[str, Any] = {}
        label, limit = contestant.label, settings.first_limit
        if settings.compile_fresh and contestant.compiled:
            answer["empty_cache"], answer["cached"] = probe.first_calls_ever(
                case, label, limit=limit
            )
        else:
            if contestant.compiled:  # fill the cache
                probe.first_call(case, label, limit=limit)
            answer["cached"] = probe.first_call(case, label, limit=limit)
        found[key] = answer
    return found


def _plan(
    entries: dict[Case, list[_Entry]],
    first: dict[str, dict[str, Any]],
    settings: Settings,
    tell: Tell,
) -> None:
    """Warm everything up, and decide what runs on a sample of its blocks."""
    total = sum(map(len, entries.values()))
    done = 0
    for case, group in entries.items():
        matrix = make_matrix(case.size, case.distribution, case.dtype)
        for entry in group:
            label = entry.contestant.label
            tell(f"probe: {label} on {case.key}", done, total)
            done += 1
            answer = first.get(_first_key(case, label), {}).get("cached", {})
            if "error" in answer:
                entry.status = answer["error"]
                continue
            try:
                _fit(entry, matrix, settings.time_limit)
            except Exception as error:
                entry.status = f"failed: {type(error).__name__}: {error}".splitlines()[0]


def _fit(entry: _Entry, matrix: Array, limit: float) -> None:
    """Take the whole matrix if that fits the limit, else so much that it takes a tenth of it."""
    case = entry.case
    count = min(_FIRST_BLOCKS, case.blocks)
    _take(entry, matrix, count)
    _call(entry)  # imports and compiles
    while True:
        spent, _ = _call(entry)
        if spent > limit / 100:  # no accident, no late compilation?
            spent = min(spent, _call(entry)[0])
        if spent > limit and count <= _FIRST_BLOCKS:
            entry.status = (
                f"not finished in {limit:g} s: {spent:.1f} s for {entry.blocks} of "
                f"{case.blocks} blocks"
            )
            return
        if spent <= limit and count == case.blocks:
            return
        if spent < limit / 100:  # too short to tell
            count = min(8 * count, case.blocks)
        elif spent * case.blocks / entry.blocks <= limit:
            count = case.blocks
        else:
            fitting = int(entry.blocks * limit / 10 / spent)
            if spent > limit or fitting > 2 * entry.blocks:
                _take(entry, matrix, max(1, fitting))
            return
        _take(entry, matrix, count)


def _call(entry: _Entry) -> tuple[float, Any]:
    assert entry.run is not None
    assert entry.scores is not None
    start = time.perf_counter()
    mask = entry.run(entry.scores)
    return time.perf_counter() - start, mask


def _take(entry: _Entry, matrix: Array, count: int) -> None:
    m = entry.case.m
    whole = count == entry.case.blocks
    array = matrix if whole else sample_blocks(matrix, m, count)
    entry.scores, entry.run = entry.contestant.prepare(array)
    entry.blocks = array.size // m**2


def _time(entries: dict[Case, list[_Entry]], settings: Settings, tell: Tell) -> None:
    cases = list(entries)
    total, done = settings.repeats * sum(map(len, entries.values())), 0
    for repeat in range(settings.repeats):
        for case in _rotate(cases, repeat):
            for entry in _rotate(entries[case], repeat):
                tell(f"repeat {repeat + 1}: {entry.contestant.label} on {case.key}", done, total)
                done += 1
                if entry.status == "ok":
                    _time_once(entry, settings, look=repeat == 0)


def _rotate(items: list[Any], by: int) -> list[Any]:
    by %= max(len(items), 1)
    return items[by:] + items[:by]


def _time_once(entry: _Entry, settings: Settings, *, look: bool) -> None:
    try:
        seconds: list[float] = []
        _call(entry)
        while len(seconds) < CALLS and sum(seconds) < settings.time_limit / 10:
            mask = None  # gives its memory back before the next call
            spent, mask = _call(entry)
            seconds.append(spent)
        entry.seconds.append(float(np.median(seconds)))
        if look and entry.contestant.kind != "limit":
            entry.quality = _judge(entry, mask, settings.gap_blocks)
    except Exception as error:
        entry.status = f"failed: {type(error).__name__}: {error}".splitlines()[0]


def _judge(entry: _Entry, mask: Any, gap_blocks: int) -> dict[str, Any]:
    """Judge a mask: valid? kept share of the whole; gap and under-full blocks on a sample."""
    case, scores = entry.case, entry.scores
    assert scores is not None
    found: dict[str, Any] = {"valid": True}
    try:
        ms.check_mask(mask, case.n, case.m, degree=case.degree)
    except MaskError as error:
        found |= {"valid": False, "violation": str(error)}
    kept = total = 0.0
    step = max(1, (1 << 20) // scores.shape[1])
    for start in range(0, len(scores), step):
        part = np.abs(scores[start : start + step].astype(np.float64))
        total += float(part.sum())
        kept += float(part[mask[start : start + step]].sum())
    found |= {"objective": kept * entry.scale, "kept_share": kept / total}
    count = max(1, min(gap_blocks, (1 << 18) // case.m**2))
    few, few_mask = (sample_blocks(np.asarray(a), case.m, count) for a in (scores, mask))
    grid = sample_grid(few_mask, case.m)
    short = (grid.sum(2) < case.n).any(2) | (grid.sum(3) < case.n).any(2)
    found |= {"looked_blocks": int(short.size), "under_full": float(short.mean())}
    if found["valid"]:
        certificate = _bound(case, few.tobytes(), few.dtype, few.shape)
        unit = np.ldexp(1.0, -certificate.shift)
        q = np.rint(np.abs(sample_grid(few, case.m).astype(np.float64)) / unit[..., None, None])
        objective = (q.astype(np.int64) * grid).sum(axis=(2, 3))
        lost = float(((certificate.bound - objective) * unit).sum())
        found |= {
            "gap": lost / float((certificate.bound * unit).sum()),
            "optimal_blocks": float((objective == certificate.bound).mean()),
        }
    return found


@lru_cache(maxsize=64)
def _bound(case: Case, content: bytes, dtype: Any, shape: tuple[int, ...]) -> ms.Certificate:
    """Certify a bound for some blocks; checked by code that knows no solver."""
    scores = np.frombuffer(content, dtype).reshape(shape)
    solution = ms.solve(scores, case.n, case.m, degree=case.degree)
    ms.check_certificate(solution.certificate, scores, solution.mask)
    return solution.certificate


def _measure_memory(entries: dict[Case, list[_Entry]], settings: Settings, tell: Tell) -> None:
    asked = [
        entry
        for case, group in entries.items()
        for entry in group
        if case.memory and entry.status == "ok" and entry.gets_process(settings)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path, saved = Path(folder) / "matrix.npy", None
        for done, entry in enumerate(asked):
            tell(f"memory: {entry.contestant.label} on {entry.case.key}", done, len(asked))
            assert entry.scores is not None
            if saved is not entry.scores:
                probe.save(entry.scores, path)
                saved = entry.scores
            limit = settings.first_limit + 4 * settings.time_limit
            entry.memory = probe.peak_memory(entry.case, entry.contestant.label, path, limit=limit)
