"""Potentials, bounds and cycles of integer blocks, against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masksolve.errors import CertificateError
from masksolve.residual import (
    block_objective,
    drop_wild_prices,
    dual_ascent,
    find_potentials,
    optimise,
    still_proven,
    weak_bound,
)
from masksolve.testing import brute_force, lp_bound, strategies

FEW = settings(derandomize=True, max_examples=60, deadline=None)
DEGREES = ["exact", "at_most"]


@st.composite
def masked_blocks(draw, max_m=4):
    """Blocks, n, degree and any valid masks of them: the best of other random scores."""
    pattern, degree = draw(strategies.patterns(max_m)), draw(strategies.degrees())
    q = draw(strategies.blocks(pattern.m))
    other = draw(strategies.blocks(pattern.m, count=len(q), families=["integers", "negative"]))
    return q, brute_force(other, pattern.n, degree)[1], pattern.n, degree


def by_definition(block, u, v, n):
    """The weak-duality bound, in Python integers."""
    block, u, v = block.tolist(), u.tolist(), v.tolist()
    slack = sum(
        max(0, score - u[i] - v[j]) for i, row in enumerate(block) for j, score in enumerate(row)
    )
    return n * (sum(u) + sum(v)) + slack


@FEW
@given(masked_blocks())
def test_potentials_prove_optimal_masks_and_no_others(case):
    q, mask, n, degree = case
    best, best_mask = brute_force(q, n, degree)
    for tried in (mask, best_mask):
        u, v, optimal = find_potentials(q, tried, n, degree)
        kept = block_objective(q, tried)
        assert optimal.tolist() == (kept == best).tolist()
        assert (weak_bound(q, u, v, n)[optimal] == best[optimal]).all()
        if degree == "at_most":
            assert u[optimal].min(initial=0) >= 0
            assert v[optimal].min(initial=0) >= 0


@FEW
@given(masked_blocks())
def test_optimise_reaches_the_optimum_from_any_mask(case):
    q, mask, n, degree = case
    before = mask.copy()
    found = optimise(q, mask, n, degree)
    assert (mask == before).all(), "the mask given stays as it is"
    best, _ = brute_force(q, n, degree)
    sums = np.concatenate([found.mask.sum(axis=1), found.mask.sum(axis=2)])
    assert (sums == n if degree == "exact" else sums <= n).all()
    assert (block_objective(q, found.mask) == best).all()
    assert (weak_bound(q, found.u, found.v, n) == best).all()


@FEW
@given(masked_blocks())
def test_the_first_cycle_gains_what_it_says(case):
    q, mask, n, degree = case
    best, _ = brute_force(q, n, degree)
    poor = np.flatnonzero(block_objective(q, mask) != best)
    cycle = optimise(q, mask, n, degree).first_cycle
    if not len(poor):
        assert cycle is None
        return
    assert cycle.block == poor[0]
    block, changed = q[cycle.block], mask[cycle.block].copy()
    assert changed[tuple(cycle.remove.T)].all()
    assert not changed[tuple(cycle.add.T)].any()
    changed[tuple(cycle.remove.T)] = False
    changed[tuple(cycle.add.T)] = True
    sums = np.concatenate([changed.sum(axis=0), changed.sum(axis=1)])
    assert (sums == n if degree == "exact" else sums <= n).all()
    assert block[changed].sum() - block[mask[cycle.block]].sum() == cycle.gain > 0


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize(("n", "m"), [(2, 5), (3, 8), (8, 16), (5, 32)])
def test_large_blocks_are_optimised_too(n, m, degree):
    rng = np.random.default_rng(m)
    q = rng.integers(-(2**40), 2**40, (2, m, m))
    q[1] = rng.integers(-2, 3, (m, m))
    cyclic = (np.arange(m)[:, None] + np.arange(m)) % m < n
    found = optimise(q, np.stack([cyclic, cyclic]), n, degree)
    best = [lp_bound(block, n, degree) for block in q]
    assert block_objective(q, found.mask).tolist() == best
    assert weak_bound(q, found.u, found.v, n).tolist() == best


@FEW
@given(strategies.patterns(6), strategies.degrees(), st.data())
def test_weak_bound_is_its_definition_and_a_bound(pattern, degree, data):
    n, m = pattern.n, pattern.m
    q = data.draw(strategies.blocks(m, count=1))
    low = 0 if degree == "at_most" else -(2**63)
    prices = st.lists(
        st.integers(low, 2**63 - 1) | st.integers(max(low, -9), 9), min_size=m, max_size=m
    )
    u, v = (np.array([data.draw(prices)], dtype=np.int64) for _ in range(2))
    expected = by_definition(q[0], u[0], v[0], n)
    if m <= 4:
        assert expected >= brute_force(q, n, degree)[0][0]
    if abs(expected) >= 2**63:
        with pytest.raises(CertificateError, match="too large"):
            weak_bound(q, u, v, n)
    else:
        assert weak_bound(q, u, v, n).tolist() == [expected]


@pytest.mark.parametrize("huge", [2**62, 2**63 - 1, -(2**62), -(2**63)])
def test_huge_potentials_do_not_wrap_around(huge):
    """Sums that leave an int64 on the way but not in the end are exact; else it is told."""
    q = np.array([[[7, 1], [2, 5]]])
    u, v = np.array([[huge, 0]]), np.array([[0, 0]])
    exact = by_definition(q[0], u[0], v[0], 1)
    if abs(exact) >= 2**63:
        with pytest.raises(CertificateError):
            weak_bound(q, u, v, 1)
    else:
        assert weak_bound(q, u, v, 1)[0] == exact
    u, v = np.array([[2**62, 2**62]]), np.array([[-(2**62), -(2**62)]])
    assert weak_bound(q, u, v, 1)[0] == by_definition(q[0], u[0], v[0], 1) == 15


@FEW
@given(strategies.patterns(8), strategies.degrees(), st.data())
def test_dual_ascent_gives_a_bound_and_more_rounds_a_better_one(pattern, degree, data):
    n, m = pattern.n, pattern.m
    q = data.draw(strategies.blocks(m))
    bounds = []
    for rounds in (1, 3, 10):
        u, v = dual_ascent(q, n, degree, rounds=rounds)
        if degree == "at_most":
            assert min(u.min(), v.min()) >= 0
        bounds.append(weak_bound(q, u, v, n))
    assert (bounds[0] >= bounds[1]).all()
    assert (bounds[1] >= bounds[2]).all()
    best = [lp_bound(block, n, degree) for block in q]
    assert (bounds[2] >= best).all()
    if n in (0, m):
        assert (bounds[2] == best).all()


@pytest.mark.parametrize("degree", ["exact", "at_most"])
def test_only_a_mask_with_feasible_prices_is_still_proven(degree):
    """Zero scores and prices: everything is worth the bound, but not everything is a mask."""
    good = np.arange(4)[:, None] // 2 == np.arange(4) // 2  # two in every line
    rows = np.repeat(good[:1], 4, axis=0)  # two in every row, four in two columns
    masks = np.stack([good, rows, rows.T, good & (np.arange(4) > 0)])
    q, zero = np.zeros((4, 4, 4), np.int64), np.zeros((4, 4), np.int64)
    proven = still_proven(q, masks, zero, zero, 2, degree)
    assert proven.tolist() == [True, False, False, degree == "at_most"]
    # prices of opposite signs keep the bound; they prove nothing where fewer may be kept
    for u, v in ((zero + 5, zero - 5), (zero - 5, zero + 5)):
        assert still_proven(q, masks, u, v, 2, degree)[0] == (degree == "exact")
    assert not still_proven(q, masks, zero + 1, zero, 2, degree).any(), "the bound is above"


def test_wild_prices_are_dropped_and_no_others():
    u = np.zeros((4, 3), np.int64)
    u[:, 0], u[1, 2], u[2, 1] = 7, 2**62, -(2**63)
    v = u[[0, 3, 2, 1]]
    for largest in (0, 1 << 40):
        one, two = u.copy(), v.copy()
        drop_wild_prices(one, two, 1, largest)
        for new, old in ((one, u), (two, v)):
            assert (new[0] == old[0]).all()
            assert not new[1:].any()
    tame_u, tame_v = np.clip(u, -(2**50), 2**50), np.clip(v, -(2**50), 2**50)
    one, two = tame_u.copy(), tame_v.copy()
    drop_wild_prices(one, two, 1, 1 << 40)
    assert (one == tame_u).all()
    assert (two == tame_v).all()


def test_dual_ascent_comes_close():
    q = np.abs(np.random.default_rng(0).normal(size=(50, 8, 8)) * 2**36).astype(np.int64)
    best = np.array([lp_bound(block, 4) for block in q])
    bound = weak_bound(q, *dual_ascent(q, 4, "exact"), 4)
    assert 1 <= (bound / best).mean() < 1.01


def test_no_blocks():
    q, mask = np.empty((0, 4, 4), np.int64), np.empty((0, 4, 4), bool)
    for degree in DEGREES:
        u, v, optimal = find_potentials(q, mask, 2, degree)
        assert u.shape == v.shape == (0, 4)
        assert optimal.shape == (0,)
        assert optimise(q, mask, 2, degree).first_cycle is None
        u, v = dual_ascent(q, 2, degree)
        assert weak_bound(q, u, v, 2).shape == (0,)
