"""What masks cost in training: steps of a small transformer, dense and masked, in turn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import masksolve.torch as mt

from .measure import Tell
from .report import Goal, finite, goal_record, middle, table, time_of
from .transformer import ByteTransformer, batch_of

__all__ = ["measure_sparsify", "measure_steps", "reach", "to_markdown", "write"]

PATTERNS = ((2, 4), (4, 8))
#: Seconds that sparsifying the large model may take.
LIMITS = {(2, 4): 1.0, (8, 16): 4.0}


def measure_steps(repeats: int, model: dict[str, int], batch: int, tell: Tell) -> dict[str, Any]:
    """Time training steps; the contestants take turns, in another order in every repeat."""
    text = Path(__file__).with_name("transformer.py").read_bytes()
    length = model["context"] + 1
    batches = batch_of(text, batch, length, torch.Generator().manual_seed(0))
    steps = {"dense": _stepper(model, batches, None, 0)}
    for pattern in PATTERNS:
        name = "{}:{}".format(*pattern)
        steps[f"{name}, between updates"] = _stepper(model, batches, pattern, 10**9)
        steps[f"{name}, at an update"] = _stepper(model, batches, pattern, 1)
    for step in (*steps.values(), *steps.values()):  # compile, and fill the caches
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for repeat in range(repeats):
        tell("training steps", repeat, repeats)
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            wall, cpu = _timed(steps[name])
            seconds[name].append(wall)
            cpu_seconds[name].append(cpu)
    return {"model": model, "batch": batch, "seconds": seconds, "cpu_seconds": cpu_seconds}


def _stepper(
    model: dict[str, int], batch: torch.Tensor, pattern: tuple[int, int] | None, update_every: int
) -> Callable[[], None]:
    torch.manual_seed(0)
    network = ByteTransformer(**model)
    if pattern is not None:
        mt.sparsify(network, *pattern, exclude="head")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    if pattern is not None:
        mt.SparseTraining(network, optimizer, update_every=update_every, decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        network.loss(batch).backward()
        optimizer.step()

    return step


def measure_sparsify(repeats: int, model: dict[str, int], tell: Tell) -> dict[str, Any]:
    """Time `sparsify` of a large model; its patterns take turns."""
    torch.manual_seed(0)
    network = ByteTransformer(**model)
    seconds: dict[str, list[float]] = {"{}:{}".format(*pattern): [] for pattern in LIMITS}
    for repeat in range(repeats):
        for n, m in LIMITS:
            tell(f"sparsify {n}:{m}", repeat, repeats)
            seconds[f"{n}:{m}"].append(_timed(lambda n=n, m=m: mt.sparsify(network, n, m))[0])
            mt.desparsify(network, bake=False)
    parameters = sum(weight.numel() for weight in network.parameters())
    return {"model": model, "parameters": parameters, "seconds": seconds}


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that passed, and those of all threads on a CPU."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - cpu


def reach(data: dict[str, Any]) -> list[Goal]:
    """Form the goals: ratios within each repeat, and seconds."""
    goals = []
    for steps in data["steps"]:
        for name in steps["seconds"]:
            if name == "dense":
                continue
            must = 1.05 if "between" in name else 1.30
            wall, cpu = (
                [a / b for a, b in zip(times[name], times["dense"], strict=True)]
                for times in (steps["seconds"], steps["cpu_seconds"])
            )
            what = f"step, width {steps['model']['width']}, {name}, of a dense one"
            note = " ".join(middle(cpu))
            goals.append(Goal(what, f"<= {must}×", "", (must, None), wall, note=note))
    for (n, m), limit in LIMITS.items():
        times = data["sparsify"]["seconds"][f"{n}:{m}"]
        what = f"sparsify, {n}:{m}, {data['sparsify']['parameters'] / 1e6:.0f} M parameters"
        goals.append(Goal(what, f"<= {limit:g} s", "", (limit, None), times))
    return goals


def to_markdown(data: dict[str, Any]) -> str:
    """Return the tables of a run as Markdown."""
    machine, settings = data["machine"], data["settings"]
    rows = []
    for goal in reach(data):
        measured, quartiles = middle(goal.ratios)
        if goal.must.endswith("s"):
            measured = measured.replace("×", " s")
        rows.append([goal.what, goal.must, measured, quartiles, goal.verdict, goal.note])
    lines = [
        "# masksolve.torch: what masks cost in training",
        "",
        "Written by `python -m benchmarks training`; not to be edited. "
        f"{machine['cpu']}, {machine['cores']} cores, {settings['threads']} threads of PyTorch; "
        + ", ".join(f"{k} {v}" for k, v in data["versions"].items())
        + f"; {data['date']}. Load average before and after: {machine['load_before']}, "
        f"{machine['load_after']}.",
        "",
        "Transformers over bytes ("
        + "; ".join(f"{_told(steps['model'])}, batch {steps['batch']}" for steps in data["steps"])
        + "), float32, AdamW, all linear layers but the head masked, with masked decay. "
        f"{settings['repeats']} repeats, interleaved; medians, with quartiles; ratios are formed "
        f"within each repeat. *CPU*: the same ratio of the time that threads spent on a CPU, which "
        f"others on the machine disturb less. The model to sparsify: "
        f"{_told(data['sparsify']['model'])}.",
        "",
        "## Reach",
        "",
        *table(["what", "must", "measured", "quartiles", "verdict", "CPU"], rows),
        "",
        "## Steps",
        "",
        *table(
            ["width", "step", "time"],
            [
                [str(steps["model"]["width"]), name, time_of(times)]
                for steps in data["steps"]
                for name, times in steps["seconds"].items()
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _told(model: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in model.items())


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``training.json`` and ``training.md``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "training.json", folder / "training.md"]
    record = finite({**data, "reach": [goal_record(goal) for goal in reach(data)]})
    paths[0].write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    paths[1].write_text(to_markdown(data))
    return paths
