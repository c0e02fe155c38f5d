"""A tiny run of the training benchmark; the transformer it trains."""

import json

import torch

from benchmarks import training
from benchmarks.transformer import ByteTransformer, batch_of

TINY = {"width": 16, "depth": 1, "heads": 2, "context": 8}


def test_run_and_report(tmp_path):
    told = []
    data = {
        "date": "now",
        "machine": {"cpu": "x", "cores": 2, "load_before": 0, "load_after": 0},
        "versions": {"torch": torch.__version__},
        "settings": {"repeats": 2, "threads": 1, "quick": True},
        "steps": [training.measure_steps(2, TINY, 2, lambda *now: told.append(now))],
        "sparsify": training.measure_sparsify(2, TINY, lambda *now: told.append(now)),
    }
    assert {len(times) for times in data["steps"][0]["seconds"].values()} == {2}
    assert len(told) == 2 + 2 * len(training.LIMITS)
    paths = training.write(data, tmp_path)
    record = json.loads(paths[0].read_text())
    assert len(record["reach"]) == 2 * len(training.PATTERNS) + len(training.LIMITS)
    times = data["steps"][0]["seconds"]
    ratio = times["2:4, at an update"][0] / times["dense"][0]
    goal = next(
        g for g in record["reach"] if g["what"].startswith("step, width 16, 2:4, at an update")
    )
    assert goal["ratios"][0] == ratio
    assert goal["must"] == "<= 1.3×"
    assert goal["what"] in paths[1].read_text()


def test_the_transformer_looks_back_only():
    torch.manual_seed(0)
    model = ByteTransformer(**TINY)
    text = torch.arange(8)[None]
    other = text.clone()
    other[0, 5] = 200
    changed = (model(text) != model(other)).any(dim=2)[0]
    assert changed.tolist() == [False] * 5 + [True] * 3
    assert model.loss(torch.arange(9)[None]).item() > 0


def test_batches_are_pieces_of_the_text():
    text = bytes(range(20))
    batch = batch_of(text, 50, 4, torch.Generator().manual_seed(0))
    assert batch.shape == (50, 4)
    assert set(batch[:, 0].tolist()) == set(range(17))
    assert (batch.diff(dim=1) == 1).all()
