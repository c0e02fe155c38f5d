"""Pictures of masks and comparisons, as matplotlib figures.

Figures are made without pyplot, so no global state, window or backend is touched. Colours
are those of M. Okabe and K. Ito, which colour-blind people tell apart too. Panels stand in two
columns at most, so that they can be read on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import MissingDependencyError, OptionError, ShapeError
from .pattern import Degree, Pattern, as_integer
from .solution import Comparison, MaskSolution
from .tiling import Band, Tiling, make_tiling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "MaskPanel",
    "format_gap",
    "format_share",
    "picture_suffixes",
    "plot_comparison",
    "plot_flip_ratios",
    "plot_gaps",
    "plot_losses",
    "plot_masks",
    "plot_patterns",
    "plot_runs",
]

_KEPT = "#D55E00"  # vermillion
_BORDER = "#0072B2"  # blue
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX*<>"
_COLUMNS = 2
_DEGREES: dict[Degree, str] = {"exact": "exactly n", "at_most": "at most n"}
# Rows and columns of a panel whose numbers can still be read.
_MOST_NUMBERS = 8


@dataclass(frozen=True, eq=False)
class MaskPanel:
    """One panel of `plot_masks`: the corner of a matrix, its mask, and the result.

    Parameters
    ----------
    title : str
        What the matrix is called.
    scores, mask : (r, c) arrays
        The top left corner of the scores and of the mask.
    pattern : Pattern
        Where the block borders are.
    result : str
        A line or two below the title.

    See Also
    --------
    from_solution : Cut the corner out of an array and its solution.
    from_block : Cut one block out of them.
    """

    title: str
    scores: NDArray[Any]
    mask: NDArray[np.bool_]
    pattern: Pattern
    result: str = ""

    @classmethod
    def from_solution(
        cls, title: str, scores: NDArray[Any], solution: MaskSolution, *, entries: int = 32
    ) -> MaskPanel:
        """Cut out whole blocks up to about `entries` rows and columns, of the first matrix.

        Parameters
        ----------
        title : str
            What the matrix is called.
        scores : array
            The array that was solved.
        solution : MaskSolution
            What `masksolve.solve` returned for it.
        entries : int
            Rows and columns to show, 1 or more; one block if a block is larger.

        Raises
        ------
        OptionError
            `entries` is no positive integer.
        """
        certificate = solution.certificate
        count = max(1, _positive("entries", entries) // certificate.pattern.m)
        band = Band(slice(0, 1), slice(0, count), slice(0, count))
        corner, mask = _cut(scores, solution, band)
        where = "" if solution.mask.size == mask.size else "\ntop left corner"
        return cls(
            title,
            corner,
            mask,
            certificate.pattern,
            f"{certificate.pattern}, keeps {format_share(solution.kept_share)} of the score, "
            f"gap {format_gap(solution.gap)}{where}",
        )

    @classmethod
    def from_block(
        cls, title: str, scores: NDArray[Any], solution: MaskSolution, block: Sequence[int]
    ) -> MaskPanel:
        """Cut out one block.

        Parameters
        ----------
        title : str
            What the matrix is called.
        scores : array
            The array that was solved.
        solution : MaskSolution
            What `masksolve.solve` returned for it.
        block : sequence of int
            Which: ``(*batch, block_row, block_column)``, as it indexes the arrays of a certificate.

        Raises
        ------
        OptionError
            There is no such block.
        """
        certificate, tiling = solution.certificate, _tiling_of(solution)
        try:
            index = np.ravel_multi_index(tuple(block), tiling.block_shape)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"block must be an index into the blocks, of shape {tiling.block_shape}, "
                f"got {block!r}"
            ) from error
        place = tuple(int(i) for i in np.unravel_index(index, tiling.block_shape))
        band = Band(*(slice(int(i), int(i) + 1) for i in np.unravel_index(index, tiling.grid)))
        kept, bound = certificate.block_scores[place], certificate.block_bounds[place]
        optimal = certificate.optimal_blocks[place]
        return cls(
            title,
            *_cut(scores, solution, band),
            certificate.pattern,
            f"{certificate.pattern}, block {place} keeps {kept:.4g}, "
            f"{'optimal' if optimal else f'bound {bound:.4g}'}",
        )


def _tiling_of(solution: MaskSolution) -> Tiling:
    certificate = solution.certificate
    return make_tiling(certificate.shape, certificate.pattern.m, axes=certificate.axes)


def _cut(
    scores: NDArray[Any], solution: MaskSolution, band: Band
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Copy what a band has of its first matrix, so that a picture keeps no whole array alive."""
    scores, tiling = np.asarray(scores), _tiling_of(solution)
    if scores.shape != tiling.shape:
        raise ShapeError(f"scores have shape {scores.shape}, their solution {tiling.shape}")
    if not tiling.blocks:
        return np.zeros((0, 0)), np.zeros((0, 0), dtype=np.bool_)
    part, mask = (next(tiling.views(array, band)) for array in (scores, solution.mask))
    most = np.finfo(np.float64).max
    with np.errstate(over="ignore"):  # of a long double
        values = np.clip(part.astype(np.float64), -most, most)
    return np.abs(values) if solution.certificate.absolute else values, np.array(mask)


