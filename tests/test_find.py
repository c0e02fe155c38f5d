"""find_mask, solve and compare: inputs of every kind, bad input, the edges, determinism."""

import json
from dataclasses import fields, replace

import ml_dtypes
import numpy as np
import pytest

import masksolve as ms
from masksolve import errors, methods
from masksolve.residual import block_objective
from masksolve.solution import BlockSolution
from masksolve.solvers import flow_native

RNG = np.random.default_rng(0)
W = RNG.normal(size=(24, 40)).astype(np.float32)
EVERY = [record.label for record in ms.METHODS]
EXACT = [record.label for record in ms.METHODS if record.exact]


def run(scores, n, m, label="auto", function=ms.find_mask, **options):
    method, _, backend = label.partition("/")
    return function(scores, n, m, method=method, backend=backend or None, **options)


def degrees_of(label, n, m):
    record = next(record for record in ms.METHODS if record.label == label)
    pattern = ms.Pattern(n, m)
    return [d for d in ("exact", "at_most") if record.why_not(pattern, d) is None]


# --- right answers at the edges, in every method ------------------------------------------


@pytest.mark.parametrize("label", EVERY)
def test_edges_of_the_pattern(label):
    for n, m, expected in ((0, 4, False), (4, 4, True), (0, 1, False), (1, 1, True)):
        for degree in degrees_of(label, n, m):
            mask = run(W, n, m, label, degree=degree)
            assert mask.dtype == np.bool_
            assert (mask == expected).all(), (n, m, degree)


@pytest.mark.parametrize("label", EVERY)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 0, 4), (0, 4, 4)])
def test_empty_arrays_have_empty_masks(label, shape):
    for degree in degrees_of(label, 2, 4):
        solution = run(np.empty(shape), 2, 4, label, ms.solve, degree=degree)
        assert solution.mask.shape == shape
        assert (solution.objective, solution.bound, solution.gap) == (0, 0, 0)
        assert solution.optimal


@pytest.mark.parametrize("label", EVERY)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 5e-324, 1.7e308])
def test_zeros_and_constants(label, value):
    scores = np.full((8, 12), value)
    for degree in degrees_of(label, 2, 4):
        solution = run(scores, 2, 4, label, ms.solve, degree=degree)
        ms.check_mask(solution.mask, 2, 4, degree=degree)
        if label != "greedy/cover":
            assert solution.mask.sum() == 48 or value == 0
            assert solution.gap == 0
    exact = run(scores, 2, 4, "conv", ms.solve)
    assert exact.objective == np.inf if value == 1.7e308 else exact.objective == 48 * abs(value)


@pytest.mark.parametrize("label", EVERY)
def test_ragged_edges_are_padded_by_zeros(label):
    scores = RNG.normal(size=(7, 9))
    padded = np.zeros((8, 12))
    padded[:7, :9] = scores
    for degree in degrees_of(label, 2, 4):
        mask = run(scores, 2, 4, label, degree=degree)
        assert (mask == run(padded, 2, 4, label, degree=degree)[:7, :9]).all()
        ms.check_mask(mask, 2, 4, degree=degree)


# --- inputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [bool, np.int8, np.uint8, np.int64, np.float16, np.float64, np.longdouble, ml_dtypes.bfloat16,
     ml_dtypes.float8_e4m3fn, ">f4", ">i2"],
)  # fmt: skip
def test_every_real_dtype_is_taken(dtype):
    scores = (W * 10).astype(dtype)
    kept = scores.copy()
    mask = ms.find_mask(scores, 2, 4)
    assert (mask == ms.find_mask(abs(scores.astype(np.longdouble)), 2, 4)).all()
    assert scores.tobytes() == kept.tobytes()


