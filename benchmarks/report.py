"""JSON, Markdown tables and plots of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .measure import CALLS

__all__ = [
    "Goal",
    "finite",
    "goal_record",
    "middle",
    "reach",
    "table",
    "time_of",
    "to_markdown",
    "updated",
    "write",
]

Record = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """One row of the table Reach.

    Parameters
    ----------
    what : str
    must, aim : str
        The goals, as words.
    numbers : tuple of (float or None)
        Must and aim as numbers.
    ratios : list of float
        What was measured, one a repeat.
    better : {"low", "high", "one"}
        Whether the ratio should be low, high, or within `must` of one.
    note : str
    """

    what: str
    must: str
    aim: str
    numbers: tuple[float | None, float | None]
    ratios: list[float]
    better: str = "low"
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the goal is met by the median."""
        if not self.ratios:
            return "not measured"
        median = float(np.median(self.ratios))

        def met(goal: float) -> bool:
            if self.better == "one":
                return abs(median - 1) <= goal
            return median <= goal if self.better == "low" else median >= goal

        must, aim = self.numbers
        if aim is not None and met(aim):
            return "aim met"
        if must is None:
            return "–"
        return "met" if met(must) else "missed"


class _Records:
    """The records of a run, looked up by case and label."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    def find(self, label: str, **case: Any) -> Record | None:
        for record in self.records:
            if all(record["case"][k] == v for k, v in case.items()) and (
                record["auto"] if label == "auto" else label in (record["label"], record["kind"])
            ):
                return record
        return None

    def ratios(self, top: Record | None, bottom: Record | None) -> list[float]:
        """Ratio of the times within each repeat: both saw the machine in the same state."""
        if top is None or bottom is None:
            return []
        pairs = zip(top["seconds"], bottom["seconds"], strict=False)
        return [a / b for a, b in pairs]


def reach(data: Record) -> list[Goal]:
    """Measure the goals of the project: ratios within the run."""
    size, workers = data["settings"]["size"], data["settings"]["workers"]
    records = _Records(data["records"])
    base = {
        "size": size, "workers": workers, "dtype": "float32", "distribution": "gaussian",
        "degree": "exact",
    }  # fmt: skip

    def find(label: str, pattern: str, **other: Any) -> Record | None:
        return records.find(label, **{**base, "pattern": pattern, **other})

    def against(top: Record | None, bottom: Record | None) -> dict[str, Any]:
        note = "; ".join(
            f"{r['label']} on {r['measured_blocks']} of {r['blocks']} blocks, scaled"
            for r in (top, bottom)
            if r is not None and r["sampled"]
        )
        return {"ratios": records.ratios(top, bottom), "note": note}

    goals = []
    for pattern, must, aim in (
        ("1:4", None, None), ("2:4", 2.0, 1.5), ("4:8", 30.0, 20.0), ("8:16", 50.0, 30.0),
        ("16:32", 90.0, 50.0), ("32:64", None, None),
    ):  # fmt: skip
        found = against(find("auto", pattern), find("limit", pattern))
        goals.append(
            Goal(
                f"{pattern} exact, `auto`, against the limit",
                f"<= {must:g}×" if must else "", f"<= {aim:g}×" if aim else "",
                (must, aim), **found,
            )
        )  # fmt: skip
    same = {"size": size // 8, "workers": 1}
    goals.append(
        Goal(
            f"8:16, `flow/ortools` against `auto`, the same {(size // 128) ** 2} blocks, "
            "one worker each",
            ">= 60×", "150×", (60, 150), better="high",
            **against(find("flow/ortools", "8:16", **same), find("auto", "8:16", **same)),
        )
    )  # fmt: skip
    for degree, must, aim in (("exact", 2.0, 1.5), ("at_most", 3.0, 2.0)):
        like = {"degree": degree}
        goals += [
            Goal(
                f"2:4 {degree}, `auto`, into a mask that is there (`out`), against the limit",
                f"<= {must:g}×", f"<= {aim:g}×", (must, aim),
                **against(find("there", "2:4", **like), find("limit", "2:4", **like)),
            ),
            Goal(
                f"2:4 {degree}, `auto`, against thresholding into a new array", "", "",
                (None, None),
                **against(find("auto", "2:4", **like), find("limit, new mask", "2:4", **like)),
            ),
        ]  # fmt: skip
    for label in dict.fromkeys(r["label"] for r in data["records"] if "tsenor" in r["label"]):
        record = find(label, "8:16")
        found = against(record, find("auto", "8:16"))
        gap = (record or {}).get("quality", {}).get("gap")
        error = "" if gap is None else f"its error {gap:.3%}"
        found["note"] = "; ".join(filter(None, (error, found["note"])))
        goals.append(
            Goal(
                f"8:16, `{label}` against `auto`",
                ">= 20×",
                "100×",
                (20, 100),
                better="high",
                **found,
            )
        )
    for noise, must, aim in ((0.01, 3, 10), (0.001, None, None), (0.0001, None, None)):
        warm = find(f"solve, warm, {noise:g} noise", "8:16")
        goals.append(
            Goal(
                f"8:16, `solve` cold against warm start, W + {noise:.2%} noise",
                f">= {must}×" if must else "", f"{aim}×" if aim else "", (must, aim),
                better="high", **against(find("solve", "8:16"), warm),
            )
        )  # fmt: skip
    loose = {"degree": "at_most"}
    goals.append(
        Goal(
            "2:4 `at_most`, `auto`, against the limit", "<= 3×", "<= 2×", (3, 2),
            **against(find("auto", "2:4", **loose), find("limit", "2:4", **loose)),
        )
    )  # fmt: skip
    goals.append(
        Goal(
            "8:16, `greedy/native` against `auto`", "<= 1×", "", (1, None),
            **against(find("greedy/native", "8:16"), find("auto", "8:16")),
        )
    )  # fmt: skip
    for pattern in ("2:4", "8:16"):
        small, large = find("auto", pattern, size=size // 4), find("auto", pattern)
        found = against(large, small)
        found["ratios"] = [ratio / 16 for ratio in found["ratios"]]
        mib = [(r or {}).get("memory", {}).get("mib") for r in (small, large)]
        if None not in mib:
            found["note"] = f"peak memory {mib[0]:.0f} MiB -> {mib[1]:.0f} MiB"
        goals.append(
            Goal(
                f"{pattern}, growth {size // 4}² -> {size}² of `auto`, time per block",
                "1 within 15 %", "", (0.15, None), better="one", **found,
            )
        )  # fmt: skip
    for pattern in ("2:4", "8:16"):
        found = against(find("auto", pattern, workers=1), find("auto", pattern))
        goals.append(
            Goal(
                f"{pattern}, one worker against {workers}, `auto`", ">= 1.8×", "", (1.8, None),
                better="high", **found,
            )
        )  # fmt: skip
    for distribution in ("student", "integer", "minilm"):
        for pattern in ("2:4", "4:8", "8:16", "16:32"):
            found = against(find("auto", pattern, distribution=distribution), find("auto", pattern))
            if found["ratios"] or pattern == "8:16":
                goals.append(
                    Goal(
                        f"{pattern}, {distribution} against Gaussian, `auto`", "<= 2×", "",
                        (2, None), **found,
                    )
                )  # fmt: skip
    for dtype in ("float16", "bfloat16"):
        for pattern in ("2:4", "8:16"):
            found = against(find("auto", pattern, dtype=dtype), find("auto", pattern))
            if found["ratios"]:
                goals.append(
                    Goal(
                        f"{pattern}, {dtype} against float32, `auto`",
                        "<= 1×",
                        "",
                        (1, None),
                        **found,
                    )
                )
    return goals


def to_markdown(data: Record) -> str:
    """Return all tables of a run as Markdown."""
    machine, settings = data["machine"], data["settings"]
    size = settings["size"]
    lines = [
        "# masksolve on CPU",
        "",
        f"Written by {' and '.join(f'`{c}`' for c in data['commands'])}; not to be edited. "
        f"{machine['cpu']}, {settings['workers']} of {machine['cores']} cores; "
        + ", ".join(f"{k} {v}" for k, v in data["versions"].items())
        + f"; {' and '.join(data['dates'])}. Load average before and after: {machine['load_before']}, "
        f"{machine['load_after']}.",
        "",
        f"Times are medians of {settings['repeats']} interleaved repeats, with quartiles in "
        "brackets. *Limit* is thresholding the same matrix into a boolean array that is there, on the "
        "same threads (*new mask*: into one that is made, as all others do but those of *mask there*); ratios are formed within "
        f"each repeat, where each is called once, uncounted, then up to {CALLS} times, until that has taken "
        f"{settings['time_limit'] / 10:g} s, and the median counts. What could not do the matrix within "
        f"{settings['time_limit']:g} s a run was measured on evenly spaced blocks and scaled: "
        "*sampled*. The gap is that of evenly spaced blocks "
        f"(up to {settings['gap_blocks']}) to a bound certified in integers; 0 is exact. "
        "*Under-full*: share of these blocks with a line that keeps fewer than n. *Memory*: peak "
        "beyond input and mask. *First call*: on one block in a fresh process, imports included, "
        "with the Numba cache filled, and with it empty.",
        "",
        "TSENOR settings: "
        + "; ".join(
            f"`{label}`: {s['iterations']} Dykstra iterations, entropy weight "
            f"{s['regularisation']:g} max|W|, "
            + (
                "one fused Numba kernel, float64"
                if s["compiled"]
                else "NumPy in log domain, float32"
            )
            for label, s in settings["tsenor"].items()
        )
        + "; swaps until every line keeps n.",
        "",
        "## Reach",
        "",
        f"Gaussian float32, {size}², {settings['workers']} workers, unless the row says otherwise."
        + ("" if size == 8192 else " The goals are stated for 8192²."),
        "",
        *table(
            ["what", "must", "aim", "measured", "quartiles", "verdict", "note"],
            ([g.what, g.must, g.aim, *middle(g.ratios), g.verdict, g.note] for g in reach(data)),
        ),
    ]
    keys = dict.fromkeys(record["case"]["key"] for record in data["records"])
    for key in keys:
        group = [record for record in data["records"] if record["case"]["key"] == key]
        lines += ["", f"## {key}", "", *_case_table(group)]
    return "\n".join(lines) + "\n"


def _case_table(group: list[Record]) -> list[str]:
    limit: list[float] = next((r["seconds"] for r in group if r["kind"] == "limit"), [])
    rows = []
    for record in group:
        label = f"`{record['label']}`" + (" (auto)" if record["auto"] else "")
        quality, first = record["quality"], record["first_call"]
        ratios = [a / b for a, b in zip(record["seconds"], limit, strict=False)]
        note = ""
        if record["status"] != "ok":
            note = record["status"]
        elif record["sampled"]:
            note = f"sampled: {record['measured_blocks']} of {record['blocks']} blocks"
        if quality.get("valid") is False:
            note = "; ".join(filter(None, (note, f"INVALID: {quality['violation']}")))
        rows.append(
            [
                label,
                time_of(record["seconds"]),
                middle(ratios)[0],
                "≈ " * (record["sampled"] and "objective" in quality)
                + _number(quality.get("objective"), ".6g"),
                _number(quality.get("kept_share"), ".4f"),
                _gap(quality.get("gap")),
                _number(quality.get("under_full"), ".1%"),
                _number(record["memory"].get("mib"), ".0f", " MiB")
                or record["memory"].get("error", ""),
                " / ".join(
                    _number(first[k].get("seconds"), ".2f", " s") or first[k].get("error", "")
                    for k in ("cached", "empty_cache")
                    if k in first
                ),
                note,
            ]
        )
    return table(
        ["method", "time", "of limit", "objective", "kept share", "gap", "under-full", "memory",
         "first call", "note"],
        rows,
    )  # fmt: skip


def table(head: list[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]


def middle(values: Sequence[float]) -> tuple[str, str]:
    """Return the median of ratios, and their quartiles, as words."""
    if not values:
        return "–", ""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{_short(middle)}×", f"{_short(low)}–{_short(high)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def time_of(seconds: Sequence[float]) -> str:
    """Return the median of times with their quartiles, as words."""
    if not seconds:
        return "–"
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    unit, scale = ("s", 1) if middle >= 1 else ("ms", 1000)
    return f"{_short(middle * scale)} {unit} [{_short(low * scale)}–{_short(high * scale)}]"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def _gap(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.2e}"


def updated(before: Record, data: Record) -> Record:
    """Return earlier results with what was measured again in place of the same; limits stay.

    Raises
    ------
    ValueError
        They are of another machine or of other versions: times would not compare.
    """
    for name, was, now in (
        ("cpu", before["machine"]["cpu"], data["machine"]["cpu"]),
        ("versions", before["versions"], data["versions"]),
        ("workers", before["settings"]["workers"], data["settings"]["workers"]),
    ):
        if was != now:
            raise ValueError(f"the results that are there are of {name} {was}, not {now}")

    def which(record: Record) -> tuple[str, str]:
        return record["case"]["key"], record["label"]

    again = {which(r): r for r in data["records"] if r["kind"] != "limit"}
    return {
        **before,
        "commands": before["commands"] + data["commands"],
        "dates": before["dates"] + data["dates"],
        "records": [again.get(which(record), record) for record in before["records"]],
    }


def write(data: Record, folder: Path, name: str = "cpu") -> list[Path]:
    """Write ``name.json``, ``name.md`` and the plots; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {**data, "reach": [goal_record(goal) for goal in reach(data)]}
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    paths[0].write_text(json.dumps(finite(data), indent=1, allow_nan=False) + "\n")
    paths[1].write_text(to_markdown(data))
    return [*paths, *_plots(data["records"], folder, name)]


