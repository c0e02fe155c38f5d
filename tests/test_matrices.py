"""Warm starts on raw matrices: what old prices still prove is kept, the rest is solved anew."""

from dataclasses import replace

import numpy as np
import pytest

import masksolve as ms
from masksolve.matrices import MatrixProblem
from masksolve.tiling import Tiling

RNG = np.random.default_rng(11)
SCORES = RNG.normal(size=(64, 1600)).astype(np.float32)


def changed(share, noise):
    """SCORES with noise in a share of its 8x8 blocks."""
    where = np.repeat(np.repeat(RNG.random((8, 200)) < share, 8, axis=0), 8, axis=1)
    return np.where(where, SCORES + noise * RNG.normal(size=SCORES.shape), SCORES).astype(
        np.float32
    )


def taken_over(old, new):
    """Which blocks have the old prices, but for a constant."""
    a, b = (solution.certificate.v for solution in (old, new))
    return (a - a[..., :1] == b - b[..., :1]).all(axis=-1)


@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_old_prices_that_still_prove_a_mask_are_taken_over(dtype, degree):
    scores = SCORES.astype(dtype)
    old = ms.solve(scores, 4, 8, degree=degree, workers=1)
    for factor in (1, 4):  # prices are in units of the block's largest score
        new = ms.solve(dtype(factor) * scores, 4, 8, degree=degree, workers=1, warm_start=old)
        assert taken_over(old, new).mean() > 0.9
        assert new.objective == factor * old.objective
        assert (new.certificate.objective == old.certificate.objective).all(), "block by block"
        if dtype != np.float16:  # 11 bits tie, and then another mask may be as good
            assert (new.mask == old.mask).all()
        ms.check_certificate(new.certificate, dtype(factor) * scores, new.mask)


@pytest.mark.parametrize(("share", "noise"), [(0.2, 1.0), (1.0, 1e-4)])
def test_the_other_blocks_are_solved(share, noise):
    old = ms.solve(SCORES, 4, 8)
    scores = changed(share, noise)
    new = ms.solve(scores, 4, 8, warm_start=old)
    assert 0.7 < taken_over(old, new).mean() < 1
    assert new.objective == ms.solve(scores, 4, 8).objective
    ms.check_certificate(new.certificate, scores, new.mask)


def as_integers(scores):
    """The same problem for the solver of integer blocks, exactly: no ties that were not there."""
    return np.round(scores * 2**20).astype(np.int64)


@pytest.mark.parametrize("raw", [as_integers, np.asarray])
@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize(
    ("n", "m", "method", "backend"),
    [
        (4, 8, "flow", "native"),
        (2, 4, "flow", "highs"),
        (2, 4, "conv", "native"),
        (2, 4, "conv", "numpy"),
    ],
)
def test_what_an_answer_still_proves_is_kept_whoever_found_it(n, m, method, backend, degree, raw):
    """Among ties engines choose differently; a warm start does not choose again."""
    tied = raw(np.random.default_rng(1).integers(0, 4, (64, 256)).astype(np.float32))
    theirs = ms.solve(tied, n, m, method="flow", backend="networkx", degree=degree)
    how = {"method": method, "backend": backend, "degree": degree}
    ours = ms.solve(tied, n, m, **how)
    assert (ours.mask != theirs.mask).any()
    new = ms.solve(tied, n, m, warm_start=theirs, **how)
    assert (new.mask == theirs.mask).all()
    assert (new.certificate.u == theirs.certificate.u).all()
    assert (new.certificate.v == theirs.certificate.v).all()
    ms.check_certificate(new.certificate, tied, new.mask)


def test_an_engine_is_asked_for_what_is_left(monkeypatch):
    from masksolve.solvers import flow_ortools

    asked, solve = [], flow_ortools.solve

    def counted(q, n, degree):
        asked.append(len(q))
        return solve(q, n, degree)

    monkeypatch.setattr(flow_ortools, "solve", counted)
    scores = SCORES[:, :64]
    how = {"method": "flow", "backend": "ortools"}
    old = ms.solve(scores, 4, 8, **how)
    assert sum(asked) == 64
    asked.clear()
    other = scores.copy()
    other[8:16, 8:16] = scores[:8, :8]
    new = ms.solve(other, 4, 8, warm_start=old, **how)
    assert asked == [1]
    assert new.objective == ms.solve(other, 4, 8).objective
    ms.check_certificate(new.certificate, other, new.mask)