def test_layout_does_not_change_the_mask(tmp_path):
    expected = ms.find_mask(W, 4, 8)
    path = tmp_path / "w.npy"
    np.save(path, W)
    frozen = W.copy()
    frozen.flags.writeable = False
    reverse = np.ascontiguousarray(W[::-1, ::-1])[::-1, ::-1]
    every_other = np.repeat(np.repeat(W, 2, axis=0), 3, axis=1)[::2, ::3]
    for other in (
        np.asfortranarray(W), frozen, reverse, every_other, np.load(path, mmap_mode="r"), W.tolist()
    ):  # fmt: skip
        mask = ms.find_mask(other, 4, 8)
        assert (mask == expected).all()
        assert type(mask) is np.ndarray


def test_a_batch_is_its_matrices():
    batch = RNG.normal(size=(3, 2, 10, 6))
    masks = ms.find_mask(batch, 1, 4)
    for index in np.ndindex(3, 2):
        assert (masks[index] == ms.find_mask(batch[index], 1, 4)).all()


def test_convolution_weights_take_axes_0_1():
    weight = RNG.normal(size=(16, 8, 3, 3))
    solution = ms.solve(weight, 2, 4, axes=(0, 1))
    ms.check_mask(solution.mask, 2, 4, axes=(0, 1))
    ms.check_certificate(solution.certificate, weight, solution.mask)
    for tap in np.ndindex(3, 3):
        assert (solution.mask[:, :, *tap] == ms.find_mask(weight[:, :, *tap], 2, 4)).all()


def test_negative_scores_are_optimised_as_they_stand():
    signed = RNG.normal(size=(16, 16))
    for degree in ("exact", "at_most"):
        best = ms.solve(signed, 2, 4, absolute=False, degree=degree)
        assert best.gap == 0
        assert best.objective == pytest.approx(signed[best.mask].sum(), abs=1e-9)
        for label in EXACT:
            other = run(signed, 2, 4, label, ms.solve, absolute=False, degree=degree)
            assert other.objective == best.objective
    assert not ms.find_mask(-abs(signed) - 1, 2, 4, absolute=False, degree="at_most").any()


# --- solve -------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize("label", EXACT)
def test_solve_proves_what_find_mask_finds(label, degree):
    solution = run(W, 2, 4, label, ms.solve, degree=degree)
    assert (solution.mask == run(W, 2, 4, label, degree=degree)).all()
    assert solution.gap == 0
    assert solution.optimal
    assert solution.objective == solution.bound
    assert solution.objective == pytest.approx(abs(W)[solution.mask].sum(dtype=float), rel=1e-12)
    assert solution.kept_share == pytest.approx(solution.objective / abs(W).sum(dtype=float))
    assert solution.stats.blocks == solution.stats.optimal_blocks == 60
    ms.check_certificate(solution.certificate, W, solution.mask)


def test_a_heuristic_gets_a_bound_from_dual_ascent():
    for degree, backend in (("exact", None), ("at_most", None), ("at_most", "cover")):
        guess = ms.solve(W, 4, 8, method="greedy", backend=backend, degree=degree)
        best = ms.solve(W, 4, 8, degree=degree)
        assert guess.objective < best.objective <= guess.bound
        true_gap = (best.objective - guess.objective) / best.objective
        assert true_gap <= guess.gap < true_gap + 0.02
        ms.check_certificate(guess.certificate, W, guess.mask)


def test_a_gap_is_never_rounded_away():
    """One block of 1e-300 that is not optimal beside one of 1e300 that is."""
    scores = np.zeros((2, 4))
    scores[:, :2] = 1e300 * np.eye(2)
    scores[:, 2:] = 1e-300 * (1 - np.eye(2))
    diagonal = ms.solve(
        scores, 1, 2, method=lambda q, *_: np.tile(np.eye(2, dtype=bool), (len(q), 1, 1))
    )
    assert diagonal.stats.optimal_blocks == 1
    assert diagonal.gap > 0
    assert not diagonal.optimal