def goal_record(goal: Goal) -> Record:
    """Return a goal and its verdict as a record."""
    return {**goal.__dict__, "verdict": goal.verdict}


def finite(value: Any) -> Any:
    """Return a record with None for numbers that are not finite: JSON has none."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plots(records: Sequence[Record], folder: Path, name: str) -> Iterator[Path]:
    from matplotlib.figure import Figure

    plain = [
        r for r in records
        if r["seconds"] and r["case"]["degree"] == "exact" and r["case"]["dtype"] == "float32"
        and r["case"]["distribution"] == "gaussian"
    ]  # fmt: skip
    workers = max((r["case"]["workers"] for r in plain), default=1)
    plain = [r for r in plain if r["case"]["workers"] == workers]
    labels = list(dict.fromkeys(r["label"] for r in plain))
    style = {label: (f"C{i % 10}", "os^vD<>P"[i % 8]) for i, label in enumerate(labels)}
    sizes: dict[str, set[int]] = {}
    for r in plain:
        sizes.setdefault(r["case"]["pattern"], set()).add(r["case"]["size"])
    for title, stem, draw in (
        ("Time against size", "time", _draw_times),
        ("Gap against time", "gap", _draw_gaps),
    ):
        shown = [p for p in sizes if stem == "gap" or len(sizes[p]) > 1]
        if not shown:
            continue
        columns = min(3, len(shown))
        rows = -(-len(shown) // columns)
        figure = Figure(figsize=(5 * columns, 4 * rows + 1), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, pattern in zip(axes, shown, strict=False):
            draw(axis, [r for r in plain if r["case"]["pattern"] == pattern], style)
            axis.grid(alpha=0.3, which="both")
        for axis in axes[len(shown) :]:
            axis.remove()
        handles = {
            text: handle
            for axis in figure.axes
            for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        figure.suptitle(f"{title} (hollow: scaled from a sample of blocks)")
        path = folder / f"{name}_{stem}.png"
        figure.savefig(path, dpi=110)
        yield path


def _draw_times(axis: Any, records: list[Record], style: dict[str, tuple[str, str]]) -> None:
    for label, (colour, marker) in style.items():
        rows = sorted((r for r in records if r["label"] == label), key=lambda r: r["case"]["size"])
        if not rows:
            continue
        x = [r["case"]["size"] for r in rows]
        y, low, high = (
            np.array([np.quantile(r["seconds"], q) for r in rows]) for q in (0.5, 0.25, 0.75)
        )
        axis.errorbar(x, y, [y - low, high - y], color=colour, linewidth=1)
        axis.plot([], [], marker, color=colour, linestyle="-", linewidth=1, label=label)
        for r, time in zip(rows, y, strict=True):
            axis.plot(
                r["case"]["size"], time, marker, color=colour,
                fillstyle="none" if r["sampled"] else "full",
            )  # fmt: skip
    ticks = sorted({r["case"]["size"] for r in records})
    axis.set(xscale="log", yscale="log", xlabel="size", ylabel="seconds")
    axis.set_xticks(ticks, [f"{size}²" for size in ticks], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_title(f"{records[0]['case']['pattern']} exact")


def _draw_gaps(axis: Any, records: list[Record], style: dict[str, tuple[str, str]]) -> None:
    size = max(r["case"]["size"] for r in records)
    for r in records:
        if r["case"]["size"] != size or r["quality"].get("gap") is None:
            continue
        colour, marker = style[r["label"]]
        axis.plot(
            float(np.median(r["seconds"])), r["quality"]["gap"], marker, color=colour,
            fillstyle="none" if r["sampled"] else "full", label=r["label"],
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=1e-5)
    worst = max((r["quality"].get("gap") or 0 for r in records), default=0)
    axis.set_ylim(-2e-6, max(3 * worst, 1e-5))
    axis.set(xlabel="seconds", ylabel="gap to the certified bound")
    axis.set_title(f"{records[0]['case']['pattern']} exact, {size}²")
