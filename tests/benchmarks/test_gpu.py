"""A tiny run of the GPU benchmark, in Triton's interpreter where there is no GPU."""

import json

import pytest
import torch

from benchmarks import gpu

pytest.importorskip("triton", reason="Triton is there for Linux alone")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_run_and_report(tmp_path):
    told = []
    records = gpu.measure((32,), 2, DEVICE, lambda *now: told.append(now))
    assert len(told) == 2
    assert all(len(record["ms"]) == 2 for record in records)
    names = {record["name"] for record in records}
    assert {"copy", "2:4, all patterns", "4:8, flow", "16:32, flow", "geglu"} <= names
    data = {
        "date": "now", "device": "x", "versions": {}, "settings": {"repeats": 2}, "records": records
    }  # fmt: skip
    paths = gpu.write(data, tmp_path)
    record = json.loads(paths[0].read_text())
    assert {goal["verdict"] for goal in record["reach"]} == {"not measured"}  # 8192² was not run
    for record in records:
        record["group"] = record["group"].replace("32²", "8192²")
    goal = gpu.reach(records)[0]
    times = {r["name"]: r["ms"] for r in records if r["group"] == "8192² bfloat16"}
    assert goal.ratios == [
        a / b for a, b in zip(times["2:4, all patterns"], times["copy"], strict=True)
    ]


def test_a_sparse_step_has_its_share_of_the_updates():
    times = {"dense": 2.0, "sparse": 1.0, "sparse, at an update of masks": 5.0}
    records = [{"group": "FFN 4096", "name": f"{k}, step", "ms": [v]} for k, v in times.items()]
    goal = next(g for g in gpu.reach(records) if g.what.startswith("FFN step"))
    assert goal.ratios == [(39 * 1.0 + 5.0) / 40 / 2.0]
    assert goal.verdict == "aim met"


def test_a_wrong_mask_is_not_timed():
    search = next(c for c in gpu.contestants(32, DEVICE) if c.name == "2:4, all patterns")
    with pytest.raises(AssertionError, match="keeps"):
        search.check(torch.eye(2, dtype=torch.bool, device=DEVICE).repeat(16, 16))


def test_the_transport_ends_near_the_constraints():
    S = gpu.transport(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)), 8, 16).exp()
    for axis in (1, 2):
        assert float((S.sum(axis) - 8).abs().mean()) < 0.05
    assert float(S.max()) <= 1