@pytest.mark.parametrize("label", EVERY)
def test_the_same_mask_for_any_workers_band_size_and_neighbours(label, monkeypatch):
    """Ties everywhere, so an answer that leans on its neighbours shows."""
    scores = RNG.integers(0, 3, size=(32, 48))
    degree = degrees_of(label, 2, 4)[0]
    expected = run(scores, 2, 4, label, degree=degree, workers=1)
    for workers in (1, 2, 7):
        for band in (1, 100, 700, 10**6):
            records = [
                type(record)(**{**record.__dict__, "band": band}) for record in methods.METHODS
            ]
            monkeypatch.setattr(methods, "METHODS", tuple(records))
            assert (run(scores, 2, 4, label, degree=degree, workers=workers) == expected).all()
    alone = run(scores[8:12, 16:20], 2, 4, label, degree=degree)
    assert (alone == expected[8:12, 16:20]).all()


def test_progress_counts_every_block():
    told = []
    ms.find_mask(W, 2, 4, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (60, 60)


# --- a solver of one's own ---------------------------------------------------------------


def first_columns(q, n, _degree):
    """A valid exact mask that ignores the scores: a circulant."""
    m = q.shape[1]
    circulant = (np.arange(m)[:, None] + np.arange(m)) % m < n
    return np.broadcast_to(circulant, q.shape)


def test_an_own_solver_is_a_method():
    mask = ms.find_mask(W, 2, 4, method=first_columns)
    ms.check_mask(mask, 2, 4)
    solution = ms.solve(W, 2, 4, method=first_columns)
    assert solution.stats.method == "first_columns"
    assert 0 < solution.gap < 1
    best = ms.solve(W, 2, 4)

    def copy_cat(q, n, degree):
        return BlockSolution(methods.METHODS[0].load()(q, n, degree).mask)

    assert ms.solve(W, 2, 4, method=copy_cat).objective == best.objective
    assert ms.solve(W, 2, 4, method=copy_cat).gap == 0, "optimal masks of any origin are proven"
    ranked = ms.compare(W, 2, 4, methods=["auto", first_columns])
    assert ranked[1].method == "first_columns"
    assert ranked[1].gap == pytest.approx(solution.gap, rel=0.1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda q, n, d: first_columns(q, n, d).astype(int), "must return a bool array of shape"),
        (lambda q, n, d: first_columns(q, n, d)[:-1], "must return a bool array of shape"),
        (lambda q, n, d: first_columns(q, n + 1, d), r"keeps 3 entries in row 0 of block 0 of its"),
        (lambda q, n, d: np.triu(first_columns(q, n, d)), "keeps 1 entries in row 1 of block 0"),
        (lambda *_: None, "must return a bool array"),
        (lambda q, *_: BlockSolution(q.tolist()), "must return a bool array .* got dtype int64"),
        (
            lambda q, n, d: BlockSolution(first_columns(q, n, d), q[:, 0] * 1.0, q[:, 0]),
            "potentials u as int64",
        ),
    ],
)  # fmt: skip
def test_what_an_own_solver_returns_is_checked(answer, message):
    with pytest.raises(errors.SolverError, match=message):
        ms.find_mask(W, 2, 4, method=answer)


def test_an_own_solver_cannot_hide_behind_a_subclass():
    """Masked sums would call this mask of ones a diagonal."""

    def masked(q, *_):
        off = ~np.broadcast_to(np.eye(4, dtype=bool), q.shape)
        return BlockSolution(np.ma.masked_array(np.ones(q.shape, bool), mask=off))

    with pytest.raises(errors.SolverError, match="keeps 4 entries"):
        ms.solve(W, 1, 4, method=masked)


def test_an_own_solver_cannot_spoil_the_scores():
    def scribble(q, n, degree):
        mask = first_columns(q, n, degree)
        q[...] = 0
        return mask

    assert ms.solve(W, 2, 4, method=scribble).objective > 0


@pytest.mark.parametrize("matrix_home", [None, "greedy:solve_matrix"])
def test_an_exact_method_that_is_not_is_reported(monkeypatch, matrix_home):
    record = methods.METHODS[0]
    liar = replace(record, home="greedy:solve", matrix_home=matrix_home, prove_home=None)
    monkeypatch.setattr(methods, "METHODS", (liar, *methods.METHODS[1:]))
    with pytest.raises(errors.SolverError, match=r"flow/native returned a mask .* not optimal"):
        ms.solve(W, 2, 4, method="flow")


