"""docs/explanation/guarantees.md: the finite part of its proof, its counterexample, its bounds in practice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import masksolve as ms


def undecided(n, m):
    """Integers (a, b, c, delta) of step 7 at which neither (I) nor (II) reaches 2d."""
    room = m - n
    for b in range(1, n):
        for c in range(1, n):
            d = min(b * c, (n - b) * (n - c))
            for a in range(1, n - c + 1):
                for delta in range(1, b):
                    first = d + c * delta + a * (b + delta)
                    second = 2 * d + n * (room - n) - 2 * (n - c) * delta + 2 * a * (b + delta)
                    if max(first, second) < 2 * d:
                        yield a, b, c, delta


def test_the_finite_part_of_the_proof():
    for n in range(1, 8):
        for m in range(2 * n, 4 * n + 1):
            assert not list(undecided(n, m)), (n, m)
    assert list(undecided(8, 16)), "the enumeration can fail: 8:16 is not decided by it"


def test_the_counterexample_to_the_pruned_bound():
    block = np.array([[1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]])
    assert block[~ms.find_mask(block, 3, 4)].sum() == 0
    assert block[~ms.find_mask(block, 3, 4, method="greedy")].sum() == 1


def test_a_completed_mask_never_falls_below_the_average():
    """Without the diagonals in reserve this block ends below 2/3 of its score."""
    block = np.array([[1, 1, 2], [1, 0, 2], [2, 2, 3]])
    assert 3 * block[ms.find_mask(block, 2, 3, method="greedy")].sum() >= 2 * block.sum()


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 3), (2, 4), (3, 4), (2, 5), (3, 5), (3, 6)])
def test_kept_is_at_least_half_the_optimum(n, m):
    @given(hnp.arrays(np.int64, (m, m), elements=st.integers(0, 4)))
    def holds(block):
        for degree in ("exact", "at_most"):
            best = ms.find_mask(block, n, m, method="flow", degree=degree)
            guess = ms.find_mask(block, n, m, method="greedy", degree=degree)
            assert 2 * block[guess].sum() >= block[best].sum()

    holds()


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 3), (2, 4), (3, 4), (3, 6)])
def test_pruned_is_at_most_twice_the_optimum(n, m):
    @given(hnp.arrays(np.int64, (m, m), elements=st.integers(0, 4)))
    def holds(block):
        best = ms.find_mask(block, n, m, method="flow", degree="at_most")
        for backend in ("native", "cover"):
            guess = ms.find_mask(block, n, m, method="greedy", backend=backend, degree="at_most")
            assert block[~guess].sum() <= 2 * block[~best].sum()

    holds()