@pytest.mark.parametrize("raw", [as_integers, np.asarray])
def test_a_block_has_one_answer_however_many_others_changed(raw):
    """Few blocks that are left are solved apart, many where they lie."""
    before = np.random.default_rng(2).integers(0, 9, (64, 1600)).astype(np.float32)
    after = np.random.default_rng(3).integers(0, 9, (64, 1600)).astype(np.float32)
    old, answers = ms.solve(raw(before), 4, 8), []
    for part in (slice(0, 320), slice(0, 1280)):
        scores = before.copy()
        scores[:, part] = after[:, part]
        new = ms.solve(raw(scores), 4, 8, warm_start=old)
        ms.check_certificate(new.certificate, raw(scores), new.mask)
        assert new.objective == ms.solve(raw(scores), 4, 8).objective
        answers.append(new)
    few, many = answers
    assert (few.mask[:, :320] == many.mask[:, :320]).all()
    assert (few.certificate.v[:, :40] == many.certificate.v[:, :40]).all()
    assert (many.mask[:, 1280:] == old.mask[:, 1280:]).all()
    assert (few.mask[:, 320:] == old.mask[:, 320:]).all()


@pytest.mark.parametrize("raw", [as_integers, np.asarray])
@pytest.mark.parametrize("degree", ["exact", "at_most"])
def test_an_old_mask_is_not_believed(degree, raw):
    scores = raw(SCORES)
    old = ms.solve(scores, 4, 8, degree=degree)
    for wrong in (
        ~old.mask,
        np.ones_like(old.mask),
        np.zeros_like(old.mask),
        old.mask[::-1].copy(),
    ):
        new = ms.solve(scores, 4, 8, degree=degree, warm_start=replace(old, mask=wrong))
        ms.check_mask(new.mask, 4, 8, degree=degree)
        ms.check_certificate(new.certificate, scores, new.mask)
        assert new.objective == old.objective


def test_an_old_mask_of_another_kind_is_refused():
    old = ms.solve(SCORES, 4, 8)
    for wrong, what in (
        (old.mask.astype(int), "int64"),
        (old.mask.T, "1600, 64"),
        (None, "NoneType"),
    ):
        with pytest.raises(ms.errors.OptionError, match=f"mask is .*{what}.*, not a bool array"):
            ms.solve(SCORES, 4, 8, warm_start=replace(old, mask=wrong))


@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2, 1.0])
def test_the_answer_does_not_depend_on_workers(noise):
    old = ms.solve(SCORES, 4, 8)
    scores = changed(0.5, noise)
    one, two, seven = (
        ms.solve(scores, 4, 8, warm_start=old, workers=workers) for workers in (1, 2, 7)
    )
    for other in (two, seven):
        assert (other.mask == one.mask).all()
        assert (other.certificate.v == one.certificate.v).all()


def test_an_old_solution_is_left_as_it_is():
    old = ms.solve(SCORES, 4, 8)
    kept = [a.copy() for a in (old.mask, old.certificate.u, old.certificate.v)]
    ms.solve(changed(0.3, 1.0), 4, 8, warm_start=old)
    for before, after in zip(kept, (old.mask, old.certificate.u, old.certificate.v), strict=True):
        assert (before == after).all()


def test_ragged_edges_and_batches_take_a_warm_start():
    for shape in ((30, 700), (3, 40, 40)):
        scores = RNG.normal(size=shape)
        old = ms.solve(scores, 4, 8)
        new = ms.solve(scores, 4, 8, warm_start=old)
        assert new.objective == old.objective
        ms.check_certificate(new.certificate, scores, new.mask)


@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize(("n", "m"), [(4, 8), (16, 64), (64, 128)])
def test_prices_from_nowhere_do_no_harm(n, m, degree):
    """A warm start is only a start: no prices can make the answer wrong, or make it fail."""
    scores = RNG.normal(size=(2 * m, 2 * m))
    old = ms.solve(scores, n, m, degree=degree)
    noise = RNG.integers(-(2**60), 2**60, old.certificate.v.shape)
    for wild in (2**62, -(2**62), 2**63 - 1, -(2**63), 2**50, noise, noise >> 10):
        old.certificate.v[...] = wild
        new = ms.solve(scores, n, m, degree=degree, warm_start=old)
        assert new.objective == old.objective
        assert new.optimal


@pytest.mark.parametrize(("n", "m"), [(16, 64), (32, 64), (64, 128)])
def test_blocks_that_shrink_are_solved_from_old_prices(n, m):
    scores = RNG.random((2 * m, 2 * m))
    old = ms.solve(scores, n, m)
    for power in (8, 12, 16, 20):
        now = scores.copy()
        now[m:, m:] *= 2.0**-power
        now[:m, 0] *= 2.0**power
        new = ms.solve(now, n, m, warm_start=old)
        assert new.objective == ms.solve(now, n, m).objective


