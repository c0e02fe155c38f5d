"""A tiny run writes well-formed JSON and Markdown."""

import json
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import cases, measure, report
from benchmarks.measure import Settings

SMALL = Settings(repeats=2, time_limit=5, compile_fresh=False, gap_blocks=16)


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """Fresh processes take seconds each; one test below starts one."""
    monkeypatch.setattr(measure.probe, "first_call", lambda *_, **__: {"seconds": 1.0})
    monkeypatch.setattr(measure.probe, "peak_memory", lambda *_, **__: {"mib": 2.0})


def run(chosen, **settings):
    settings = Settings(**{**SMALL.__dict__, **settings})
    return measure.measure(chosen, settings, lambda *_: None)


def as_data(records, size):
    return {
        "commands": ["python -m benchmarks cpu --time-limit 5"],
        "dates": ["now"],
        "machine": {"cpu": "x", "cores": 2, "load_before": 0, "load_after": 0},
        "versions": {"numpy": np.__version__},
        "settings": {**SMALL.__dict__, "size": size, "workers": 2, "tsenor": {}},
        "records": records,
    }


def test_run_and_report(tmp_path):
    chosen = cases.crossed_cases([32], ["2:4"], ["float32"], ["gaussian", "minilm"], 2)
    records = run(chosen, methods=("conv/*", "greedy/native", "all-*", "solve*"))
    assert {r["status"] for r in records} == {"ok"}
    paths = list(report.write(as_data(records, 32), tmp_path))
    data = json.loads((tmp_path / "cpu.json").read_text())
    assert [len(r["raw_seconds"]) for r in data["records"]] == [2] * len(records)
    exact = [r for r in data["records"] if r["exact"]]
    assert {r["quality"]["gap"] for r in exact if r["kind"] != "peer"} == {0}
    assert all(r["quality"]["valid"] for r in data["records"] if r["kind"] != "limit")
    text = (tmp_path / "cpu.md").read_text()
    assert "## Reach" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 20
    for first, second in pairwise(tables):
        if second.startswith("| ---"):
            width = first.count("|")
        assert first.startswith("| method") or first.count("|") == width
    assert [p.suffix for p in paths] == [".json", ".md", ".png"]
    assert all(p.stat().st_size > 500 for p in paths)


def test_slow_ones_are_sampled_and_scaled():
    (case,) = cases.crossed_cases([256], ["2:4"], ["float32"], ["gaussian"], 1)
    records = run([case], methods=("flow/networkx",), time_limit=0.5, repeats=1)
    slow = next(r for r in records if r["label"] == "flow/networkx")
    assert slow["sampled"]
    assert slow["measured_blocks"] < case.blocks
    assert slow["seconds"][0] == pytest.approx(
        slow["raw_seconds"][0] * case.blocks / slow["measured_blocks"]
    )
    assert "sampled" in report.to_markdown(as_data(records, 256))


def test_a_fast_contestant_is_called_once_uncounted_and_then_several_times(monkeypatch):
    """The median of what counts is the time of a turn."""
    turns, spent = [], iter(range(100))

    def call(entry):
        turns.append(entry.contestant.label)
        return next(spent) / 1e4, np.zeros((32, 32), bool)

    (case,) = cases.crossed_cases([32], ["2:4"], ["float32"], ["gaussian"], 1)
    contestant = cases.contestants(case, ("limit",))[0]
    entry = measure._Entry(case, contestant)
    monkeypatch.setattr(measure, "_call", call)
    measure._time_once(entry, Settings(**SMALL.__dict__), look=False)
    assert len(turns) == 1 + measure.CALLS
    assert entry.seconds == [3e-4], "the median of 1 to 5, not of 0 to 5"
    measure._time_once(entry, Settings(time_limit=1e-4), look=False)
    assert len(turns) == 1 + measure.CALLS + 2, "a slow one is called once, and once"


def test_what_cannot_finish_is_recorded():
    (case,) = cases.crossed_cases([64], ["8:16"], ["float32"], ["gaussian"], 1)
    records = run([case], methods=("flow/highs",), time_limit=1e-3)
    slow = next(r for r in records if r["label"] == "flow/highs")
    assert slow["status"].startswith("not finished")
    assert "not finished" in report.to_markdown(as_data(records, 64))


