"""Pictures: what is drawn is what was solved, and nothing global is touched."""

import subprocess
import sys

import numpy as np
import pytest

import masksolve as ms
from masksolve.errors import MissingDependencyError, OptionError, ShapeError
from masksolve.plot import (
    MaskPanel,
    format_gap,
    format_share,
    picture_suffixes,
    plot_comparison,
    plot_flip_ratios,
    plot_gaps,
    plot_losses,
    plot_masks,
    plot_patterns,
    plot_runs,
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


def test_a_panel_of_one_block():
    W = np.random.default_rng(0).normal(size=(3, 10, 16, 2))
    solution = ms.solve(W, 2, 4, method="greedy", axes=(1, 2))
    cut = MaskPanel.from_block("w", W, solution, (2, 1, 2, 3))
    part = (2, slice(8, 12), slice(12, 16), 1)  # the last block row is cut short
    np.testing.assert_array_equal(cut.scores, np.abs(W[part]))
    np.testing.assert_array_equal(cut.mask, solution.mask[part])
    kept = np.abs(W[part])[solution.mask[part]].sum()
    assert cut.result.startswith(f"2:4, block (2, 1, 2, 3) keeps {kept:.4g}, ")
    trap = np.array([[3.0, 2.5], [2.5, 0.0]])
    for method, result in (("auto", "keeps 5, optimal"), ("greedy", "keeps 3, bound 5")):
        solution = ms.solve(trap, 1, 2, method=method)
        cut = MaskPanel.from_block("trap", trap, solution, (0, 0))
        assert cut.result == f"1:2, block (0, 0) {result}"


@pytest.mark.parametrize("block", [(0,), (5, 0), (0, -1), (0.0, 0), 3])
def test_a_block_that_is_not_there_is_not_cut(block):
    W = np.eye(8)
    with pytest.raises(OptionError, match=r"index into the blocks, of shape \(2, 2\), got"):
        MaskPanel.from_block("I", W, ms.solve(W, 2, 4), block)


def test_scores_and_solution_belong_together():
    with pytest.raises(ShapeError, match=r"shape \(4, 8\), their solution \(8, 8\)"):
        MaskPanel.from_solution("I", np.ones((4, 8)), ms.solve(np.eye(8), 2, 4))


def test_panel_tells_the_result():
    cut, _, solution = panel()
    assert cut.result.startswith(f"2:4, keeps {100 * solution.kept_share:.2f} %")
    assert cut.result.endswith(f"gap {100 * solution.gap:.2g} %\ntop left corner")
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


def test_numbers_are_written_into_their_cells():
    W = np.arange(16.0).reshape(4, 4)
    solution = ms.solve(W, 2, 4)
    axes = plot_masks([MaskPanel.from_block("W", W, solution, (0, 0))], numbers=True).axes[0]
    written = {text.get_position(): text for text in axes.texts}
    assert len(written) == 16
    for (j, i), text in written.items():
        assert float(text.get_text()) == W[i, j]
        assert (text.get_color() == "white") == solution.mask[i, j]
    assert not any(line.get_marker() == "o" for line in axes.lines)
    with pytest.raises(OptionError, match=r"at most 8 rows and columns, but 'w' has shape \(32"):
        plot_masks([panel()[0]], numbers=True)


def test_panels_stand_in_two_columns_at_most():
    figure = plot_masks([panel(title=f"t{i}")[0] for i in range(5)])
    figure.draw_without_rendering()
    left = {round(a.get_position().x0, 2) for a in figure.axes if a.get_title()}
    assert len(left) == 2


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


def row(
    method, backend, *, exact, gap, seconds=1.0, kept=0.75, blocks=1, pattern=(2, 4),
    degree="exact", name="",
):  # fmt: skip
    return Comparison(
        method, backend, exact, objective=1.0, bound=1.0, gap=gap, total=1 / kept,
        kept_share=kept, optimal_blocks=1, blocks=blocks, seconds=seconds,
        pattern=ms.Pattern(*pattern), degree=degree, name=name,
    )  # fmt: skip


ROWS = [
    row("flow", "ortools", exact=True, gap=0.0, seconds=0.5),
    row("greedy", "native", exact=False, gap=0.01, seconds=0.001, kept=0.5),
    row("flow", "ortools", exact=True, gap=0.0, seconds=1.0, blocks=4),
    row("mine", "", exact=False, gap=0.002, seconds=0.0),
]


def test_comparison_has_one_marker_a_method_at_time_a_block_and_gap():
    axes = plot_comparison(ROWS, title="weights").axes[0]
    drawn = {line.get_label().split("\n")[0]: line for line in axes.lines}
    assert list(drawn) == ["flow/ortools", "greedy/native (heuristic)", "mine (heuristic)"]
    flow, greedy, mine = drawn.values()
    assert flow.get_xydata().tolist() == [[500_000, 0], [250_000, 0]]
    assert greedy.get_xydata().tolist() == [[1000, 1.0]]
    assert mine.get_xdata()[0] > 0  # on a logarithmic axis
    assert len({line.get_marker() for line in axes.lines}) == 3
    assert len({line.get_color() for line in axes.lines}) == 3
    assert flow.get_label().endswith("kept 75.00 %, 300000 µs a block")  # 1.5 s for 5 blocks
    assert (axes.get_title(), axes.get_xscale()) == ("weights", "log")
    assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        ROWS[:1],
        [row("a", "b", exact=False, gap=np.inf)],
        [row("a", "b", exact=False, gap=0.0, blocks=0)],
    ],
)
@pytest.mark.parametrize("plot", [plot_comparison, plot_gaps, plot_losses])
def test_comparisons_can_be_saved(tmp_path, rows, plot):
    for suffix in (".png", ".svg", ".pdf"):
        plot(rows).savefig(tmp_path / f"c{suffix}")
        assert (tmp_path / f"c{suffix}").stat().st_size > 1000