def test_a_block_does_not_depend_on_its_neighbours():
    """Ties, and another first block row: the other blocks have the same masks."""
    tied = RNG.integers(0, 16, (256, 256)).astype(np.float32)
    tied[:8] = RNG.normal(size=(8, 256))
    for degree in ("exact", "at_most"):
        old = ms.solve(tied, 4, 8, degree=degree)
        other = tied.copy()
        other[:8] = RNG.normal(size=(8, 256))
        one, two = (ms.solve(x, 4, 8, degree=degree, warm_start=old).mask for x in (tied, other))
        assert (one[8:] == two[8:]).all()


def test_a_solution_without_a_certificate_is_refused():
    old = ms.solve(SCORES, 4, 8)
    with pytest.raises(ms.errors.OptionError, match="its certificate is NoneType"):
        ms.solve(SCORES, 4, 8, warm_start=replace(old, certificate=None))


@pytest.mark.parametrize("scores", [SCORES, RNG.integers(0, 9, (16, 16))])
def test_what_is_no_certificate_is_refused(scores):
    old = ms.solve(scores, 4, 8)
    v = old.certificate.v
    for wrong in (v.astype(float), v.astype(np.int32), v.astype(np.uint64), v[..., :4], None, [1]):
        certificate = replace(old.certificate, v=wrong)
        with pytest.raises(ms.errors.OptionError, match=r"v of its certificate is .* not int64"):
            ms.solve(scores, 4, 8, warm_start=replace(old, certificate=certificate))
    u = old.certificate.u
    for same in (
        {"v": v.astype(">i8"), "u": u.astype(">i8")},
        {"v": np.asfortranarray(v), "u": u},
        {"v": v.tolist(), "u": u.tolist()},
    ):
        start = replace(old, certificate=replace(old.certificate, **same))
        for now in (scores, scores[::-1]):  # all is kept, and all is solved
            new = ms.solve(now, 4, 8, warm_start=start)
            assert new.objective == old.objective
            ms.check_certificate(new.certificate, now, new.mask)


def test_a_score_that_is_not_finite_is_named_in_a_warm_start_too():
    old = ms.solve(SCORES, 4, 8)
    for place in ((0, 0), (63, 1599)):
        scores = SCORES.copy()
        scores[place] = np.nan
        with pytest.raises(ms.errors.NonFiniteError, match=str(place[0])):
            ms.solve(scores, 4, 8, warm_start=old)


@pytest.mark.parametrize("size", [40, 160])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (8, 16)])
def test_the_matrices_of_a_batch_have_the_answers_that_each_has_alone(n, m, size):
    """However a batch lies in memory, ragged edges included."""
    batch = RNG.normal(size=(5, size + 3, size + 9)).astype(np.float32)
    alone = [ms.solve(scores, n, m) for scores in batch]
    for scores, axes in (
        (batch, (-2, -1)),
        (np.asfortranarray(batch), (-2, -1)),
        (np.ascontiguousarray(batch.transpose(1, 2, 0)), (0, 1)),
    ):
        new = ms.solve(scores, n, m, axes=axes)
        for found in (new.mask, ms.find_mask(scores, n, m, axes=axes)):
            matrices = np.moveaxis(found, axes, (-2, -1))
            assert all((a == b.mask).all() for a, b in zip(matrices, alone, strict=True))
        ms.check_certificate(new.certificate, scores, new.mask)
        again = ms.solve(scores, n, m, axes=axes, warm_start=new)
        assert (again.mask == new.mask).all()


@pytest.mark.parametrize(
    ("shape", "n", "m", "route"),
    [
        ((32, 32), 2, 4, "blocks"),
        ((128, 128), 2, 4, "matrices"),
        ((2048, 16), 2, 4, "matrices"),
        ((128, 128), 8, 16, "matrices"),
        ((2048, 16), 8, 16, "blocks"),
    ],
)
def test_large_matrices_of_a_batch_are_solved_where_they_lie(monkeypatch, shape, n, m, route):
    """To gather blocks takes many times as long as to solve them, but rows are to fill lanes."""
    taken = []
    for name, method in (("matrices", MatrixProblem._scores), ("blocks", Tiling.gather)):

        def noted(*given, name=name, method=method):
            taken.append(name)
            return method(*given)

        monkeypatch.setattr(MatrixProblem if name == "matrices" else Tiling, method.__name__, noted)
    batch = RNG.normal(size=(16, *shape)).astype(np.float32)
    for function in (ms.find_mask, ms.solve):
        taken.clear()
        function(batch, n, m)
        assert set(taken) == {route}