@pytest.mark.parametrize("wrong", ["mask", "u", "v"])
def test_an_exact_matrix_solver_that_is_not_is_reported(monkeypatch, wrong):
    def lie(*arguments):
        finite = flow_native.prove_matrix(*arguments)
        _, _, _, _, mask, u, v, _ = arguments
        if wrong == "mask":
            mask[:4] = mask[:4][::-1].copy()
        else:
            (u if wrong == "u" else v)[0, 0] += 2**41
        return finite

    monkeypatch.setattr(methods.Method, "load_matrix_prover", lambda _: lie)
    with pytest.raises(errors.SolverError, match=r"not optimal in \d+ of"):
        ms.solve(W, 2, 4, method="flow")


def test_what_is_no_mask_is_not_proven(monkeypatch):
    """Of zero scores everything keeps the bound."""

    def keep_all(*arguments):
        for array in arguments[4:7]:
            array[...] = array is arguments[4]
        return True

    monkeypatch.setattr(methods.Method, "load_matrix_prover", lambda _: keep_all)
    with pytest.raises(errors.SolverError, match=r"kept other than 2:4 \(exact\) in 4 blocks"):
        ms.solve(np.zeros((8, 8)), 2, 4, method="flow")


# --- compare -----------------------------------------------------------------------------


def test_compare_lists_every_method_that_does_the_pattern():
    rows = ms.compare(W, 2, 4)
    assert [row.label for row in rows] == [
        record.label for record in ms.METHODS if record.backend != "cover"
    ]
    assert len({row.objective for row in rows if row.exact}) == 1
    assert all(row.gap == 0 and row.optimal_blocks == row.blocks for row in rows if row.exact)
    assert all(row.gap > 0 for row in rows if not row.exact)
    assert all(row.seconds > 0 for row in rows)
    assert rows[0].as_dict()["method"] == rows[0].method
    assert [row.method for row in ms.compare(W, 4, 8, methods="greedy")] == ["greedy"]
    assert ms.compare(W, 4, 8, methods=[]) == []


def test_a_comparison_says_what_was_compared():
    def mine(blocks, n, degree):
        return ms.find_mask(blocks, n, blocks.shape[1], degree=degree)

    flow, own = ms.compare(W, 2, 4, methods=["flow", mine], degree="at_most", name="W")
    assert (flow.label, own.label) == ("flow/native", "mine")
    for row in (flow, own):
        assert (row.pattern, row.degree, row.name) == (ms.Pattern(2, 4), "at_most", "W")
        assert row.seconds_per_block == row.seconds / row.blocks
        record = json.loads(json.dumps(row.as_dict()))
        assert list(record) == [field.name for field in fields(row)]
        assert record["pattern"] == "2:4"
    (nothing,) = ms.compare(W[:0], 2, 4, methods=["flow"])
    assert np.isnan(nothing.seconds_per_block)
    assert nothing.name == ""


def test_compare_compiles_before_the_clock_runs(monkeypatch):
    """A method's first call, the slow one, is not the one that is timed."""
    shapes = []
    prove = flow_native.prove_matrix

    def seen(scores, *arguments):
        shapes.append(scores.shape)
        return prove(scores, *arguments)

    monkeypatch.setattr(flow_native, "prove_matrix", seen)
    ms.compare(W, 4, 8, methods=["flow"])
    assert shapes[0] == (8, 8)
    assert shapes[1:] == [W.shape]


@pytest.mark.parametrize("name", [None, 3, ["W"]])
def test_compare_takes_a_text_as_name(name):
    with pytest.raises(errors.OptionError, match="name must be a text"):
        ms.compare(W, 2, 4, methods=["conv"], name=name)


