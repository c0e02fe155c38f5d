"""Warm starts on raw matrices: what old prices still prove is kept, the rest is solved anew."""

import numpy as np
import pytest

import masksolve as ms
from masksolve import matrices

RNG = np.random.default_rng(11)
SCORES = RNG.normal(size=(64, 1600)).astype(np.float32)


def changed(share, noise):
    """SCORES with noise in a share of its 8x8 blocks."""
    where = np.repeat(np.repeat(RNG.random((8, 200)) < share, 8, axis=0), 8, axis=1)
    return np.where(where, SCORES + noise * RNG.normal(size=SCORES.shape), SCORES).astype(
        np.float32
    )


@pytest.fixture
def solved(monkeypatch):
    """Blocks that the engine is given, call by call."""
    seen = []
    whole = matrices._Proving.solve

    def counted(self, *arguments):
        seen.append(self.grid[0] * self.grid[1])
        return whole(self, *arguments)

    monkeypatch.setattr(matrices._Proving, "solve", counted)
    return seen


@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_unchanged_scores_are_only_read(solved, dtype, degree):
    scores = SCORES.astype(dtype)
    old = ms.solve(scores, 4, 8, degree=degree, workers=1)
    solved.clear()
    new = ms.solve(scores, 4, 8, degree=degree, workers=1, warm_start=old)
    assert sum(solved) < 0.1 * 1600
    assert new.objective == old.objective
    assert (new.mask == old.mask).all()
    ms.check_certificate(new.certificate, scores, new.mask)


@pytest.mark.parametrize(("share", "noise", "most"), [(0.2, 1.0, 0.4), (1.0, 1e-4, 0.3)])
def test_only_blocks_that_are_no_longer_proven_are_solved(solved, share, noise, most):
    old = ms.solve(SCORES, 4, 8)
    scores = changed(share, noise)
    solved.clear()
    new = ms.solve(scores, 4, 8, warm_start=old)
    assert 0 < sum(solved) < most * 1600
    assert new.objective == ms.solve(scores, 4, 8).objective
    ms.check_certificate(new.certificate, scores, new.mask)


def test_scores_on_another_scale_are_solved_from_the_old_prices(solved):
    old = ms.solve(SCORES, 4, 8)
    solved.clear()
    new = ms.solve(4 * SCORES, 4, 8, warm_start=old)
    assert sum(solved) == 1600
    assert new.objective == 4 * old.objective


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


def test_prices_from_nowhere_do_no_harm():
    """A warm start is only a start: no prices can make the answer wrong."""
    old = ms.solve(SCORES, 4, 8)
    for wild in (2**62, -(2**62), 2**50):
        old.certificate.v[...] = wild
        new = ms.solve(SCORES, 4, 8, warm_start=old)
        assert new.objective == old.objective
        assert new.optimal


def test_a_score_that_is_not_finite_is_named_in_a_warm_start_too():
    old = ms.solve(SCORES, 4, 8)
    for place in ((0, 0), (63, 1599)):
        scores = SCORES.copy()
        scores[place] = np.nan
        with pytest.raises(ms.errors.NonFiniteError, match=str(place[0])):
            ms.solve(scores, 4, 8, warm_start=old)
