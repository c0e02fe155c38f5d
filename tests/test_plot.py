"""Pictures: what is drawn is what was solved, and nothing global is touched."""

import subprocess
import sys

import numpy as np
import pytest

import masksolve as ms
from masksolve.errors import MissingDependencyError, OptionError
from masksolve.plot import (
    MaskPanel,
    format_gap,
    format_share,
    picture_suffixes,
    plot_comparison,
    plot_masks,
    plot_patterns,
)
from masksolve.solution import Comparison

pytest.importorskip("matplotlib")


def panel(shape=(40, 36), n=2, m=4, title="w", **options):
    W = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    solution = ms.solve(W, n, m, method="greedy", **options)
    return MaskPanel.from_solution(title, W, solution), W, solution


def test_panel_is_the_corner_in_whole_blocks():
    cut, W, solution = panel((100, 20), 3, 6)
    np.testing.assert_array_equal(cut.scores, np.abs(W[:30, :20]).astype(float))
    np.testing.assert_array_equal(cut.mask, solution.mask[:30, :20])
    assert cut.mask.base is None  # the whole mask is not kept alive


def test_panel_of_a_batch_and_other_axes():
    cut, W, solution = panel((16, 8, 3, 2), axes=(1, 0))
    np.testing.assert_array_equal(cut.scores, np.abs(W[:, :, 0, 0].T))
    np.testing.assert_array_equal(cut.mask, solution.mask[:, :, 0, 0].T)


def test_panel_shows_one_block_that_is_larger_than_the_corner():
    assert panel((80, 80), 20, 40)[0].scores.shape == (40, 40)


def test_panel_tells_the_result():
    cut, _, solution = panel()
    assert cut.result.startswith(f"2:4, keeps {100 * solution.kept_share:.2f} %")
    assert cut.result.endswith(f"gap {100 * solution.gap:.2g} %; top left corner")
    best = ms.solve(np.eye(4), 1, 4)
    assert MaskPanel.from_solution("I", np.eye(4), best).result == (
        "1:4, keeps 100.00 % of the score, gap 0"
    )


def test_signed_scores_are_drawn_as_they_stand():
    W = -np.arange(1.0, 17).reshape(4, 4)
    cut = MaskPanel.from_solution("W", W, ms.solve(W, 2, 4, absolute=False))
    np.testing.assert_array_equal(cut.scores, W)
    axes = plot_masks([cut]).axes[0]
    assert axes.images[0].get_clim()[0] == -16


def test_every_kept_entry_has_its_mark_and_every_block_its_border():
    cut, *_ = panel((10, 7))
    axes = plot_masks([cut]).axes[0]
    marks = next(line for line in axes.lines if line.get_marker() == "o")
    x, y = marks.get_data()
    assert set(zip(y, x, strict=True)) == set(zip(*np.nonzero(cut.mask), strict=True))
    np.testing.assert_array_equal(axes.images[0].get_array(), cut.scores)
    borders = [line for line in axes.lines if line is not marks]
    rows = {line.get_ydata()[0] for line in borders if len(set(line.get_ydata())) == 1}
    columns = {line.get_xdata()[0] for line in borders if len(set(line.get_xdata())) == 1}
    assert (rows, columns) == ({-0.5, 3.5, 7.5, 9.5}, {-0.5, 3.5, 6.5})
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("column", "row")
    assert axes.get_title().startswith("w\n2:4, keeps")


def test_figure_says_what_it_leaves_out_and_explains_its_marks():
    figure = plot_masks([panel(title=f"t{i}")[0] for i in range(5)], limit=3)
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["t0", "t1", "t2"]
    assert "first 3 of 5 tensors" in figure.get_suptitle()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["kept entry", "block border"]