def test_compare_on_a_sample_of_blocks():
    (row,) = ms.compare(W, 2, 4, methods=["conv"], sample=7)
    assert row.blocks == 7
    (row,) = ms.compare(W, 2, 4, methods=["conv"], sample=10**6)
    assert row.objective == ms.solve(W, 2, 4).objective
    (row,) = ms.compare(W[:0], 2, 4, methods=["conv"], sample=5)
    assert row.blocks == 0
    weight = RNG.normal(size=(16, 8, 3, 3))
    (row,) = ms.compare(weight, 2, 4, methods=["conv"], sample=10**6, axes=(0, 1))
    assert row.objective == ms.solve(weight, 2, 4, axes=(0, 1)).objective
    for bad in (0, 1.5, True, np.array([1, 2])):
        with pytest.raises(errors.OptionError, match="sample must be a positive number"):
            ms.compare(W, 2, 4, sample=bad)


@pytest.mark.parametrize("label", EVERY)
def test_all_or_nothing_of_large_blocks(label):
    """Nothing here may grow with the number of patterns, or with recursion."""
    m = 40 if label in ("flow/highs", "flow/networkx") else 330  # those take a minute for 330
    scores = RNG.normal(size=(m, m))
    for n in (0, m):
        for degree in degrees_of(label, n, m):
            assert (run(scores, n, m, label, degree=degree) == (n == m)).all()


def test_a_large_greedy_block_is_not_the_diagonal_mask():
    """n * total of a 256:512 block exceeds an int64."""
    scores = np.random.default_rng(3).normal(size=(512, 512))
    at_most = ms.solve(scores, 256, 512, method="greedy", degree="at_most")
    exact = ms.solve(scores, 256, 512, method="greedy")
    assert exact.kept_share > at_most.kept_share - 0.01


def test_scores_at_the_end_of_the_range():
    top = np.finfo(np.float64).max
    for scores in (np.full((4, 4), top), np.full((4, 4), 5e-324)):
        solution = ms.solve(scores, 2, 4)
        assert solution.kept_share == 0.5
        assert solution.gap == 0
    off = ~np.eye(2, dtype=bool)
    proof = ms.certify_mask(np.diag([top, top]), off, 1, 2)
    assert proof.cycle.gain == np.inf
    signed = np.array([[0, -1e300, 1e-300, 0], [-1e300, 0, 0, 0]])
    worst = ms.solve(
        signed, 1, 2, absolute=False, method=lambda q, *_: np.broadcast_to(off, q.shape)
    )
    assert worst.gap == np.inf


def test_the_callers_error_state_does_not_matter():
    scores = np.diag([1e308, 1e-308, 5e-324, 1.0])
    expected = ms.solve(scores, 1, 2)
    with np.errstate(all="raise"):
        assert (ms.solve(scores, 1, 2, workers=1).mask == expected.mask).all()


def test_numpy_integers_are_integers():
    n, m = np.uint8(8), np.uint8(16)
    solution = ms.solve(W, n, m, workers=np.int64(2))
    ms.check_mask(solution.mask, n, m)
    assert ms.certify_mask(W, solution.mask, n, m).optimal
    assert ms.compare(W, np.int8(50), np.int8(100), methods=["flow"], sample=np.int8(2))[0].gap == 0


# --- out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("label", EVERY)
def test_a_mask_goes_where_it_is_to_go(label):
    (degree, *_) = degrees_of(label, 2, 4)
    fast = label in ("flow/native", "conv/native", "greedy/native")
    for shape in ((23, 41), (3, 23, 41), *([(3, 131, 132)] if fast else [])):
        scores = RNG.normal(size=shape).astype(np.float32)
        expected = run(scores, 2, 4, label, degree=degree)
        for room in (
            np.ones(shape, bool),
            np.ones(shape, bool, order="F"),
            np.ones((*shape[:-2], 2 * shape[-2], 2 * shape[-1]), bool)[..., ::2, ::-2],
        ):
            assert run(scores, 2, 4, label, degree=degree, out=room) is room
            assert (room == expected).all()