def bars_of(rows):
    """Label, length and text of each bar, from the top."""
    (axes,) = plot_gaps(rows).axes
    assert axes.yaxis_inverted()
    labels = [text.get_text() for text in axes.get_yticklabels()]
    texts = [text.get_text().strip() for text in axes.texts]
    return list(zip(labels, [bar.get_width() for bar in axes.patches], texts, strict=True))


def test_gaps_are_bars_with_their_numbers():
    labels, lengths, texts = zip(*bars_of(ROWS), strict=True)
    assert labels == ("flow/ortools", "greedy/native", "flow/ortools", "mine")
    assert lengths == pytest.approx([0, 1, 0, 0.2])
    assert texts == ("0", "1 %", "0", "0.2 %")
    assert bars_of([row("a", "b", exact=False, gap=np.inf)]) == [("a/b", 0, "inf %")]


def test_bars_are_labelled_with_what_differs():
    first = row("flow", "native", exact=True, gap=0.0, name="W")
    others = [
        row("flow", "native", exact=True, gap=0.0, name="W", pattern=(4, 8)),
        row("flow", "native", exact=True, gap=0.0, name="V"),
        row("flow", "native", exact=True, gap=0.0, name="W", degree="at_most"),
    ]
    expected = ["flow/native, 4:8", "flow/native, V", "flow/native, at most n"]
    assert [bars_of([first, other])[1][0] for other in others] == expected
    assert bars_of([first, first])[0][0] == "flow/native"


def test_losses_have_a_panel_for_every_name_and_a_line_for_every_method():
    rows = [
        row(method, "", exact=False, gap=gap, pattern=pattern, name=name)
        for name, scale in (("V", 1), ("W", 2), ("X", 0))
        for pattern, size in (((4, 8), 0.01), ((2, 4), 0.02))
        for method, gap in (("a", size * scale), ("b", size * scale / 10))
    ]
    figure = plot_losses(rows, title="losses")
    assert [axes.get_title() for axes in figure.axes] == ["V", "W", "X"]
    assert figure.get_suptitle() == "losses"
    for axes, scale in zip(figure.axes, (1, 2, 0), strict=True):
        assert [text.get_text() for text in axes.get_xticklabels()] == ["4:8", "2:4"]
        a, b = axes.lines
        assert (a.get_label(), b.get_label()) == ("a", "b")
        np.testing.assert_allclose(a.get_xydata(), [[0, scale], [1, 2 * scale]])
        np.testing.assert_allclose(b.get_ydata(), [0.1 * scale, 0.2 * scale])
        assert axes.get_ylim() == figure.axes[0].get_ylim()
        assert axes.get_ylim()[0] <= 0 < 4 < axes.get_ylim()[1]
    assert a.get_marker() != b.get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    figure.draw_without_rendering()
    assert len({round(axes.get_position().x0, 2) for axes in figure.axes}) == 2


def test_lines_of_both_degrees_say_which():
    rows = [row("a", "", exact=False, gap=0.1, degree=degree) for degree in ("exact", "at_most")]
    for figure in (plot_losses(rows), plot_comparison(rows)):
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert [label.split(" (")[0] for label in labels] == ["a, exactly n", "a, at most n"]


def test_nothing_to_draw_is_an_error():
    with pytest.raises(OptionError, match="no mask to draw"):
        plot_masks([])
    for plot in (plot_comparison, plot_gaps, plot_losses):
        with pytest.raises(OptionError, match="no comparison to draw"):
            plot([])


def test_flip_ratios_are_drawn_over_their_band():
    figure = plot_flip_ratios([1e-3, 0, 1e-4], [0.4, 1.2, 0.7], accept=(0.6, 0.9), chosen=1e-4)
    (axes,) = figure.axes
    line, chosen = axes.lines
    assert line.get_xydata().tolist() == [[0, 1.2], [1e-4, 0.7], [1e-3, 0.4]]
    assert chosen.get_xydata().tolist() == [[1e-4, 0.7]]
    assert axes.xaxis.get_transform().linthresh == 1e-4
    assert axes.patches[0].get_y() == 0.6
    for ratios in ([], [1.0]):
        with pytest.raises(OptionError, match="a ratio for every decay"):
            plot_flip_ratios([] if not ratios else [1e-3, 1e-4], ratios, accept=(0.6, 0.9))


