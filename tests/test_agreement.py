"""The native engine against OR-Tools, integer for integer, on every family of scores."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import masksolve as ms
from masksolve.methods import find_method
from masksolve.residual import block_objective, weak_bound
from masksolve.scores import to_fixed_point
from masksolve.testing import strategies

# Blocks of each pattern, family and degree in the long test: 4320 * 12 * 2 = 103 680 in all.
COUNTS = {
    (1, 2): 600,
    (1, 4): 600,
    (2, 4): 600,
    (3, 7): 600,
    (4, 8): 600,
    (1, 8): 600,
    (8, 16): 300,
    (3, 16): 300,
    (16, 32): 100,
    (32, 64): 20,
}
NATIVE, ORTOOLS = (
    next(r for r in ms.METHODS if r.label == label) for label in ("flow/native", "flow/ortools")
)


def agree(n, m, family, degree, count):
    """Compare at least `count` blocks, and return how many were."""
    compared, together = 0, min(count, 20)

    @settings(max_examples=-(-count // together), suppress_health_check=list(HealthCheck))
    @given(
        strategies.matrices((together * m, m), families=[family], dtypes=["float64"]),
        st.booleans(),
    )
    def check(scores, absolute):
        nonlocal compared
        q, _ = to_fixed_point(scores.reshape(together, m, m), absolute=absolute)
        ours, theirs = NATIVE.load()(q, n, degree), ORTOOLS.load()(q, n, degree)
        objective = block_objective(q, ours.mask)
        assert (objective == block_objective(q, theirs.mask)).all()
        assert (objective == weak_bound(q, ours.u, ours.v, n)).all()
        compared += together

    check()
    return compared


@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize("family", strategies.FAMILIES)
def test_a_sample_of_blocks(family, degree):
    for n, m in ((1, 2), (2, 4), (4, 8), (8, 16)):
        agree(n, m, family, degree, 40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_blocks():
    compared = sum(
        agree(n, m, family, degree, count)
        for (n, m), count in COUNTS.items()
        for family in strategies.FAMILIES
        for degree in ("exact", "at_most")
    )
    assert compared >= 100_000


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (8, 16), (16, 32)])
def test_every_block_of_the_real_weights_is_proven(n, m, real_weights):
    for weight in real_weights.values():
        for method in ("auto", "flow"):
            solution = ms.solve(weight, n, m, method=method)
            assert solution.gap == 0
            assert solution.stats.optimal_blocks == solution.stats.blocks
            ms.check_certificate(solution.certificate, weight, solution.mask)


def test_the_mask_is_the_same_for_any_workers_and_bands(monkeypatch):
    from masksolve import find

    rng = np.random.default_rng(0)
    for scores in (rng.integers(0, 3, (96, 160)).astype(np.float32), rng.normal(size=(96, 160))):
        for n, m, method, degree in (
            (2, 4, "auto", "exact"),
            (2, 4, "auto", "at_most"),
            (4, 8, "flow", "exact"),
            (8, 16, "flow", "at_most"),
            (8, 16, "greedy", "exact"),
            (20, 40, "flow", "exact"),
        ):
            options = {"method": method, "degree": degree}
            expected = ms.solve(scores, n, m, workers=1, **options).mask
            for entries in (1, 1000, 5000, 1 << 20):
                monkeypatch.setattr(
                    find,
                    "find_method",
                    lambda *asked, e=entries: replace(find_method(*asked), band=e, matrix_band=e),
                )
                for workers in (1, 2, 7):
                    mask = ms.find_mask(scores, n, m, workers=workers, **options)
                    assert (mask == expected).all()