def test_a_mask_may_lie_beside_its_scores():
    """In one record, say: what matters is that no byte belongs to both."""
    both = np.zeros((8, 8), [("score", np.float32), ("kept", bool)])
    both["score"] = W[:8, :8]
    ms.find_mask(both["score"], 2, 4, out=both["kept"])
    assert (both["score"] == W[:8, :8]).all()
    assert (both["kept"] == ms.find_mask(W[:8, :8], 2, 4)).all()


def test_what_cannot_take_a_mask_is_refused():
    flags = np.ones((8, 8), bool)
    fixed = flags.copy()
    fixed.flags.writeable = False
    for out, what in (
        ([[True]], "got list"),
        (np.ones((8, 8)), r"got a float64 array of shape \(8, 8\)"),
        (np.ones((8, 4), bool), r"got a bool array of shape \(8, 4\)"),
        (fixed, "got a read-only bool array"),
        (flags, "shares memory"),
        (flags.T, "shares memory"),
        (np.lib.stride_tricks.as_strided(np.ones(8, bool), (8, 8), (0, 1)), "within itself"),
    ):
        with pytest.raises(errors.OptionError, match=rf"shape \(8, 8\), .*{what}"):
            ms.find_mask(flags, 2, 4, out=out)
    assert flags.all(), "inputs are never modified"


# --- warm start --------------------------------------------------------------------------


@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize("noise", [0, 1e-3, 1e-2, 1, 1e6])
def test_a_warm_start_ends_where_a_cold_one_does(degree, noise):
    scores = RNG.normal(size=(64, 64))
    scores[:16] = np.round(scores[:16])  # ties
    before = ms.solve(scores, 4, 8, degree=degree)
    after = scores + noise * RNG.normal(size=scores.shape)
    cold = ms.solve(after, 4, 8, degree=degree)
    for method in ("auto", "flow", "greedy"):
        warm = ms.solve(after, 4, 8, degree=degree, method=method, warm_start=before)
        ms.check_certificate(warm.certificate, after, warm.mask)
        if method != "greedy":
            assert warm.objective == cold.objective
            assert warm.gap == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("degree", ["exact", "at_most"])
def test_blocks_of_one_entry_are_solved(degree, dtype):
    scores = np.array([[3, 0, 1], [0, 2, 5]], dtype=dtype)
    for n in (0, 1):
        solution = ms.solve(scores, n, 1, degree=degree)
        assert solution.gap == 0
        assert solution.objective == 11 * n
        assert ms.solve(scores, n, 1, degree=degree, warm_start=solution).objective == 11 * n


def test_a_warm_start_from_another_problem_is_refused():
    before = ms.solve(W, 4, 8)
    for error, arguments in (
        ("pattern 4:8, but this call has pattern 2:8", (W, 2, 8)),
        (r"shape \(24, 40\), but this call has shape \(40, 24\)", (W.T, 4, 8)),
    ):
        with pytest.raises(errors.OptionError, match=error):
            ms.solve(*arguments, warm_start=before)
    with pytest.raises(errors.OptionError, match="degree exact, but this call has degree at_most"):
        ms.solve(W, 4, 8, degree="at_most", warm_start=before)
    with pytest.raises(errors.OptionError, match="must be a MaskSolution"):
        ms.solve(W, 4, 8, warm_start=before.mask)