def plot_masks(
    panels: Sequence[MaskPanel],
    *,
    limit: int = 12,
    title: str = "Masks",
    numbers: bool = False,
) -> Figure:
    """Draw the corner of each matrix as a heat map, with its kept entries and blocks.

    Parameters
    ----------
    panels : sequence of MaskPanel
        What to draw.
    limit : int
        Panels to draw at most, 1 or more; the title says how many are left out.
    title : str
        Title of the picture.
    numbers : bool
        Write the score of each entry into it, of panels of 8 rows and columns at most.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig("masks.png")``.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError
        There is nothing to draw, `limit` is no positive integer, or a panel is too large for
        numbers.

    Examples
    --------
    >>> import masksolve as ms
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> panel = MaskPanel.from_solution("W", W, ms.solve(W, n=2, m=4))
    >>> figure = plot_masks([panel])
    >>> len(figure.axes)  # the heat map and its colour bar
    2
    """
    limit = _positive("limit", limit)
    shown = list(panels)[:limit]
    for panel in shown if numbers else ():
        if max(panel.scores.shape) > _MOST_NUMBERS:
            raise OptionError(
                f"numbers can be read in panels of at most {_MOST_NUMBERS} rows and columns, but "
                f"{panel.title!r} has shape {panel.scores.shape}; cut a smaller part, for example "
                f"by MaskPanel.from_block, or leave numbers out"
            )
    rows, columns = _grid(len(shown), _COLUMNS, "mask")
    figure = _figure(3.7 * columns + 0.4, 3.5 * rows + 0.8)
    for index, panel in enumerate(shown):
        _draw_mask(figure, figure.add_subplot(rows, columns, index + 1), panel, numbers)
    which = f", first {limit} of {len(panels)} tensors" if len(panels) > limit else ""
    figure.suptitle(_plain(f"{title}{which}"))
    lines = import_module("matplotlib.lines")
    figure.legend(
        handles=[
            lines.Line2D([], [], linestyle="", marker="o", color=_KEPT, label="kept entry"),
            lines.Line2D([], [], color=_BORDER, linewidth=1.5, label="block border"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    return figure


def _draw_mask(figure: Figure, axes: Axes, panel: MaskPanel, numbers: bool) -> None:
    scores, unit = panel.scores, ""
    rows, columns = scores.shape
    axes.set_title(_plain(f"{_shortened(panel.title, 52)}\n{panel.result}".strip()), fontsize=9)
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    if not scores.size:
        axes.text(0.5, 0.5, "no entries", ha="center", transform=axes.transAxes)
        return
    if np.abs(scores).max() > 1e300:  # matplotlib adds and multiplies them
        scores, unit = scores * 1e-20, " / 1e20"
    low = min(0.0, float(scores.min()))
    # A few large entries must not leave all others white.
    top = max(float(np.quantile(scores, 0.99)), low + np.finfo(np.float64).tiny)
    image = axes.imshow(scores, cmap="Greys", interpolation="nearest", vmin=low, vmax=top)
    label = f"score{unit} (larger is better)"
    figure.colorbar(image, ax=axes, shrink=0.8, extend="max", label=label)
    m = panel.pattern.m
    size = 160.0 / max(rows, columns)
    if numbers:
        _write_numbers(axes, scores, panel.mask, fontsize=min(8.0, 0.29 * size))
    else:
        at_row, at_column = np.nonzero(panel.mask)
        axes.plot(
            at_column,
            at_row,
            linestyle="",
            marker="o",
            markersize=max(0.5, 0.6 * size),
            color=_KEPT,
            markeredgecolor="white",
            markeredgewidth=0.06 * size,
        )
    for edge in range(0, rows + m, m):
        axes.axhline(min(edge, rows) - 0.5, color=_BORDER, linewidth=1.5)
    for edge in range(0, columns + m, m):
        axes.axvline(min(edge, columns) - 0.5, color=_BORDER, linewidth=1.5)
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.locator_params(integer=True)


def _write_numbers(
    axes: Axes, scores: NDArray[Any], mask: NDArray[np.bool_], *, fontsize: float
) -> None:
    for (i, j), kept in np.ndenumerate(mask):
        box = {"boxstyle": "round", "facecolor": _KEPT if kept else "white", "linewidth": 0}
        axes.text(
            j,
            i,
            f"{scores[i, j]:.3g}",
            ha="center",
            va="center",
            fontsize=fontsize,
            color="white" if kept else "black",
            bbox=box,
        )


def plot_patterns(masks: NDArray[np.bool_], *, columns: int = 10, title: str = "") -> Figure:
    """Draw many masks of one block as a sheet of small pictures, kept entries coloured.

    Parameters
    ----------
    masks : (B, m, m) bool array
        What to draw.
    columns : int
        Masks in a row of the sheet, 1 or more.
    title : str
        What they are; by default, how many.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError
        There is nothing to draw, `masks` are no blocks, or `columns` is no positive integer.

    Examples
    --------
    >>> figure = plot_patterns(np.array([np.eye(3), np.eye(3)[::-1]], dtype=bool))
    >>> figure.axes[0].get_title()
    '2 masks of 3×3'
    """
    masks = np.asarray(masks)
    if masks.dtype != np.bool_ or masks.ndim != 3 or masks.shape[1] != masks.shape[2]:
        raise OptionError(
            f"masks must be a boolean array (B, m, m), got {masks.dtype} of shape {masks.shape}"
        )
    count, m, _ = masks.shape
    rows, columns = _grid(count if masks.size else 0, _positive("columns", columns), "mask")
    sheet = np.full((rows * (m + 1) - 1, columns * (m + 1) - 1), np.nan)
    for index, mask in enumerate(masks):
        top, left = (m + 1) * (index // columns), (m + 1) * (index % columns)
        sheet[top : top + m, left : left + m] = mask
    cell = 0.13
    figure = _figure(cell * sheet.shape[1] + 0.6, cell * sheet.shape[0] + 0.8)
    axes = figure.add_subplot()
    colours = import_module("matplotlib.colors").ListedColormap(["0.9", _BORDER])
    axes.imshow(sheet, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(_plain(title) or f"{count} masks of {m}×{m}")
    axes.axis("off")
    return figure


def plot_comparison(rows: Iterable[Comparison], *, title: str = "") -> Figure:
    """Draw the gap of each method against the time that it takes for a block.

    Parameters
    ----------
    rows : iterable of Comparison
        From `masksolve.compare`; rows of several matrices, whole or sampled, can be put
        together, and the rows of a method then share a marker.
    title : str
        What was compared.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError
        There is nothing to draw.

    Examples
    --------
    >>> import masksolve as ms
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> figure = plot_comparison(ms.compare(W, n=2, m=4, methods=["conv", "greedy"]))
    >>> figure.axes[0].get_xscale()
    'log'
    """
    rows = list(rows)
    lines = _lines(rows)
    figure = _figure(6.5, 4.0 + 0.3 * len(lines))
    ticker = import_module("matplotlib.ticker")
    axes = figure.add_subplot()
    for (label, found), style in zip(lines.items(), _styles(lines), strict=True):
        shares = [row.kept_share for row in found if not math.isnan(row.kept_share)]
        kept = f"kept {format_share(float(np.mean(shares)))}" if shares else "no score"
        blocks = sum(row.blocks for row in found)
        pace = f", {_pace(sum(row.seconds for row in found) / blocks)}" if blocks else ""
        axes.plot(
            [1e6 * max(row.seconds_per_block, 1e-9) for row in found],
            [100 * row.gap for row in found],
            linestyle="",
            clip_on=False,  # a gap of 0 lies on the axis
            zorder=3,
            label=f"{label}{'' if found[0].exact else ' (heuristic)'}\n{kept}{pace}",
            **style,
        )
    axes.set_xscale("log")
    for place in ("major", "minor"):
        getattr(axes.xaxis, f"set_{place}_formatter")(ticker.LogFormatter())
    worst = max(100 * row.gap for row in rows)
    axes.set_ylim(0, 1.15 * worst if 0 < worst < math.inf else 1)
    axes.set_xlabel("time to find the mask, µs a block")
    axes.set_ylabel("gap to the proven bound, % (0 = optimal)")
    axes.set_title(_plain(title) or "Methods compared")
    axes.grid(color="0.9", which="major")
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes, labelspacing=1.0)
    return figure


def plot_gaps(rows: Iterable[Comparison], *, title: str = "") -> Figure:
    """Draw the gap of each row as a bar, with its number.

    Parameters
    ----------
    rows : iterable of Comparison
        From `masksolve.compare`; of several matrices, patterns or degrees too: bars are then
        labelled with what differs.
    title : str
        What was compared.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError
        There is nothing to draw.

    Examples
    --------
    >>> import masksolve as ms
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> figure = plot_gaps(ms.compare(W, n=2, m=4, methods=["conv", "greedy"]))
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['conv/native', 'greedy/native']
    """
    rows = list(rows)
    labels = _labels(rows, "name", "pattern", "degree", length=32)
    figure = _figure(6.5, 1.3 + 0.35 * len(labels))
    axes = figure.add_subplot()
    gaps = [100 * row.gap if math.isfinite(row.gap) else 0.0 for row in rows]
    places = range(len(labels))
    axes.barh(places, gaps, color=_COLOURS[0])
    for place, row, gap in zip(places, rows, gaps, strict=True):
        axes.annotate(f" {format_gap(row.gap)}", (gap, place), va="center")
    axes.set_yticks(places, [_plain(label) for label in labels], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(gaps) or 1)
    axes.set_xlabel("gap to the proven bound, % (0 = optimal)")
    axes.set_title(_plain(title))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_losses(rows: Iterable[Comparison], *, title: str = "") -> Figure:
    """Draw the gap of each method against the pattern, in one panel for every name.

    Parameters
    ----------
    rows : iterable of Comparison
        From several calls of `masksolve.compare`, each with the `name` of its matrix. Names,
        patterns and methods are drawn in the order in which they come.
    title : str
        What was compared.

    Returns
    -------
    matplotlib.figure.Figure
        The axis of the gaps is logarithmic down to 0.01 %, and linear from there to 0.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError
        There is nothing to draw.

    Examples
    --------
    >>> import masksolve as ms
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> figure = plot_losses(
    ...     [
    ...         row
    ...         for n, m in ((1, 4), (2, 4), (4, 8))
    ...         for row in ms.compare(W, n, m, methods=["auto", "greedy"], name="Gaussian")
    ...         if not row.exact
    ...     ]
    ... )
    >>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
    ['1:4', '2:4', '4:8']
    """
    rows = list(rows)
    lines = _lines(rows)
    names = list(dict.fromkeys(row.name for row in rows))
    patterns = list(dict.fromkeys(row.pattern for row in rows))
    height, width = _grid(len(names), _COLUMNS, "comparison")
    figure = _figure(3.4 * width + 0.3, 2.7 * height + 0.8)
    worst = max((100 * row.gap for row in rows if math.isfinite(row.gap)), default=0.0)
    for index, name in enumerate(names):
        axes = figure.add_subplot(height, width, index + 1)
        for (label, found), style in zip(lines.items(), _styles(lines), strict=True):
            mine = sorted(
                (patterns.index(row.pattern), row.gap) for row in found if row.name == name
            )
            places, gaps = [place for place, _ in mine], [100 * gap for _, gap in mine]
            axes.plot(places, gaps, label=label, **style)
        axes.set_xticks(range(len(patterns)), [str(pattern) for pattern in patterns], fontsize=8)
        axes.set_yscale("symlog", linthresh=0.01)  # a gap may be 0
        axes.set_ylim(0, max(0.1, 1.6 * worst))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(_plain(_shortened(name, 42)), fontsize=9)
        axes.grid(color="0.9")
        if index % width == 0:
            axes.set_ylabel("gap to the bound, %")
        if index + width >= len(names):
            axes.set_xlabel("pattern")
    figure.suptitle(_plain(title))
    _legend(figure, figure.axes[0])
    return figure


def plot_flip_ratios(
    decays: Sequence[float],
    ratios: Sequence[float],
    *,
    accept: tuple[float, float],
    chosen: float | None = None,
    title: str = "",
) -> Figure:
    """Draw the ratio of flip rates, of sparse by dense training, against the decay.

    Parameters
    ----------
    decays : sequence of float
        Factors of masked decay, 0 or more.
    ratios : sequence of float
        The ratio of flip rates at each; NaN leaves it out.
    accept : (float, float)
        The band of acceptable ratios.
    chosen : float, optional
        One of `decays`, marked.
    title : str
        What was trained.

    Returns
    -------
    matplotlib.figure.Figure
        The axis of the decays is logarithmic, and linear from the smallest down to 0.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError
        There is nothing to draw.

    Examples
    --------
    >>> figure = plot_flip_ratios([1e-5, 1e-4, 1e-3], [1.3, 0.8, 0.2], accept=(0.6, 0.95))
    >>> figure.axes[0].get_xscale()
    'symlog'
    """
    if len(decays) != len(ratios) or not len(decays):
        raise OptionError(
            f"there must be a ratio for every decay, and one at least: got {len(ratios)} ratios "
            f"for {len(decays)} decays"
        )
    pairs = sorted(zip(decays, ratios, strict=True))
    figure = _figure(6.5, 4.0)
    axes = figure.add_subplot()
    low, high = accept
    axes.axhspan(low, high, color=_COLOURS[2], alpha=0.2, label=f"accepted: {low:g} to {high:g}")
    axes.plot(*zip(*pairs, strict=True), marker="o", color=_COLOURS[0], label="measured")
    if chosen is not None:
        axes.plot(
            chosen,
            dict(pairs)[chosen],
            linestyle="",
            marker="o",
            markersize=11,
            color=_KEPT,
            label=f"chosen: {chosen:g}",
        )
    axes.set_xscale("symlog", linthresh=min((d for d in decays if d > 0), default=1.0))
    axes.set_ylim(0, None)
    axes.set_xlabel("decay")
    axes.set_ylabel("flip rate ÷ that of dense training")
    axes.set_title(_plain(title))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def plot_runs(
    runs: Mapping[str, ArrayLike], *, steps: ArrayLike, what: str, title: str = ""
) -> Figure:
    """Draw a quantity of training runs against the step: the mean over seeds, and its spread.

    Parameters
    ----------
    runs : mapping of str to (s, k) array
        By the name of what was trained: s runs, k points of each.
    steps : (k,) array
        Where the points are.
    what : str
        The quantity, with its unit.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        The band around each line is one standard deviation over the runs wide, up and down; one
        run has none.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError, ShapeError
        There is nothing to draw, something is no array of numbers, or a run has not one value for
        every step.

    Examples
    --------
    >>> figure = plot_runs({"sparse": [[3, 2, 1], [3, 1, 1]]}, steps=[0, 10, 20], what="loss, nats")
    >>> figure.axes[0].lines[0].get_ydata()
    array([3. , 1.5, 1. ])
    """
    if not isinstance(runs, Mapping):
        raise OptionError(
            f"runs must be a mapping of names to arrays (runs, steps), got {type(runs).__name__}"
        )
    places = _numbers("steps", steps)
    values = {name: np.atleast_2d(_numbers(f"runs[{name!r}]", run)) for name, run in runs.items()}
    if not values or not places.size:
        raise OptionError("there is no run to draw")
    for name, value in values.items():
        if value.ndim != 2 or places.ndim != 1 or value.shape[1] != places.size or not len(value):
            raise ShapeError(
                f"every run must have one value for each of the steps, an array (runs, steps): got "
                f"shape {np.shape(runs[name])} for {name!r}, and steps of shape {places.shape}"
            )
    figure = _figure(6.5, 4.2)
    axes = figure.add_subplot()
    for index, (name, value) in enumerate(values.items()):
        colour, mean = _COLOURS[index % len(_COLOURS)], value.mean(axis=0)
        axes.plot(places, mean, color=colour, label=name)
        if len(value) > 1:
            spread = value.std(axis=0, ddof=1)
            axes.fill_between(
                places, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0
            )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(_plain(what))
    axes.set_title(_plain(title))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes)
    return figure


def _numbers(what: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:  # the last is PyTorch's
        raise OptionError(f"{what} must be an array of numbers: {error}") from error


def _labels(rows: Sequence[Comparison], *parts: str, length: int | None = None) -> list[str]:
    """Name what ran in each row, and those of `parts` that differ between the rows.

    Each of them is shortened to `length`, where one is given.
    """
    if not rows:
        raise OptionError("there is no comparison to draw")
    told = [
        {"name": row.name, "pattern": str(row.pattern), "degree": _DEGREES[row.degree]}
        for row in rows
    ]
    differ = [part for part in parts if len({texts[part] for texts in told}) > 1]
    return [
        ", ".join(
            text if length is None else _shortened(text, length)
            for text in (row.label, *(texts[part] for part in differ))
        )
        for row, texts in zip(rows, told, strict=True)
    ]


def _lines(rows: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Rows by method, and by degree if there are both."""
    lines: dict[str, list[Comparison]] = {}
    for label, row in zip(_labels(rows, "degree"), rows, strict=True):
        lines.setdefault(label, []).append(row)
    return lines


def _styles(lines: dict[str, list[Comparison]]) -> Iterable[dict[str, Any]]:
    """Markers and colours of lines; those of heuristics are hollow."""
    for index, found in enumerate(lines.values()):
        colour = _COLOURS[index % len(_COLOURS)]
        yield {
            "marker": _MARKERS[index % len(_MARKERS)],
            "markersize": 8,
            "color": colour,
            "markerfacecolor": colour if found[0].exact else "white",
            "markeredgewidth": 1.8,
        }


def _shortened(name: str, length: int) -> str:
    """Return the end of a long name, where names of tensors differ."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def _plain(text: str) -> str:
    """Return what matplotlib draws as `text`: dollars would make mathematics of it."""
    return text.replace("$", r"\$")


def _legend(figure: Figure, axes: Axes, **options: Any) -> None:
    """Name every line, those too whose label begins with ``_``, which matplotlib leaves out."""
    labels = [_plain(str(line.get_label())) for line in axes.lines]
    figure.legend(axes.lines, labels, loc="outside lower center", ncols=2, frameon=False, **options)


def _positive(name: str, value: Any) -> int:
    found = as_integer(value)
    if found is None or found < 1:
        raise OptionError(f"{name} must be 1 or more, a whole number, got {value!r}")
    return found


def _pace(seconds: float) -> str:
    micro = 1e6 * seconds
    return f"{micro:.3g} µs a block" if micro < 1000 else f"{micro:.0f} µs a block"


def _grid(count: int, most: int, what: str) -> tuple[int, int]:
    """Rows and columns for `count` things, at most so many in a row."""
    if count == 0:
        raise OptionError(f"there is no {what} to draw")
    columns = min(most, count)
    return math.ceil(count / columns), columns


def picture_suffixes() -> tuple[str, ...]:
    """Return the endings of the files that a figure can be saved to.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    return tuple(f".{kind}" for kind in _figure(1, 1).canvas.get_supported_filetypes())


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f'pictures need the package matplotlib: pip install "masksolve[plot]" ({error})'
        ) from error
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def format_share(share: float) -> str:
    """Return a share in percent, ``-`` for NaN.

    Examples
    --------
    >>> format_share(0.5), format_share(0), format_share(math.nan)
    ('50.00 %', '0.00 %', '-')
    """
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"


def format_gap(gap: float) -> str:
    """Return a gap in percent, ``0`` only if it is exactly that, ``-`` for NaN.

    Examples
    --------
    >>> format_gap(0), format_gap(1e-9), format_gap(math.nan)
    ('0', '1e-07 %', '-')
    """
    if math.isnan(gap):
        return "-"
    return "0" if gap == 0 else f"{100 * gap:.2g} %"
