"""Pictures of masks and comparisons, as matplotlib figures.

Figures are made without pyplot, so no global state, window or backend is touched. Colours
are those of M. Okabe and K. Ito, which colour-blind people tell apart too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import MissingDependencyError, OptionError
from .pattern import Pattern
from .solution import Comparison, MaskSolution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "MaskPanel",
    "format_gap",
    "format_share",
    "picture_suffixes",
    "plot_comparison",
    "plot_masks",
    "plot_patterns",
]

_KEPT = "#D55E00"  # vermillion
_BORDER = "#0072B2"  # blue
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX*<>"


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
        A line below the title.

    See Also
    --------
    from_solution : Cut the corner out of an array and its solution.
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
            Rows and columns to show; one block if a block is larger.
        """
        certificate = solution.certificate
        m = certificate.pattern.m
        edge = max(1, entries // m) * m
        corners = []
        for array in (scores, solution.mask):
            stacked = np.moveaxis(np.asarray(array), certificate.axes, (-2, -1))
            first = stacked[(slice(0, 1),) * (stacked.ndim - 2)]
            corner = first[..., :edge, :edge]
            shape = corner.shape[-2:]
            # Copied, so that the picture does not keep the whole array in memory.
            corners.append(corner.reshape(shape).copy() if corner.size else np.zeros((0, 0)))
        whole = solution.mask.size == corners[1].size
        where = "" if whole else "; top left corner"
        most = np.finfo(np.float64).max
        with np.errstate(over="ignore"):  # of a long double
            values = np.clip(corners[0].astype(np.float64), -most, most)
        return cls(
            title,
            np.abs(values) if certificate.absolute else values,
            corners[1].astype(np.bool_),
            certificate.pattern,
            f"{certificate.pattern}, keeps {format_share(solution.kept_share)} of the score, "
            f"gap {format_gap(solution.gap)}{where}",
        )


def plot_masks(panels: Sequence[MaskPanel], *, limit: int = 12, title: str = "Masks") -> Figure:
    """Draw the corner of each matrix as a heat map, with its kept entries and blocks.

    Parameters
    ----------
    panels : sequence of MaskPanel
        What to draw.
    limit : int
        Panels to draw at most, 1 or more; the title says how many are left out.
    title : str
        Title of the picture.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig("masks.png")``.

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
    >>> panel = MaskPanel.from_solution("W", W, ms.solve(W, n=2, m=4))
    >>> figure = plot_masks([panel])
    >>> len(figure.axes)  # the heat map and its colour bar
    2
    """
    if limit < 1:
        raise OptionError(f"limit must be 1 or more, got {limit!r}")
    shown = list(panels)[:limit]
    if not shown:
        raise OptionError("there is no mask to draw")
    columns = min(len(shown), max(2, math.ceil(math.sqrt(len(shown)))))
    rows = math.ceil(len(shown) / columns)
    figure = _figure(6.2 * columns, 5.5 * rows + 0.8)
    for index, panel in enumerate(shown):
        _draw_mask(figure, figure.add_subplot(rows, columns, index + 1), panel)
    which = f", first {limit} of {len(panels)} tensors" if len(panels) > limit else ""
    figure.suptitle(f"{title}{which}")
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


def _draw_mask(figure: Figure, axes: Axes, panel: MaskPanel) -> None:
    scores, unit = panel.scores, ""
    rows, columns = scores.shape
    name = panel.title if len(panel.title) <= 52 else f"…{panel.title[-51:]}"
    axes.set_title(f"{name}\n{panel.result}".strip(), fontsize=10)
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
    size = 260.0 / max(rows, columns)
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


def plot_patterns(masks: NDArray[np.bool_], *, columns: int = 18, title: str = "") -> Figure:
    """Draw many masks of one block as a sheet of small pictures, kept entries coloured.

    Parameters
    ----------
    masks : (B, m, m) bool array
        What to draw.
    columns : int
        Masks in a row of the sheet.
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
        There is nothing to draw, or `masks` are no blocks.

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
    if not masks.size:
        raise OptionError("there is no mask to draw")
    columns = max(1, min(int(columns), count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (m + 1) - 1, columns * (m + 1) - 1), np.nan)
    for index, mask in enumerate(masks):
        top, left = (m + 1) * (index // columns), (m + 1) * (index % columns)
        sheet[top : top + m, left : left + m] = mask
    cell = 0.13
    figure = _figure(cell * sheet.shape[1] + 0.6, cell * sheet.shape[0] + 0.8)
    axes = figure.add_subplot()
    colours = import_module("matplotlib.colors").ListedColormap(["0.9", _BORDER])
    axes.imshow(sheet, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title or f"{count} masks of {m}×{m}")
    axes.axis("off")
    return figure


def plot_comparison(rows: Sequence[Comparison], *, title: str = "") -> Figure:
    """Draw the gap of each method against the time that it takes.

    Parameters
    ----------
    rows : sequence of Comparison
        From `masksolve.compare`; rows of several matrices can be put together, and the
        rows of a method then share a marker.
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
    if not rows:
        raise OptionError("there is no comparison to draw")
    figure = _figure(9.0, 5.0)
    axes = figure.add_subplot()
    methods: dict[str, list[Comparison]] = {}
    for row in rows:
        methods.setdefault(f"{row.method}/{row.backend}".rstrip("/"), []).append(row)
    for index, (label, found) in enumerate(methods.items()):
        shares = [row.kept_share for row in found if not math.isnan(row.kept_share)]
        kept = f"kept {format_share(float(np.mean(shares)))}" if shares else "no score"
        axes.plot(
            [max(row.seconds, 1e-6) for row in found],
            [100 * row.gap for row in found],
            linestyle="",
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=9,
            color=_COLOURS[index % len(_COLOURS)],
            markerfacecolor=_COLOURS[index % len(_COLOURS)] if found[0].exact else "white",
            markeredgewidth=1.8,
            clip_on=False,  # a gap of 0 lies on the axis
            zorder=3,
            label=f"{label}{'' if found[0].exact else ' (heuristic)'}\n"
            f"{kept} in {sum(row.seconds for row in found):.3g} s",
        )
    axes.set_xscale("log")
    worst = max(100 * row.gap for row in rows)
    axes.set_ylim(0, 1.15 * worst if 0 < worst < math.inf else 1)
    axes.set_xlabel("time to find the mask, seconds")
    axes.set_ylabel("gap to the proven bound, % (0 = optimal)")
    axes.set_title(title or "Methods compared")
    axes.grid(color="0.9", which="major")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, labelspacing=1.0)
    return figure


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