# --- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 5}, errors.PatternError, "n must not exceed m"),
        ({"n": -1}, errors.PatternError, "at least 0"),
        ({"m": 0}, errors.PatternError, "at least 1"),
        ({"n": 2.0}, errors.PatternTypeError, "must be an integer"),
        ({"m": "4"}, errors.PatternTypeError, "must be an integer"),
        ({"method": "flwo"}, errors.MethodError, "did you mean 'flow'"),
        ({"method": "simplex"}, errors.MethodError, "There are 'auto', 'flow', 'conv', 'greedy'"),
        ({"method": None}, errors.MethodError, "got NoneType"),
        ({"method": np.array(["flow"])}, errors.MethodError, "got ndarray"),
        ({"degree": np.array(["exact"] * 2)}, errors.OptionError, "degree must be"),
        ({"method": "flow", "backend": "or-tools"}, errors.MethodError, "mean 'ortools'"),
        ({"method": "greedy", "backend": "highs"}, errors.MethodError, "no backend 'highs'"),
        ({"backend": "ortools"}, errors.MethodError, "chooses its backend itself"),
        ({"method": first_columns, "backend": "x"}, errors.MethodError, "solver of your own"),
        ({"method": "conv", "backend": "native", "m": 8}, errors.UnsupportedError, "does 1:4, 2:4"),
        ({"method": "conv", "m": 8}, errors.UnsupportedError, "187530840.* use method='flow'"),
        ({"method": "conv", "m": 32}, errors.UnsupportedError, r"about 10\^\d+.* method='flow'"),
        (
            {"method": "conv", "m": 32, "degree": "at_most"},
            errors.UnsupportedError,
            r"over 10\^\d+.* method='flow'",
        ),
        ({"method": "greedy", "backend": "cover"}, errors.UnsupportedError, "degree='at_most'"),
        ({"degree": "atmost"}, errors.OptionError, "degree must be"),
        ({"remainder": "crop"}, errors.OptionError, "remainder must be"),
        ({"remainder": "error", "m": 16}, errors.RaggedShapeError, "axis 0 .* remainder of 8"),
        ({"axes": (0, 5)}, errors.OptionError, "axes must name"),
        ({"workers": 0}, errors.OptionError, "workers must be"),
        ({"progress": 3}, errors.OptionError, "progress must be"),
        ({"scores": 3.0}, errors.ShapeError, "at least 2 dimensions"),
        ({"scores": np.ones(4)}, errors.ShapeError, r"got shape \(4,\)"),
        ({"scores": W * 1j}, errors.DtypeError, "complex"),
        ({"scores": W.astype(object)}, errors.DtypeError, "object"),
        ({"scores": np.full((4, 4), "a")}, errors.DtypeError, "<U1"),
        ({"scores": None}, errors.DtypeError, "object"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [ms.find_mask, ms.solve])
def test_bad_input_has_its_own_error(function, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        function(**{"scores": W, "n": 2, "m": 4, **arguments})
    assert type(caught.value) is error
    assert isinstance(caught.value, ms.MaskSolveError)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("workers", [1, 2])
def test_non_finite_scores_are_refused_with_position_and_count(bad, workers):
    scores = np.random.default_rng(1).normal(size=(300, 2000))
    scores[17, 1999] = scores[299, 3] = scores[17, 5] = bad
    with pytest.raises(errors.NonFiniteError, match=r"at \(17, 5\) is .*; 3 entries"):
        ms.find_mask(scores, 2, 4, workers=workers)


def test_n_and_m_have_no_defaults():
    with pytest.raises(TypeError):
        ms.find_mask(W)


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ortools.graph.python.min_cost_flow", None)
    monkeypatch.delitem(sys.modules, "masksolve.solvers.flow_ortools", raising=False)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install .*ortools") as caught:
        ms.find_mask(W, 2, 4, method="flow", backend="ortools")
    assert isinstance(caught.value, ImportError)


# --- the theorem's guarantees on whole arrays ---------------------------------------------


def test_at_most_is_never_worse_than_exact():
    scores = np.array([[5, 0, 0], [0, 5, 5], [0, 5, 5]])
    assert ms.solve(scores, 2, 3, degree="at_most").objective == 25
    assert ms.solve(scores, 2, 3).objective == 20


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (8, 16), (16, 32)])
def test_retained_shares_of_real_weights(n, m, real_weights):
    """Optimal shares of the published model; ours are of its float16 copy: four digits."""
    solution = ms.solve(real_weights["encoder.layer.0.intermediate.dense.weight"], n, m)
    expected = {4: 0.7039, 8: 0.7439, 16: 0.7682, 32: 0.7819}[m]
    assert round(solution.kept_share, 4) == expected
    assert solution.gap == 0


def test_block_objective_counts_kept_scores():
    q = np.arange(8).reshape(2, 2, 2)
    assert block_objective(q, q % 2 == 0).tolist() == [2, 10]
