"""The command ``masksolve``: find and compare masks of the tensors in a file.

Results go to stdout; progress and errors, one line each, to stderr. The exit code is 2 for
anything the user can mend, and 130 after Ctrl-C.
"""

from __future__ import annotations

import difflib
import fnmatch
import io
import json
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from . import __version__
from .errors import FileError, MaskSolveError, OptionError

if TYPE_CHECKING:
    import typer  # noqa: TC004  # at run time `_make_app` imports it, where it may be missing
    from rich.table import Table

    from .files import Output, TensorFile, TensorInfo
    from .pattern import Pattern
    from .solution import Comparison, MaskSolution

__all__ = ["main"]

# Digits of a count that are shown; beyond, its order of magnitude.
_MOST_DIGITS = 100
_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows ``masksolve``; by default, what the shell gave.

    Returns
    -------
    int
        0 if all went well, 2 after an error, 130 after Ctrl-C.

    Examples
    --------
    >>> main(["--version"])  # doctest: +ELLIPSIS
    masksolve ...
    0
    """
    try:
        app = _make_app()
    except ImportError as error:
        return _fail(
            f'the command line needs more packages: pip install "masksolve[cli]" ({error})'
        )
    try:
        with _terminate_by_exception():
            code = app(arguments, prog_name="masksolve", standalone_mode=False)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except (MaskSolveError, OSError) as error:
        return _fail(error)
    except Exception as error:
        if not hasattr(error, "format_message"):  # else it is about the usage
            raise
        return _fail(f"{error.format_message()} Try: masksolve --help")
    if code == _INTERRUPTED:
        sys.stderr.write("masksolve: interrupted\n")
    return code or 0


def _make_app() -> typer.Typer:
    # typer evaluates the annotations below only now: this module can be imported without it.
    global typer
    import rich  # noqa: F401
    import typer

    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_masksolve)
    app.command("find")(_find)
    app.command("compare")(_compare)
    app.command("methods")(_methods)
    app.command("count")(_count)
    return app


def _fail(error: object) -> int:
    sys.stderr.write(f"masksolve: error: {' '.join(str(error).split())}\n")
    return 2


@contextmanager
def _terminate_by_exception() -> Iterator[None]:
    """Let ``kill`` and batch systems end a run as Ctrl-C does, temporary files removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _masksolve(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Optimal transposable N:M sparsity masks, each with a proof that it is the best.

    Of every m entries of a row, and of every m of a column, n are kept: --pattern n:m.
    """
    if version:
        typer.echo(f"masksolve {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _find(
    file: Annotated[Path, typer.Argument(help="Weights: .npy, .npz or .safetensors.")],
    pattern: Annotated[
        str, typer.Option(metavar="N:M", help="Keep N of every M, in rows and columns.")
    ],
    method: Annotated[str, typer.Option(help="See: masksolve methods.")] = "auto",
    backend: Annotated[str | None, typer.Option(help="Engine of the method.")] = None,
    degree: Annotated[
        str, typer.Option(help="exact: keep exactly N. at_most: no more than N.")
    ] = "exact",
    tensor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this tensor; globs and repeats allowed."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Not this tensor; globs and repeats allowed."),
    ] = None,
    axes: Annotated[
        str,
        typer.Option(
            metavar="I,J", help="The axes that form the matrix; 0,1 for convolution weights."
        ),
    ] = "-2,-1",
    workers: Annotated[int | None, typer.Option(help="Threads; by default, all cores.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the masks: .safetensors, .npz or .npy."),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the weights, zeroed where not kept."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the masks: .png, .pdf, .svg.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show neither progress nor table.")
    ] = False,
) -> None:
    """Find the best mask of every matrix in FILE, and prove it."""
    from .bands import check_workers
    from .files import SUFFIXES, check_outputs, open_tensors, stage, text_of, write_masks
    from .find import solve
    from .methods import find_method
    from .pattern import Pattern, check_degree
    from .plot import MaskPanel, plot_masks

    shape, sides, checked = Pattern.parse(pattern), _parse_axes(axes), check_degree(degree)
    source = open_tensors(file)
    outputs = _outputs(
        ("--out", out, SUFFIXES),
        ("--apply", apply, (source.path.suffix.lower(),)),
        ("--json", report, (".json",)),
        ("--plot", plot, ()),
    )
    check_outputs(outputs, source.path, force=force)
    chosen, skipped = _choose(source, shape, tensor, exclude, sides)
    options: dict[str, Any] = {
        "n": shape.n,
        "m": shape.m,
        "method": method,
        "backend": backend,
        "degree": checked,
        "workers": check_workers(workers),
    }
    find_method(method, backend, shape, checked).load()  # complains before the work

    records: list[dict[str, Any]] = []
    panels: list[MaskPanel] = []
    with stage(outputs) as staged, ExitStack() as writers:
        puts = []
        if "--out" in staged:
            shapes = {info.name: info.shape for info in chosen}
            metadata = {"masksolve": __version__, "pattern": str(shape), "degree": degree}
            puts.append(writers.enter_context(write_masks(staged["--out"], shapes, metadata)))
        if "--apply" in staged:
            puts.append(writers.enter_context(source.prune(staged["--apply"])))
        total = sum(_blocks(info, shape, sides) for info in chosen)
        with _progress(total, quiet=quiet) as (describe, advance):
            for info in chosen:
                describe(info.name)
                array = source.load(info.name)
                start = time.perf_counter()
                with _naming(info.name):
                    solution = solve(array, axes=sides, progress=advance(), **options)
                records.append(_record(info, solution, time.perf_counter() - start))
                for put in puts:
                    put(info.name, solution.mask)
                if "--plot" in staged:
                    panels.append(MaskPanel.from_solution(info.name, array, solution))
        if "--json" in staged:
            _write_json(
                staged["--json"], source, shape, degree, axes=list(sides),
                tensors=records, skipped=_skip_records(skipped),
            )  # fmt: skip
        if "--plot" in staged:
            plot_masks(panels).savefig(staged["--plot"])
    if not quiet:
        _show_find(records, skipped, f"{shape} masks ({degree}) of {text_of(file)}", outputs)


def _compare(
    file: Annotated[Path, typer.Argument(help="Weights: .npy, .npz or .safetensors.")],
    pattern: Annotated[
        str, typer.Option(metavar="N:M", help="Keep N of every M, in rows and columns.")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(help="METHOD or METHOD/BACKEND, may be repeated; by default, all."),
    ] = None,
    degree: Annotated[
        str, typer.Option(help="exact: keep exactly N. at_most: no more than N.")
    ] = "exact",
    tensor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this tensor; globs and repeats allowed."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Not this tensor; globs and repeats allowed."),
    ] = None,
    axes: Annotated[
        str,
        typer.Option(
            metavar="I,J", help="The axes that form the matrix; 0,1 for convolution weights."
        ),
    ] = "-2,-1",
    sample: Annotated[
        int, typer.Option(min=0, help="Blocks of each tensor, evenly spaced; 0 = all.")
    ] = 512,
    workers: Annotated[int | None, typer.Option(help="Threads; by default, all cores.")] = None,
    report: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw gap against time: .png, .pdf, .svg.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show neither progress nor table.")
    ] = False,
) -> None:
    """Compare methods on the matrices in FILE: what each keeps, and how long it takes."""
    from .bands import check_workers
    from .files import check_outputs, open_tensors, stage, text_of
    from .find import compare
    from .methods import METHODS, find_method
    from .pattern import Pattern, check_degree
    from .plot import plot_comparison

    shape, sides, checked = Pattern.parse(pattern), _parse_axes(axes), check_degree(degree)
    source = open_tensors(file)
    outputs = _outputs(("--json", report, (".json",)), ("--plot", plot, ()))
    check_outputs(outputs, source.path, force=force)
    chosen, skipped = _choose(source, shape, tensor, exclude, sides)
    left_out = {}
    if not method:
        reasons = {record.label: record.why_not(shape, checked) for record in METHODS}
        left_out = {label: reason for label, reason in reasons.items() if reason is not None}
        method = [label for label in reasons if label not in left_out]
    options: dict[str, Any] = {
        "n": shape.n,
        "m": shape.m,
        "methods": method,
        "degree": checked,
        "workers": check_workers(workers),
    }
    for label in method:  # complains before the work
        name, _, backend = label.partition("/")
        find_method(name, backend or None, shape, checked).load()

    found: dict[str, list[Comparison]] = {}
    with stage(outputs) as staged:
        counts = {info.name: _blocks(info, shape, sides) for info in chosen}
        if sample:
            counts = {name: min(sample, count) for name, count in counts.items()}
        with _progress(len(method) * sum(counts.values()), quiet=quiet) as (describe, advance):
            for info in chosen:
                describe(info.name)
                with _naming(info.name):
                    found[info.name] = compare(
                        source.load(info.name), axes=sides, sample=sample or None,
                        name=info.name, progress=advance(), **options,
                    )  # fmt: skip
        if "--json" in staged:
            _write_json(
                staged["--json"], source, shape, degree, axes=list(sides), sample=sample,
                tensors=[
                    {**_info_record(info), "methods": [row.as_dict() for row in found[info.name]]}
                    for info in chosen
                ],
                skipped=_skip_records(skipped), left_out=left_out,
            )  # fmt: skip
        if "--plot" in staged:
            title = f"{shape} masks ({degree}) of {text_of(file.name)}"
            figure = plot_comparison(list(chain.from_iterable(found.values())), title=title)
            figure.savefig(staged["--plot"])
    if not quiet:
        title = f"{shape} masks ({degree}) of {text_of(file)}"
        if sample:
            title += f", up to {sample} blocks of each tensor"
        _show_compare(found, title, left_out, skipped, outputs)


def _methods() -> None:
    """List the methods, and what each of them guarantees."""
    from .methods import METHODS

    table = _table("method", "backend", "exact", "guarantee, and how")
    for column in table.columns[:3]:
        column.no_wrap = True
    table.columns[3].max_width = 52  # 80 in all, into a pipe too
    for record in METHODS:
        exact = "yes" if record.exact else "no"
        table.add_row(record.name, record.backend, exact, f"{record.guarantee}\n{record.about}")
        table.add_section()
    _show(table, "--method auto, the default, is the fastest exact method for the pattern.")


def _count(
    pattern: Annotated[str, typer.Argument(metavar="N:M", help="The pattern: 4:8.")],
    shape: Annotated[
        str, typer.Option(metavar="RxC", help="Of a whole tensor of this shape; else of a block.")
    ] = "",
    degree: Annotated[
        str, typer.Option(help="exact or at_most: N in every line, or fewer.")
    ] = "exact",
) -> None:
    """Count the masks that a pattern allows, exactly."""
    from .diversity import Kind, estimate_masks, mask_diversity
    from .errors import TooLargeError
    from .pattern import Pattern, check_degree

    asked, allowed = Pattern.parse(pattern), check_degree(degree)
    sizes = _parse_shape(shape) if shape else (asked.m, asked.m)
    entries = math.prod(sizes)
    table = _table("constraint", "masks", "log10", "bits an entry", right=(1, 2, 3))
    notes = []
    for kind in get_args(Kind):
        try:
            found = mask_diversity(sizes, asked.n, asked.m, kind=kind, degree=allowed)
        except TooLargeError as error:
            table.add_row(kind, "too many to count", "", "")
            notes.append(str(error))
            continue
        exponent = found.log10
        number = str(found.count) if exponent < _MOST_DIGITS else f"about 1e{exponent:.0f}"
        bits = found.log2 / entries if entries else 0.0
        table.add_row(kind, number, f"{exponent:.3f}", f"{bits:.4f}")
    if notes and allowed == "exact":
        estimate = estimate_masks(asked.n, asked.m).log10
        notes.append(f"estimate for transposable: 1e{estimate:.1f} a block")
    what = f"a tensor of {_shape(sizes)}" if shape else f"a block of {_shape(sizes)}"
    _show(f"{asked} masks ({allowed}) of {what}", table, *notes)


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = text.lower().split("x")
    if len(sizes) < 2 or not all(re.fullmatch("[0-9]{1,18}", size) for size in sizes):
        raise OptionError(f"--shape takes sizes, for example 4096x1024; got {text[:100]!r}")
    return tuple(map(int, sizes))


def _parse_axes(text: str) -> tuple[int, int]:
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--axes takes two integers, for example 0,1; got {text!r}") from None
    if first == second:
        raise OptionError(f"--axes takes two different axes, got {text!r}")
    return first, second


def _outputs(*wishes: tuple[str, Path | None, tuple[str, ...]]) -> list[Output]:
    from .files import Output

    outputs = []
    for option, path, suffixes in wishes:
        if path is not None:
            if option == "--plot":
                from .plot import picture_suffixes

                suffixes = picture_suffixes()
            outputs.append(Output(option, path, suffixes))
    return outputs


_Skipped = list[tuple["TensorInfo", str]]


def _choose(
    source: TensorFile,
    pattern: Pattern,
    only: Sequence[str] | None,
    exclude: Sequence[str] | None,
    axes: tuple[int, int],
) -> tuple[list[TensorInfo], _Skipped]:
    """Part the tensors of a file into those to mask, and the others with the reason."""
    for wanted in only or ():
        if not any(_matches(name, [wanted]) for name in source.tensors):
            close = difflib.get_close_matches(wanted, source.tensors, n=1, cutoff=0.3)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise FileError(f"{source.path} has no tensor {wanted!r}{hint}")
    chosen, skipped = [], []
    for info in source.tensors.values():
        reason = _why_skip(info, pattern, only, exclude, axes)
        if reason is None:
            chosen.append(info)
        else:
            skipped.append((info, reason))
    if not chosen:
        reasons = ", ".join(f"{info.name!r} is skipped: {reason}" for info, reason in skipped[:3])
        more = f", and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise FileError(f"{source.path} has nothing to mask; {reasons or 'it is empty'}{more}")
    return chosen, skipped


def _why_skip(
    info: TensorInfo,
    pattern: Pattern,
    only: Sequence[str] | None,
    exclude: Sequence[str] | None,
    axes: tuple[int, int],
) -> str | None:
    if _matches(info.name, exclude or ()):
        return "excluded"
    if only and not _matches(info.name, only):
        return "not selected"
    if not info.floating:
        return f"not floating ({info.kind})"
    if len(info.shape) < 2:
        return f"{len(info.shape)}-D"
    try:
        _blocks(info, pattern, axes)
    except OptionError:
        return f"{len(info.shape)}-D, so it has no axes {axes[0]},{axes[1]}"
    return None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _blocks(info: TensorInfo, pattern: Pattern, axes: tuple[int, int]) -> int:
    from .tiling import make_tiling

    return make_tiling(info.shape, pattern.m, axes=axes).blocks


@contextmanager
def _naming(tensor: str) -> Iterator[None]:
    """Say in an error which tensor it is about."""
    try:
        yield
    except MaskSolveError as error:
        error.args = (f"tensor {tensor!r}: {error}",)
        raise


_Describe = Callable[[str], None]
#: Makes the callable that one call of `solve` or `compare` tells its progress.
_Advance = Callable[[], Callable[[int, int], None] | bool]


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[tuple[_Describe, _Advance]]:
    """Show a bar over `total` blocks on stderr, if somebody is there to see it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None, lambda: False
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TimeColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        def describe(name: str) -> None:
            bar.update(task, description=name if len(name) <= 30 else f"…{name[-29:]}")

        def advance() -> Callable[[int, int], None]:
            last = 0

            def tell(done: int, _: int) -> None:
                nonlocal last
                # `compare` counts from the start again with every method.
                bar.advance(task, done - last if done > last else done)
                last = done

            return tell

        yield describe, advance


def _record(info: TensorInfo, solution: MaskSolution, seconds: float) -> dict[str, Any]:
    stats = solution.stats
    return {
        **_info_record(info),
        "kept_share": solution.kept_share,
        "gap": solution.gap,
        "optimal": solution.optimal,
        "objective": solution.objective,
        "bound": solution.bound,
        "total": solution.total,
        "kept_entries": int(solution.mask.sum()),
        "method": stats.method,
        "backend": stats.backend,
        "blocks": stats.blocks,
        "optimal_blocks": stats.optimal_blocks,
        "workers": stats.workers,
        "seconds": seconds,
        "solve_seconds": stats.solve_seconds,
        "certify_seconds": stats.certify_seconds,
    }


def _info_record(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "shape": list(info.shape), "dtype": info.kind}


def _skip_records(skipped: _Skipped) -> list[dict[str, Any]]:
    return [{**_info_record(info), "reason": reason} for info, reason in skipped]


def _write_json(
    path: Path, source: TensorFile, pattern: Pattern, degree: str, **content: Any
) -> None:
    from .files import text_of

    head = {
        "masksolve": __version__,
        "file": text_of(source.path),
        "pattern": str(pattern),
        "n": pattern.n,
        "m": pattern.m,
        "degree": degree,
    }
    text = json.dumps(_finite({**head, **content}), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show_find(
    records: list[dict[str, Any]], skipped: _Skipped, title: str, outputs: list[Output]
) -> None:
    from rich.text import Text

    from .plot import format_gap, format_share

    table = _table(
        "tensor", "shape", "dtype", "kept\nshare", "certified\ngap", "time", right=(3, 4, 5)
    )
    for record in records:
        table.add_row(
            record["name"],
            _shape(record["shape"]),
            record["dtype"],
            format_share(record["kept_share"]),
            format_gap(record["gap"]),
            _seconds(record["seconds"]),
        )
    if len(records) > 1:
        kept, bounds, totals, gaps = (
            [record[key] for record in records] for key in ("objective", "bound", "total", "gap")
        )
        table.add_section()
        table.add_row(
            f"all {len(records)}",
            "",
            "",
            format_share(_ratio(kept, totals)),
            format_gap(_joint_gap(gaps, bounds)),
            _seconds(math.fsum(record["seconds"] for record in records)),
        )
    used = ", ".join(dict.fromkeys(f"{r['method']}/{r['backend']}" for r in records))
    _show(
        Text(f"{title} by {used}", style="bold"), table, *_skip_table(skipped), *_written(outputs)
    )


def _show_compare(
    found: dict[str, list[Comparison]],
    title: str,
    left_out: dict[str, str],
    skipped: _Skipped,
    outputs: list[Output],
) -> None:
    from rich.text import Text

    table = _table(
        "tensor, method", "kept\nshare", "gap", "optimal\nblocks", "time", right=(1, 2, 3, 4)
    )
    for name, rows in found.items():
        table.add_row(Text(name, style="bold"))
        for row in rows:
            table.add_row(*_compare_cells([row]))
        table.add_section()
    if len(found) > 1:
        table.add_row(Text(f"all {len(found)} tensors", style="bold"))
        for same in zip(*found.values(), strict=True):
            table.add_row(*_compare_cells(same))
    notes = [f"left out: {label}, {reason}" for label, reason in left_out.items()]
    _show(Text(title, style="bold"), table, *notes, *_skip_table(skipped), *_written(outputs))


def _compare_cells(rows: Sequence[Comparison]) -> list[str]:
    """Sum one method's rows over the tensors."""
    from .plot import format_gap, format_share

    if len(rows) == 1:  # its own quotients are exact, whatever its sums
        share, gap = rows[0].kept_share, rows[0].gap
    else:
        share = _ratio([row.objective for row in rows], [row.total for row in rows])
        gap = _joint_gap([row.gap for row in rows], [row.bound for row in rows])
    return [
        f"  {rows[0].label}",
        format_share(share),
        format_gap(gap),
        f"{sum(row.optimal_blocks for row in rows)}/{sum(row.blocks for row in rows)}",
        _seconds(math.fsum(row.seconds for row in rows)),
    ]


def _ratio(parts: Sequence[float], wholes: Sequence[float]) -> float:
    """Divide the sums of non-negative numbers, though either may exceed the largest double.

    NaN if there is nothing to divide by, or if one of the numbers is infinite already.
    """
    largest = max(wholes)
    if not 0 < largest < math.inf:
        return math.nan
    _, exponent = math.frexp(largest)
    above, below = (
        math.fsum(math.ldexp(number, -exponent) for number in numbers)
        for numbers in (parts, wholes)
    )
    return above / below


def _joint_gap(gaps: Sequence[float], bounds: Sequence[float]) -> float:
    """Gap of several tensors taken together: 0 only if that of each is."""
    if not any(gaps):
        return 0.0
    return _ratio([gap * bound for gap, bound in zip(gaps, bounds, strict=True)], bounds)


def _table(*names: str, right: tuple[int, ...] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(names):
        # Only names and prose may wrap; a number is whole or it is wrong.
        table.add_column(
            name,
            justify="right" if index in right else "left",
            overflow="fold",
            no_wrap=index in right or name in ("shape", "dtype"),
        )
    return table


def _skip_table(skipped: _Skipped) -> list[Table]:
    if not skipped:
        return []
    table = _table("skipped", "shape", "dtype", "reason")
    for info, reason in skipped:
        table.add_row(info.name, _shape(info.shape), info.kind, reason)
    return [table]


def _written(outputs: list[Output]) -> list[str]:
    return [f"{output.option[2:]:6} {output.path}" for output in outputs]


def _show(*parts: Any) -> None:
    from rich.console import Console

    # Into a pipe or a file, lines are as long as they are.
    width = None if sys.stdout.isatty() else 10_000
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    with _escaping(sys.stdout):
        for part in parts:
            console.print(part)


@contextmanager
def _escaping(stream: Any) -> Iterator[None]:
    """Escape what the encoding of a stream lacks: no name may cost the results."""
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