@pytest.mark.parametrize("shape", [(0, 8), (4, 4), (1, 1), (3, 0, 4, 4)])
def test_odd_shapes_are_drawn(tmp_path, shape):
    cut = MaskPanel.from_solution("zeros", np.zeros(shape), ms.solve(np.zeros(shape), 2, 4))
    plot_masks([cut]).savefig(tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 1000


@pytest.mark.parametrize("scale", [1e300, np.finfo(float).max, 1e-310])
def test_huge_and_tiny_scores_are_drawn(tmp_path, scale):
    W = np.full((4, 4), scale)
    figure = plot_masks([MaskPanel.from_solution("W", W, ms.solve(W, 2, 4))])
    figure.savefig(tmp_path / "m.png")
    image, bar = figure.axes
    unit = 1e20 if "/ 1e20" in bar.get_ylabel() else 1
    np.testing.assert_allclose(image.images[0].get_array() * unit, scale)


def test_long_doubles_that_no_double_holds_are_drawn(tmp_path):
    W = np.full((4, 4), np.finfo(np.longdouble).max)
    plot_masks([MaskPanel.from_solution("W", W, ms.solve(W, 2, 4))]).savefig(tmp_path / "m.png")


def test_what_there_is_none_of_is_a_dash():
    assert (format_share(np.nan), format_gap(np.nan)) == ("-", "-")
    assert (format_share(0.0), format_gap(0.0), format_gap(1e-12)) == ("0.00 %", "0", "1e-10 %")


def row(method, backend, *, exact, gap, seconds, kept=0.75):
    return Comparison(
        method, backend, exact, objective=1.0, bound=1.0, gap=gap, total=1 / kept,
        kept_share=kept, optimal_blocks=1, blocks=1, seconds=seconds,
    )  # fmt: skip


ROWS = [
    row("flow", "ortools", exact=True, gap=0.0, seconds=0.5),
    row("greedy", "native", exact=False, gap=0.01, seconds=0.001, kept=0.5),
    row("flow", "ortools", exact=True, gap=0.0, seconds=0.25),
    row("mine", "", exact=False, gap=0.002, seconds=0.0),
]


def test_comparison_has_one_marker_a_method_at_time_and_gap():
    axes = plot_comparison(ROWS, title="weights").axes[0]
    drawn = {line.get_label().split("\n")[0]: line for line in axes.lines}
    assert list(drawn) == ["flow/ortools", "greedy/native (heuristic)", "mine (heuristic)"]
    flow, greedy, mine = drawn.values()
    assert flow.get_xydata().tolist() == [[0.5, 0], [0.25, 0]]
    assert greedy.get_xydata().tolist() == [[0.001, 1.0]]
    assert mine.get_xdata()[0] > 0  # on a logarithmic axis
    assert len({line.get_marker() for line in axes.lines}) == 3
    assert len({line.get_color() for line in axes.lines}) == 3
    assert "kept 75.00 % in 0.75 s" in flow.get_label()
    assert (axes.get_title(), axes.get_xscale()) == ("weights", "log")
    assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:1], [row("a", "b", exact=False, gap=np.inf, seconds=1)]]
)
def test_comparisons_can_be_saved(tmp_path, rows):
    for suffix in (".png", ".svg", ".pdf"):
        plot_comparison(rows).savefig(tmp_path / f"c{suffix}")
        assert (tmp_path / f"c{suffix}").stat().st_size > 1000


def test_nothing_to_draw_is_an_error():
    with pytest.raises(OptionError, match="no mask to draw"):
        plot_masks([])
    with pytest.raises(OptionError, match="no comparison to draw"):
        plot_comparison([])


def test_suffixes():
    assert {".png", ".pdf", ".svg"} <= set(picture_suffixes())


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (picture_suffixes, lambda: plot_comparison(ROWS)):
        with pytest.raises(MissingDependencyError, match=r'pip install "masksolve\[plot\]"'):
            draw()


def test_pyplot_is_left_alone():
    code = (
        "import sys, masksolve.plot as p; assert 'matplotlib' not in sys.modules;"
        "from masksolve.solution import Comparison as C;"
        "p.plot_comparison([C('a', 'b', True, 1., 1., 0., 1., 1., 1, 1, 1.)]);"
        "assert 'matplotlib.figure' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sheet_of_patterns():
    masks = np.array([np.eye(4), np.eye(4)[::-1], np.ones((4, 4))], dtype=bool)
    figure = plot_patterns(masks, columns=2, title="three")
    (axes,) = figure.axes
    sheet = axes.images[0].get_array()
    assert axes.get_title() == "three"
    assert sheet.shape == (9, 9)
    assert (sheet[:4, :4] == masks[0]).all()
    assert (sheet[:4, 5:] == masks[1]).all()
    assert (sheet[5:, :4] == masks[2]).all()
    assert np.isnan(np.asarray(sheet)[:, 4]).all()


@pytest.mark.parametrize(
    "bad", [np.ones((2, 3, 4), bool), np.ones((3, 3), bool), np.ones((1, 2, 2))]
)
def test_what_is_no_pattern_is_not_drawn(bad):
    with pytest.raises(OptionError, match=r"boolean array \(B, m, m\)"):
        plot_patterns(bad)
    with pytest.raises(OptionError, match="no mask"):
        plot_patterns(np.ones((0, 3, 3), bool))


def test_titles_say_what_they_are_given():
    picture = plot_masks([panel()[0]], title="Row-wise masks")
    assert picture.get_suptitle() == "Row-wise masks"
    with pytest.raises(OptionError, match="limit must be 1 or more"):
        plot_masks([panel()[0]], limit=0)