def test_runs_are_drawn_with_their_spread():
    runs = {"dense": [[2.0, 1.0], [4.0, 1.0], [6.0, 4.0]], "_sparse $": [3.0, 2.0]}
    figure = plot_runs(runs, steps=[10, 20], what="loss")
    (axes,) = figure.axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[10, 4], [20, 2]],
        [[10, 3], [20, 2]],
    ]
    (band,) = axes.collections  # one run has no spread
    points = {tuple(point) for point in band.get_paths()[0].vertices.round(9).tolist()}
    assert points == {(10, 2), (10, 6), (20, round(2 - 3**0.5, 9)), (20, round(2 + 3**0.5, 9))}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dense", r"_sparse \$"]


@pytest.mark.parametrize(
    ("runs", "steps", "error", "message"),
    [
        ({}, [1], OptionError, "no run to draw"),
        ({"a": []}, [], OptionError, "no run to draw"),
        ({"a": [[1, 2], [3, 4]]}, [1, 2, 3], ShapeError, r"got shape \(2, 2\) for 'a'"),
        ({"a": np.ones((1, 2, 2))}, [1, 2], ShapeError, r"\(1, 2, 2\)"),
        ({"a": np.ones((0, 2))}, [1, 2], ShapeError, r"\(0, 2\)"),
        ({"a": [[1, 2], [3]]}, [1, 2], OptionError, r"runs\['a'\] must be an array of numbers"),
        ({"a": ["x", "y"]}, [1, 2], OptionError, r"runs\['a'\] must be .* 'x'"),
        ({"a": [1, 2]}, ["x", "y"], OptionError, "steps must be an array of numbers"),
        ([[1, 2]], [1, 2], OptionError, "runs must be a mapping .* got list"),
    ],
)
def test_runs_that_cannot_be_drawn_are_told(runs, steps, error, message):
    with pytest.raises(error, match=message):
        plot_runs(runs, steps=steps, what="loss")


def test_runs_that_require_a_gradient_are_told():
    torch = pytest.importorskip("torch")
    with pytest.raises(OptionError, match=r"runs\['a'\] .*detach"):
        plot_runs({"a": torch.ones(2, requires_grad=True)}, steps=[1, 2], what="loss")


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
        "from masksolve import Comparison as C, Pattern as P;"
        "p.plot_comparison([C('a', 'b', True, 1., 1., 0., 1., 1., 1, 1, 1., P(2, 4), 'exact')]);"
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


@pytest.mark.parametrize("bad", ["a", 0, -3, 2.5, None])
def test_counts_are_positive_integers(bad):
    cut, W, solution = panel()
    for name, draw in (
        ("limit", lambda: plot_masks([cut], limit=bad)),
        ("columns", lambda: plot_patterns(np.ones((1, 2, 2), bool), columns=bad)),
        ("entries", lambda: MaskPanel.from_solution("w", W, solution, entries=bad)),
    ):
        with pytest.raises(OptionError, match=f"{name} must be 1 or more, a whole number, got"):
            draw()


@pytest.mark.parametrize("plot", [plot_comparison, plot_gaps, plot_losses])
def test_rows_may_come_from_a_generator(plot):
    assert [len(axes.lines) for axes in plot(iter(ROWS)).axes] == [
        len(axes.lines) for axes in plot(ROWS).axes
    ]


@pytest.mark.filterwarnings("error")
def test_long_names_leave_room_for_the_bars(tmp_path):
    names = [f"model.layers.{i}.{'inner.' * 20}weight" for i in range(2)]
    rows = [
        row("own_solver_" * 9, "", exact=False, gap=0.1, name=name, pattern=pattern)
        for name in names
        for pattern in ((2, 4), (16, 32))
    ]
    figure = plot_gaps(rows)
    figure.savefig(tmp_path / "g.png")
    assert figure.axes[0].get_position().width > 0.2


@pytest.mark.parametrize("plot", [plot_comparison, plot_losses])
def test_the_legend_names_private_solvers(plot):
    rows = [row(name, "", exact=True, gap=0.0) for name in ("_mine", "yours")]
    texts = [text.get_text().split("\n")[0] for text in plot(rows).legends[0].get_texts()]
    assert texts == ["_mine", "yours"]


def test_dollars_are_no_mathematics(tmp_path):
    """What stands between two of them is no formula, and would be an error where it is drawn."""
    name = r"$\nothing{$"
    rows = [row(name, "", exact=True, gap=0.0, name=name + end) for end in "ab"]
    cut = panel(title=name)[0]
    patterns = plot_patterns(np.ones((1, 2, 2), bool), title=name)
    for figure in (
        patterns,
        plot_masks([cut], title=name),
        *(plot(rows, title=name) for plot in (plot_comparison, plot_gaps, plot_losses)),
    ):
        figure.savefig(tmp_path / "d.png")
    assert patterns.axes[0].get_title() == name.replace("$", r"\$")
