"""Every row of METHODS: conformance, agreement between engines, bounds, symmetry."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import masksolve as ms
from masksolve.errors import TooLargeError, UnsupportedError
from masksolve.methods import find_method
from masksolve.pattern import Pattern
from masksolve.residual import block_objective
from masksolve.solvers import conv_numpy as conv
from masksolve.testing import SUITE_PATTERNS, brute_force, check_solver, lp_bound, strategies

DEGREES = ["exact", "at_most"]
RECORDS = {record.label: record for record in ms.METHODS}
EXACT = [label for label, record in RECORDS.items() if record.exact]
FLOWS = [label for label in EXACT if label.startswith("flow/")]
GENERAL = [label for label in EXACT if label != "conv/native"]  # that one does 4×4 only
SLOW = {"flow/networkx": 5, "flow/highs": 3}

FEW = settings(derandomize=True, max_examples=40, deadline=None)


def objective(label, q, n, degree):
    return block_objective(q, RECORDS[label].load()(q, n, degree).mask).tolist()


def supported(label, degree, patterns=SUITE_PATTERNS):
    return [p for p in patterns if RECORDS[label].why_not(p, degree) is None]


def all_patterns(max_m):
    return [Pattern(n, m) for m in range(1, max_m + 1) for n in range(m + 1)]


# --- conformance and agreement ------------------------------------------------------------


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("label", RECORDS)
def test_conformance(label, degree):
    patterns = supported(label, degree)
    if not patterns:
        assert label == "greedy/cover"
        with pytest.raises(UnsupportedError, match="cannot give an exact"):
            RECORDS[label].load()(np.zeros((1, 4, 4), int), 2, degree)
        return
    check_solver(
        RECORDS[label].load(),
        exact=RECORDS[label].exact,
        degrees=[degree],
        patterns=patterns,
        max_examples=SLOW.get(label, 15),
    )


def test_every_method_does_every_small_pattern_in_some_degree():
    for name in {record.name for record in ms.METHODS}:
        for pattern in all_patterns(4):
            labels = [label for label in RECORDS if label.startswith(f"{name}/")]
            assert any(supported(label, "at_most", [pattern]) for label in labels), (name, pattern)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("family", strategies.FAMILIES)
@pytest.mark.parametrize(("n", "m"), [(2, 5), (3, 8), (8, 16)])
def test_flow_engines_agree_to_the_last_bit(n, m, family, degree):
    @settings(derandomize=True, max_examples=3, deadline=None)
    @given(strategies.blocks(m, count=2, families=[family]))
    def agree(q):
        first, *others = (objective(label, q, n, degree) for label in FLOWS)
        assert others == [first] * len(others)

    agree()


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize(("n", "m"), [(1, 5), (2, 5), (3, 5), (1, 6), (1, 7)])
def test_conv_agrees_with_flow(n, m, degree):
    @settings(derandomize=True, max_examples=15, deadline=None)
    @given(strategies.blocks(m))
    def agree(q):
        assert objective("conv/numpy", q, n, degree) == objective("flow/ortools", q, n, degree)

    agree()


@pytest.mark.parametrize("degree", DEGREES)
def test_a_block_of_32_is_optimal(degree):
    q = np.random.default_rng(0).integers(-(2**39), 2**40, (1, 32, 32))
    assert objective("flow/ortools", q, 16, degree) == [lp_bound(q[0], 16, degree)]


# --- the bounds of the heuristics ---------------------------------------------------------


@st.composite
def greedy_cases(draw):
    """Magnitudes, as both bounds ask for, of a pattern that brute force can do."""
    pattern = draw(strategies.patterns(4, min_m=2))
    return draw(strategies.blocks(pattern.m, signed=False)), pattern.n


@settings(FEW, max_examples=150)
@given(greedy_cases())
def test_greedy_keeps_half_and_prunes_at_most_twice(case):
    q, n = case
    total = q.sum(axis=(1, 2))
    best, _ = brute_force(q, n, "at_most")
    kept = np.array(objective("greedy/native", q, n, "at_most"))
    assert (2 * kept >= best).all()
    assert (total - kept <= 2 * (total - best)).all()


@settings(FEW, max_examples=150)
@given(greedy_cases())
def test_cover_prunes_at_most_twice_and_keeps_no_more_than_greedy(case):
    q, n = case
    total = q.sum(axis=(1, 2))
    best, _ = brute_force(q, n, "at_most")
    kept = np.array(objective("greedy/cover", q, n, "at_most"))
    assert (total - kept <= 2 * (total - best)).all()
    masks = {b: RECORDS[b].load()(q, n, "at_most").mask for b in ("greedy/cover", "greedy/native")}
    assert (masks["greedy/cover"] <= masks["greedy/native"]).all()


@settings(FEW, max_examples=150)
@given(greedy_cases())
def test_completed_greedy_keeps_half(case):
    q, n = case
    kept = np.array(objective("greedy/native", q, n, "exact"))
    assert (2 * kept >= brute_force(q, n, "exact")[0]).all()


def test_both_factors_are_reached():
    """The bounds cannot be better: blocks on which greedy keeps half, and prunes twice."""
    q = np.array([[[3, 3, 3, 3], [3, 3, 3, 3], [3, 3, 0, 0], [3, 3, 0, 0]]])
    for degree in DEGREES:
        assert objective("greedy/native", q, 2, degree) == [12]
        assert objective("flow/ortools", q, 2, degree) == [24]
    q = np.array([[[2, 2], [2, 0]]])
    assert q.sum() - objective("greedy/native", q, 1, "at_most")[0] == 4
    assert q.sum() - objective("flow/ortools", q, 1, "at_most")[0] == 2


def test_the_pruned_bound_does_not_survive_completion():
    """A 3:4 block from which the optimum prunes nothing, and the completed greedy something."""
    q = np.array([[[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]]])
    assert objective("flow/ortools", q, 3, "exact") == [q.sum()]
    assert objective("greedy/native", q, 3, "at_most") == [q.sum()]
    assert objective("greedy/native", q, 3, "exact") < [q.sum()]


@settings(FEW, max_examples=150)
@given(strategies.patterns(8), strategies.degrees(), st.data())
def test_the_cover_form_filled_up_is_the_greedy(pattern, degree, data):
    """The theorem, ties included, with the public solvers: fill up from the largest down."""
    n = pattern.n
    q = data.draw(strategies.blocks(pattern.m, signed=False))
    filled = RECORDS["greedy/cover"].load()(q, n, "at_most").mask.copy()
    for block, kept in zip(q, filled, strict=True):
        for flat in np.argsort(-block, axis=None, kind="stable"):
            i, j = divmod(int(flat), pattern.m)
            if not kept[i, j] and kept[i].sum() < n and kept[:, j].sum() < n:
                kept[i, j] = True
    greedy = RECORDS["greedy/native"].load()(q, n, "at_most").mask
    assert (filled == greedy).all()
    if degree == "exact":  # completion only changes masks that are not exact yet
        complete = RECORDS["greedy/native"].load()(q, n, "exact").mask
        full = (greedy.sum(axis=2) == n).all(axis=1)
        assert (complete[full] == greedy[full]).all()


# --- symmetry -----------------------------------------------------------------------------


@st.composite
def symmetry_cases(draw, label):
    degree = draw(strategies.degrees())
    pattern = draw(st.sampled_from(supported(label, degree, [*all_patterns(5), Pattern(4, 8)])))
    return draw(strategies.blocks(pattern.m)), pattern.n, degree


@pytest.mark.parametrize("label", EXACT)
def test_transposing_and_permuting_keep_the_optimum(label):
    @settings(FEW, max_examples=SLOW.get(label, 20) * 2)
    @given(symmetry_cases(label), st.randoms(use_true_random=False))
    def check(case, random):
        q, n, degree = case
        order = list(range(q.shape[1]))
        best = objective(label, q, n, degree)
        assert objective(label, np.ascontiguousarray(q.swapaxes(1, 2)), n, degree) == best
        random.shuffle(order)
        assert objective(label, q[:, order], n, degree) == best
        random.shuffle(order)
        assert objective(label, np.ascontiguousarray(q[:, :, order]), n, degree) == best

    check()


@pytest.mark.parametrize("label", EXACT)
def test_keeping_n_is_pruning_the_rest(label):
    """Complement: the lightest m-n to prune, on max - q, leave the heaviest n to keep."""

    @settings(FEW, max_examples=SLOW.get(label, 20) * 2)
    @given(symmetry_cases(label))
    def check(case):
        q, n, _ = case
        m = q.shape[1]
        if Pattern(n, m) not in supported(label, "exact", [Pattern(n, m)]):
            return
        top = q.max(axis=(1, 2))
        pruned = objective(label, top[:, None, None] - q, m - n, "exact")
        expected = q.sum(axis=(1, 2)) - (m * (m - n) * top - pruned)
        assert objective(label, q, n, "exact") == expected.tolist()

    check()


@pytest.mark.parametrize("label", EXACT)
def test_scaling_and_shifting_the_scores(label):
    """Exact masks keep n*m entries whatever happens, so a shift moves every objective alike."""

    @settings(FEW, max_examples=SLOW.get(label, 20))
    @given(symmetry_cases(label), st.integers(0, 1000))
    def check(case, shift):
        q, n, degree = case
        q = q >> 12  # leaves room
        best = np.array(objective(label, q, n, degree))
        assert objective(label, 5 * q, n, degree) == (5 * best).tolist()
        if degree == "exact":
            moved = best + n * q.shape[1] * shift
            assert objective(label, q + shift, n, degree) == moved.tolist()

    check()


# --- conv ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m", "degree", "amount"),
    [(2, 6, "exact", "67950"), (3, 6, "exact", "297200"), (4, 8, "exact", "116963796250")],
)
def test_too_many_patterns_says_how_many_and_names_flow(n, m, degree, amount):
    message = rf"{n}:{m} pattern .* {amount}, more than its limit of 50000; use method='flow'"
    blocks = np.zeros((1, m, m), dtype=np.int64)
    with pytest.raises(TooLargeError, match=message):
        conv.solve(blocks, n, degree)
    with pytest.raises(UnsupportedError, match=message):
        ms.find_mask(blocks[0], n, m, method="conv", degree=degree)


def test_beyond_counting_the_number_is_estimated():
    with pytest.raises(TooLargeError, match=r"about 10\^56, .* use method='flow'"):
        conv.solve(np.zeros((1, 16, 16), dtype=np.int64), 8, "exact")
    with pytest.raises(TooLargeError, match=r"over 10\^55, .* use method='flow'"):
        conv.solve(np.zeros((1, 16, 16), dtype=np.int64), 8, "at_most")


def test_conv_goes_through_blocks_and_filters_in_pieces():
    q = np.random.default_rng(0).integers(0, 2**40, (100, 7, 7))
    assert conv.count_patterns(Pattern(1, 7), "exact") == 5040  # more than a piece of filters
    assert objective("conv/numpy", q, 1, "exact") == objective("flow/ortools", q, 1, "exact")


def test_all_or_nothing_needs_one_pattern_at_any_size():
    q = np.full((2, 200, 200), -1)
    for n, kept in ((0, 0), (200, -200 * 200)):
        assert objective("conv/numpy", q, n, "exact") == [kept] * 2
        assert objective("conv/numpy", q, n, "at_most") == [0] * 2


@pytest.mark.parametrize("degree", DEGREES)
def test_auto_takes_the_factored_search_where_there_is_one(degree):
    factored = supported("conv/native", degree, all_patterns(9))
    assert [str(p) for p in factored] == ["1:4", "2:4"] + ["3:4"] * (degree == "exact")
    for pattern in all_patterns(9):
        label = find_method("auto", None, pattern, degree).label
        assert label == ("conv/native" if pattern in factored else "flow/native")


# --- the example of the design ------------------------------------------------------------


@pytest.mark.parametrize("label", GENERAL)
def test_at_most_can_keep_more_than_exact(label):
    q = np.array([[[5, 0, 0], [0, 5, 5], [0, 5, 5]]])
    assert objective(label, q, 2, "exact") == [20]
    assert objective(label, q, 2, "at_most") == [25]


@pytest.mark.parametrize("label", GENERAL)
def test_the_integer_objective_is_that_of_the_real_scores(label):
    """Fixed point is exact for dyadic scores: compare with rational arithmetic."""
    W = np.array([[0.5, 0.375], [0.25, 0.0625]])
    method, backend = label.split("/")
    solution = ms.solve(W, 1, 2, method=method, backend=backend)
    assert Fraction(solution.objective) == Fraction(5, 8) == Fraction(solution.bound)