def test_what_fails_is_recorded(monkeypatch):
    def boom(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(measure, "_take", boom)
    (case,) = cases.crossed_cases([64], ["8:16"], ["float32"], ["gaussian"], 1)
    assert {r["status"] for r in run([case])} == {"failed: RuntimeError: boom"}


def test_reach_reads_ratios_within_a_repeat():
    (case,) = cases.crossed_cases([64], ["2:4"], ["float32"], ["gaussian"], 2)
    records = run([case], methods=("auto",))
    assert [r["kind"] for r in records] == ["limit", "limit", "engine", "there"]
    records[0]["seconds"], records[2]["seconds"] = [1.0, 2.0], [1.8, 3.6]
    records[3]["seconds"] = [1.4, 2.8]
    goals = {goal.what: goal for goal in report.reach(as_data(records, 64))}
    goal = goals["2:4 exact, `auto`, against the limit"]
    assert goal.ratios == [1.8, 1.8]
    assert goal.verdict == "met"
    there = goals["2:4 exact, `auto`, into a mask that is there (`out`), against the limit"]
    assert (there.ratios, there.verdict) == ([1.4, 1.4], "aim met")
    assert goals["4:8 exact, `auto`, against the limit"].verdict == "not measured"


def test_what_is_measured_again_replaces_what_is_there(tmp_path):
    (case,) = cases.crossed_cases([64], ["2:4"], ["float32"], ["gaussian"], 2)
    before = as_data(run([case], methods=("auto", "greedy/*")), 64)
    report.write(before, tmp_path)
    again = as_data(run([case], methods=("greedy/*", "flow/native")), 64)
    whole = report.updated(json.loads((tmp_path / "cpu.json").read_text()), again)
    assert [r["label"] for r in whole["records"]] == [r["label"] for r in before["records"]]
    for old, new in zip(before["records"], whole["records"], strict=True):
        source = again if old["label"] == "greedy/native" else before
        assert new["seconds"] in [r["seconds"] for r in source["records"]]
    assert whole["dates"] == ["now", "now"]
    assert "` and `python" in report.to_markdown(whole)
    again["machine"]["cpu"] = "y"
    with pytest.raises(ValueError, match="cpu x, not y"):
        report.updated(before, again)


def test_samples_are_blocks_of_the_matrix():
    W = np.arange(64 * 64).reshape(64, 64)
    sample = cases.sample_blocks(W, 4, 100)
    assert sample.shape == (4, 64 * 4)
    starts = {(int(b[0, 0]) // 64, int(b[0, 0]) % 64) for b in cases.sample_grid(sample, 4)[0]}
    assert len(starts) == 64
    assert all(row % 4 == 0 and column % 4 == 0 for row, column in starts)
    np.testing.assert_array_equal(cases.sample_blocks(W, 4, 256), cases.sample_blocks(W, 4, 999))


@pytest.mark.parametrize("distribution", cases.DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_matrices(distribution, dtype):
    matrix = cases.make_matrix(128, distribution, dtype)
    assert matrix.shape == (128, 128)
    assert matrix.dtype.name == dtype
    assert np.isfinite(matrix.astype(float)).all()


def test_default_cases_cover_every_axis():
    chosen = cases.default_cases(8192, 2)
    assert {c.pattern for c in chosen} == {"1:4", "2:4", "4:8", "8:16", "16:32", "32:64"}
    assert {c.size for c in chosen} == {1024, 2048, 4096, 8192}
    assert {c.dtype for c in chosen} == set(cases.DTYPES)
    assert {c.distribution for c in chosen} == set(cases.DISTRIBUTIONS)
    assert len({c.key for c in chosen}) == len(chosen)


def test_probe_in_a_fresh_process(monkeypatch, tmp_path):
    monkeypatch.undo()
    case = cases.Case(64, 2, 4, 1)
    matrix = cases.make_matrix(64, "gaussian", "bfloat16")
    measure.probe.save(matrix, tmp_path / "w.npy")
    case = cases.Case(64, 2, 4, 1, dtype="bfloat16")
    found = measure.probe.peak_memory(case, "all-patterns/numpy", tmp_path / "w.npy", limit=60)
    assert 0 <= found["mib"] < 50
    assert all(
        answer["seconds"] > 0
        for answer in measure.probe.first_calls_ever(case, "greedy/native", limit=120)
    )
    late = measure.probe.first_call(case, "flow/ortools", limit=0.01)
    assert late["timeout"]
