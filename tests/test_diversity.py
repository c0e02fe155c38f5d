"""Counts of masks, against brute force, identities and published values."""

import math
from collections import Counter
from itertools import pairwise, product
from math import comb, factorial, log10

import numpy as np
import pytest
from scipy.stats import chi2

import masksolve as ms
from masksolve.diversity import (
    _count_loose,
    count_masks_hubara,
    count_matrices,
    count_maximal_masks,
    enumerate_masks,
    estimate_masks,
    mask_diversity,
    sample_mask,
)
from masksolve.errors import MaskError, OptionError, PatternError, ShapeError, TooLargeError

SMALL = [(n, m) for m in range(1, 5) for n in range(m + 1)]


def every_matrix(m):
    """All 0/1 matrices, (2**(m*m), m, m)."""
    numbers = np.arange(1 << (m * m))
    return (numbers[:, None] >> np.arange(m * m) & 1).reshape(-1, m, m)


def sieved(n, m):
    """Masks of a block, exact, at most and maximal, out of all 0/1 matrices."""
    matrices = every_matrix(m)
    rows, columns = matrices.sum(axis=2), matrices.sum(axis=1)
    exact = (rows == n).all(axis=1) & (columns == n).all(axis=1)
    at_most = (rows <= n).all(axis=1) & (columns <= n).all(axis=1)
    # No entry can be added: it is there already, or its row or column is full.
    closed = (matrices == 1) | (rows == n)[:, :, None] | (columns == n)[:, None, :]
    return matrices[exact], matrices[at_most], matrices[at_most & closed.all(axis=(1, 2))]


def row_by_row(row_sums, column_sums, degree="exact"):
    """Count matrices in plain Python: a row after the other, columns of equal need alike."""
    at_most = degree == "at_most"
    states = {tuple(sorted(column_sums)): 1}
    for row in row_sums:
        after = Counter()
        for columns, ways in states.items():
            alike = sorted(Counter(c for c in columns if c).items())
            for takes in product(*(range(min(count, row) + 1) for _, count in alike)):
                if sum(takes) == row or (at_most and sum(takes) < row):
                    left = [0] * columns.count(0)
                    for (need, count), t in zip(alike, takes, strict=True):
                        left += [need - 1] * t + [need] * (count - t)
                    orders = [comb(c, t) for (_, c), t in zip(alike, takes, strict=True)]
                    after[tuple(sorted(left))] += ways * math.prod(orders)
        states = after
    return sum(ways for columns, ways in states.items() if at_most or not any(columns))


def maximal_row_by_row(n, m):
    """Count maximal masks in plain Python: where a row with room has a zero, its column is to fill up."""
    states = {((0, False),) * m: 1}  # of every column, what it holds and whether it is to fill up
    for _ in range(m):
        after = Counter()
        for columns, ways in states.items():
            alike = sorted(Counter(columns).items())
            for takes in product(*(range(count * (held < n) + 1) for (held, _), count in alike)):
                if sum(takes) <= n:
                    room, left, orders = sum(takes) < n, [], 1
                    for ((held, fill), count), t in zip(alike, takes, strict=True):
                        left += [(held + 1, fill)] * t + [(held, fill or room)] * (count - t)
                        orders *= comb(count, t)
                    after[tuple(sorted(left))] += ways * orders
        states = after
    return sum(
        ways for columns, ways in states.items() if all(held == n for held, fill in columns if fill)
    )


@pytest.mark.parametrize(("n", "m"), SMALL)
def test_counts_are_those_of_brute_force(n, m):
    exact, at_most, maximal = sieved(n, m)
    assert ms.count_masks(n, m) == len(exact)
    assert ms.count_masks(n, m, degree="at_most") == len(at_most)
    assert count_maximal_masks(n, m) == len(maximal)


@pytest.mark.parametrize(
    ("n", "m", "count"),
    [
        (1, 2, 2),
        (2, 4, 90),
        (3, 6, 297200),
        (4, 8, 116963796250),
        (5, 10, 6736218287430460752),
        (2, 6, 67950),
        (3, 5, 2040),
        (2, 5, 2040),
    ],
)
def test_published_values(n, m, count):
    """OEIS A058527, A001499."""
    assert ms.count_masks(n, m) == count


def test_the_large_value_of_the_design():
    assert ms.count_masks(8, 16) == 34812290428176298285394893936773707951192224124239796250


def test_all_of_16():
    """1:16 is known by itself, 2:16 from a recurrence, the others lie where the estimate has them."""
    assert ms.count_masks(1, 16) == ms.count_masks(15, 16) == factorial(16)
    twos = [1, 0, 1]  # OEIS A001499
    for k in range(3, 17):
        twos.append(k * (k - 1) // 2 * (2 * twos[k - 1] + (k - 1) * twos[k - 2]))
    assert ms.count_masks(2, 16) == twos[16]
    for n in range(3, 8):  # the estimate is a little low, and by less the more entries there are
        ratio = ms.count_masks(n, 16) / 10 ** estimate_masks(n, 16).log10
        assert 1.029 < ratio < 1.037


@pytest.mark.parametrize("m", range(1, 6))
def test_other_kinds(m):
    for n in range(m + 1):
        assert ms.count_masks(n, m, kind="rows") == comb(m, n) ** m
        assert ms.count_masks(n, m, kind="unstructured") == comb(m * m, n * m)
        loose = ms.count_masks(n, m, kind="rows", degree="at_most")
        assert loose == sum(comb(m, k) for k in range(n + 1)) ** m
        loose = ms.count_masks(n, m, kind="unstructured", degree="at_most")
        assert loose == sum(comb(m * m, k) for k in range(n * m + 1))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 3), (4, 3), (3, 5)])
def test_general_margins_are_those_of_brute_force(shape):
    rows, columns = shape
    numbers = np.arange(1 << rows * columns)
    every = (numbers[:, None] >> np.arange(rows * columns) & 1).reshape(-1, rows, columns)
    base = np.array([columns + 1] * rows + [rows + 1] * columns)
    margins = np.concatenate([every.sum(axis=2), every.sum(axis=1)], axis=1)
    found = dict(
        zip(*np.unique(margins @ np.cumprod(base) // base[0], return_counts=True), strict=True)
    )
    rng = np.random.default_rng(0)
    seen = 0
    for margin in margins[rng.integers(0, len(margins), 60)]:
        sums = margin[:rows].tolist(), margin[rows:].tolist()
        seen += count_matrices(*sums) == found[margin @ np.cumprod(base) // base[0]]
    assert seen == 60


def test_larger_margins_are_those_of_plain_python():
    """Sparse and dense ones, tall and wide ones."""
    rng = np.random.default_rng(2)
    for shape in ((6, 6), (4, 9), (9, 4), (7, 8)):
        for density in (0.2, 0.5, 0.8):
            matrix = rng.random(shape) < density
            sums = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
            expected = row_by_row(*sums)
            assert expected > 0
            assert count_matrices(*sums) == count_matrices(*sums[::-1]) == expected


@pytest.mark.parametrize(("n", "m"), [(3, 8), (4, 8), (5, 11), (3, 16), (12, 16)])
def test_regular_counts_are_those_of_plain_python(n, m):
    sparse = min(n, m - n)
    assert ms.count_masks(n, m) == row_by_row([sparse] * m, [sparse] * m)
    assert count_matrices([n] * m, [n] * m) == ms.count_masks(n, m)


@pytest.mark.parametrize(("n", "m"), [(3, 9), (5, 10), (4, 7), (5, 7), (6, 8), (7, 8)])
def test_loose_counts_are_those_of_plain_python(n, m):
    assert ms.count_masks(n, m, degree="at_most") == row_by_row([n] * m, [n] * m, "at_most")


@pytest.mark.parametrize(("n", "m"), [(2, 7), (3, 6), (4, 6), (5, 6), (3, 7)])
def test_maximal_masks_are_those_of_plain_python(n, m):
    assert count_maximal_masks(n, m) == maximal_row_by_row(n, m)


@pytest.mark.parametrize("m", [*range(1, 9), 16, 40])
def test_loose_counts_of_few_entries_or_few_zeros(m):
    """1:m are the partial permutation matrices; (m-1):m have a zero in every row and column."""
    matchings = sum(comb(m, k) ** 2 * factorial(k) for k in range(m + 1))
    assert ms.count_masks(1, m, degree="at_most") == matchings
    # Inclusion and exclusion of the columns without a zero.
    zeros = sum((-1) ** k * comb(m, k) * (2 ** (m - k) - 1) ** m for k in range(m + 1))
    assert ms.count_masks(m - 1, m, degree="at_most") == zeros
    assert ms.count_masks(m, m, degree="at_most") == 2 ** (m * m)


def test_loose_counts_of_16():
    """When p rows are turned round, then p columns, what is left over has the same remainder by p.

    Only masks that all turns leave as they are count, as p is prime. Their p rows are alike, so
    empty for n < p.
    """
    counts = [ms.count_masks(n, 16, degree="at_most") for n in range(17)]
    for n in range(16):
        assert counts[n] < counts[n + 1]
        assert counts[n] >= ms.count_masks(n, 16)
        assert counts[n] % 2 == 1  # all 16 rows turned round: 16 is a power of 2
        for prime in (5, 7, 11, 13):
            if n < prime:
                rest = 16 % prime
                corner = ms.count_masks(min(n, rest), rest, degree="at_most")
                assert counts[n] % prime == corner % prime


def test_sides_of_16_do_not_matter():
    """A tall part goes through other states than a wide one."""
    for n, rows, columns in ((8, 10, 14), (7, 9, 16), (11, 13, 16), (12, 14, 15)):
        assert _count_loose(n, 16, rows, columns) == _count_loose(n, 16, columns, rows) > 10**20


@pytest.mark.parametrize(("n", "m"), [(2, 23), (3, 17), (4, 13), (6, 11), (8, 11)])
def test_counts_of_prime_size(n, m):
    """Rows turned round: no mask stays as it is but the empty one, which is not maximal."""
    assert ms.count_masks(n, m) % m == count_maximal_masks(n, m) % m == 0
    assert ms.count_masks(n, m, degree="at_most") % m == 1


def test_all_sums_that_fit_are_counted():
    assert count_matrices([8] * 16, [8] * 16) == ms.count_masks(8, 16)
    assert count_matrices([15] * 16, [15] * 16) == factorial(16)
    assert count_matrices([1] * 300, [1] * 300) == factorial(300)


def test_margins_that_nothing_has():
    assert count_matrices([1, 1], [1]) == 0
    assert count_matrices([3], [1, 1]) == 0
    assert count_matrices([2, 2, 0], [3, 1]) == 0
    assert count_matrices([1, 1], [2, 0]) == 1
    assert count_matrices([], []) == count_matrices([0, 0], [0]) == 1


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 3), (2, 4), (3, 4)])
def test_at_most_adds_up_over_margins(n, m):
    total = 0
    for row_sums in np.ndindex(*(n + 1,) * m):
        for column_sums in np.ndindex(*(n + 1,) * m):
            if sum(row_sums) == sum(column_sums):
                total += count_matrices(row_sums, column_sums)
    assert ms.count_masks(n, m, degree="at_most") == total


def test_two_of_four_at_most():
    assert ms.count_masks(2, 4, degree="at_most") == 7343
    assert count_maximal_masks(2, 4) == 186


@pytest.mark.parametrize("m", range(1, 8))
def test_identities(m):
    assert ms.count_masks(1, m) == factorial(m) == ms.count_masks(m - 1, m)
    assert ms.count_masks(0, m) == ms.count_masks(m, m) == 1
    assert ms.count_masks(0, m, degree="at_most") == count_maximal_masks(0, m) == 1
    # A maximal matching of the complete graph is perfect.
    assert count_maximal_masks(1, m) == factorial(m)
    for n in range(m + 1):
        assert count_maximal_masks(n, m) >= ms.count_masks(n, m)
        assert count_maximal_masks(n, m) <= ms.count_masks(n, m, degree="at_most")


@pytest.mark.parametrize("m", range(2, 17))
def test_the_estimate_is_close(m):
    """Its error against all exact counts, as its documentation states it."""
    stated = {(1, 2): -0.19, (2, 4): -0.12, (4, 8): -0.06, (8, 16): -0.03}
    for n in range(1, m):
        error = estimate_masks(n, m).value / ms.count_masks(n, m) - 1
        assert -0.195 < error < 0
        if (n, m) in stated:
            assert error == pytest.approx(stated[n, m], abs=0.005)


def test_the_estimate_gets_closer_and_goes_on_where_floats_end():
    errors = [
        1 - estimate_masks(m // 2, m).value / ms.count_masks(m // 2, m)
        for m in (2, 4, 6, 8, 12, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert estimate_masks(0, 8) == estimate_masks(8, 8) == (0.0, 1.0)
    large = estimate_masks(512, 1024)
    assert large.log10 > 300_000
    assert large.value == math.inf


@pytest.mark.parametrize(
    ("n", "m"), [(16, 32), (8, 40), (500, 1000), (12, 24), (3, 310), (2, 1024), (4, 1024)]
)
def test_what_is_too_large_is_refused_at_once(n, m):
    for count in (ms.count_masks, lambda n, m: sample_mask(n, m, 0)):
        with pytest.raises(TooLargeError, match=rf"{n}:{m}.*(states|keys).*estimate_masks"):
            count(n, m)
    with pytest.raises(TooLargeError, match="estimate_masks"):
        ms.count_masks(n, m, degree="at_most")
    with pytest.raises(TooLargeError, match="estimate_masks"):
        count_matrices([n] * m, [n] * m)


@pytest.mark.parametrize(("n", "m"), [(8, 16), (2, 600), (3, 1024), (500, 1000), (15, 16)])
def test_maximal_masks_that_are_too_many_are_refused(n, m):
    with pytest.raises(TooLargeError, match=rf"maximal {n}:{m} masks would .*(states|keys)"):
        count_maximal_masks(n, m)
    assert count_maximal_masks(1, 600) == factorial(600)


def test_what_does_not_fit_says_so():
    with pytest.raises(TooLargeError, match="these sums would need longer keys"):
        count_matrices([2500, 2500], [1] * 5000)


def test_large_blocks_with_few_entries_are_not_too_large():
    assert ms.count_masks(1, 500) == factorial(500) == ms.count_masks(499, 500)
    assert ms.count_masks(2, 100) > 10**300


def valid(part, n, m, degree):
    try:
        ms.check_mask(part, n, m, degree=degree)
    except MaskError:
        return False
    return True


@pytest.mark.parametrize("degree", ["exact", "at_most"])
@pytest.mark.parametrize(
    ("n", "m"), [(1, 2), (1, 3), (2, 3), (2, 4), (1, 4), (3, 4), (2, 5), (3, 5)]
)
def test_ragged_blocks_count_as_check_mask_has_them(n, m, degree):
    for shape in ((1, 2), (2, 2), (3, 2), (3, 3), (2, 4)):
        rows, columns = shape
        if max(shape) > m:
            continue
        numbers = np.arange(1 << rows * columns)
        parts = (numbers[:, None] >> np.arange(rows * columns) & 1).reshape(-1, rows, columns)
        expected = sum(valid(part.astype(bool), n, m, degree) for part in parts)
        assert mask_diversity(shape, n, m, degree=degree).count == expected


def test_whole_tensors():
    whole = mask_diversity((3, 6, 8), 2, 4)  # three matrices of two whole and two half blocks
    half = mask_diversity((2, 4), 2, 4).count
    assert whole.count == (90**2 * half**2) ** 3
    assert whole.log10 == pytest.approx(log10(whole.count))
    assert mask_diversity((4, 3, 8), 2, 4, axes=(0, 2)).count == 90**6
    assert mask_diversity((0, 8), 2, 4).count == mask_diversity((4, 0, 4), 2, 4).count == 1
    assert mask_diversity((4, 6), 1, 4, kind="rows").count == 4**4 * 3**4
    assert mask_diversity((4, 6), 1, 4, kind="unstructured").count == comb(24, 6)
    large = mask_diversity((8192, 8192), 8, 16)
    assert large.log10 == pytest.approx(512**2 * log10(ms.count_masks(8, 16)))
    with pytest.raises(ms.errors.RaggedShapeError):
        mask_diversity((4, 6), 2, 4, remainder="error")


def test_free_choices_of_large_tensors_have_a_logarithm():
    assert mask_diversity((40, 40), 1, 2, kind="unstructured").log10 == pytest.approx(
        log10(comb(1600, 800))
    )
    large = mask_diversity((4096, 4096), 2, 4, kind="unstructured")
    assert large.log10 == pytest.approx(4096**2 * log10(2), rel=1e-5)
    for huge in (large, mask_diversity((40000, 40000), 2, 4)):
        with pytest.raises(TooLargeError, match="digits"):
            _ = huge.count
    with pytest.raises(TooLargeError, match="at most"):
        mask_diversity((4096, 4096), 2, 4, kind="unstructured", degree="at_most")
    with pytest.raises(TooLargeError, match="at most"):
        ms.count_masks(64, 128, kind="unstructured", degree="at_most")


def test_small_problems_of_odd_shapes_are_counted():
    assert count_matrices([20, 20], [1] * 40) == comb(40, 20)
    assert count_matrices([1] + [0] * 3000, [0] * 3000 + [1]) == 1
    assert mask_diversity((10, 10), 300, 600).count == 2**100
    assert mask_diversity((150, 300), 300, 600).count == 2**45000
    assert (
        mask_diversity((7, 9), 11, 16).count
        == mask_diversity((7, 9), 5, 16, degree="at_most").count
    )
    part, turned = (mask_diversity(shape, 8, 16) for shape in ((9, 13), (13, 9)))
    assert part.count == turned.count > 10**20
    assert mask_diversity((15, 15), 8, 16).count == ms.count_masks(8, 16)  # the rest follows


def test_the_published_formula_over_counts():
    assert [count_masks_hubara(n, 4) for n in range(5)] == [1, 24, 144, 288, 288]
    for m in range(2, 9):
        assert count_masks_hubara(1, m) == ms.count_masks(1, m)
        for n in range(2, m):
            assert count_masks_hubara(n, m) > ms.count_masks(n, m)
    # The order of the paper, and that of the exact counts.
    plain = ms.count_masks(2, 4, kind="rows") ** 4
    assert count_masks_hubara(4, 8) > plain > ms.count_masks(4, 8)


@pytest.mark.parametrize(
    ("n", "m", "draws"),
    [(1, 3, 3000), (2, 4, 9000), (3, 4, 3000), (2, 3, 3000), (2, 5, 20000), (3, 5, 20000)],
)
def test_sampled_masks_are_uniform(n, m, draws):
    rng = np.random.default_rng(5)
    seen = {}
    for _ in range(draws):
        mask = sample_mask(n, m, rng)
        key = mask.tobytes()
        seen[key] = seen.get(key, 0) + 1
        assert (mask.sum(axis=0) == n).all()
        assert (mask.sum(axis=1) == n).all()
    masks = ms.count_masks(n, m)
    assert len(seen) == masks
    expected = draws / masks
    statistic = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi2.sf(statistic, masks - 1) > 1e-4


def test_large_sampled_masks_are_balanced():
    """Each entry of 8:16 is kept in half of the masks."""
    rng = np.random.default_rng(6)
    masks = np.array([sample_mask(8, 16, rng) for _ in range(200)])
    assert (masks.sum(axis=1) == 8).all()
    assert (masks.sum(axis=2) == 8).all()
    assert abs(masks.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(200)
    assert (sample_mask(8, 16, 3) == sample_mask(8, 16, 3)).all()
    assert not sample_mask(0, 4).any()
    assert sample_mask(4, 4).all()


def test_bad_input():
    with pytest.raises(PatternError, match="n must not exceed m"):
        ms.count_masks(5, 4)
    with pytest.raises(OptionError, match="degree"):
        ms.count_masks(2, 4, degree="any")
    with pytest.raises(OptionError, match="kind must be one of 'transposable', 'rows'"):
        ms.count_masks(2, 4, kind="columns")
    with pytest.raises(OptionError, match="kind must be one of"):
        ms.count_masks(2, 4, kind=np.array(["rows", "rows"]))
    for bad in ("a", -1, 1.5, True, np.array([1, 2])):
        with pytest.raises(OptionError, match="rng must be a Generator, an integer"):
            sample_mask(2, 4, bad)
    assert sample_mask(2, 4, 2**100).sum() == sample_mask(2, 4, np.int64(3)).sum() == 8
    shapes = (-4, 4), (4, 4, -1), (4.0, 4), (True, 4), ("4", "4"), None, 5, (4,), (10**200, 4)
    for bad in (*shapes, np.array(4), np.ones((2, 2), int)):
        with pytest.raises(ShapeError, match="shape must"):
            mask_diversity(bad, 2, 4)
    for bad in ([1.5], [-1], ["a"], [True], None, 3, np.array(3), np.ones((2, 2), int)):
        with pytest.raises(OptionError, match="row_sums must be integers of 0 or more"):
            count_matrices(bad, [1])


# --- all masks -----------------------------------------------------------------------------


def as_texts(masks):
    """Masks as words of 0 and 1, read row by row."""
    return ["".join(map(str, mask.astype(int).ravel())) for mask in masks]


@pytest.mark.parametrize(("n", "m"), SMALL)
def test_all_masks_are_those_of_brute_force_in_lexicographic_order(n, m):
    exact, at_most, maximal = (sorted(as_texts(masks)) for masks in sieved(n, m))
    assert as_texts(enumerate_masks(n, m)) == exact
    assert as_texts(enumerate_masks(n, m, maximal=True)) == exact
    assert as_texts(enumerate_masks(n, m, degree="at_most")) == at_most
    assert as_texts(enumerate_masks(n, m, degree="at_most", maximal=True)) == maximal


@pytest.mark.parametrize(("n", "m"), [(1, 5), (2, 5), (3, 5), (4, 5), (2, 6), (5, 6), (1, 8)])
def test_there_are_as_many_masks_as_are_counted(n, m):
    masks = enumerate_masks(n, m)
    assert masks.dtype == bool
    assert masks.shape == (ms.count_masks(n, m), m, m)
    assert all((masks.sum(axis=axis) == n).all() for axis in (1, 2))
    loose = enumerate_masks(n, m, degree="at_most", maximal=True)
    assert len(loose) == count_maximal_masks(n, m)
    rows, columns = loose.sum(axis=2), loose.sum(axis=1)
    assert max(rows.max(), columns.max()) <= n
    assert (loose | (rows == n)[:, :, None] | (columns == n)[:, None, :]).all()
    for found in (masks, loose):  # each once, in order
        texts = as_texts(found)
        assert all(one < other for one, other in pairwise(texts))


def test_all_or_nothing_is_one_mask_at_any_size():
    for n, m in ((0, 300), (300, 300)):
        for options in ({}, {"degree": "at_most", "maximal": True}):
            masks = enumerate_masks(n, m, **options)
            assert masks.shape == (1, m, m)
            assert (masks == (n == m)).all()


@pytest.mark.parametrize(
    ("n", "m", "options", "amount"),
    [
        (4, 8, {}, "116963796250 4:8 masks"),
        (4, 9, {"degree": "at_most"}, "about 1e21 4:9 masks"),
        (3, 6, {"degree": "at_most", "maximal": True}, "1866440 maximal 3:6 masks"),
        (8, 16, {}, "more than 1e55 8:16 masks"),
        (1, 1024, {"degree": "at_most"}, "more than 1e2639 1:1024 masks"),
    ],
)
def test_too_many_masks_to_list_says_how_many(n, m, options, amount):
    with pytest.raises(TooLargeError, match=rf"there are {amount} .* more than the 1000000"):
        enumerate_masks(n, m, **options)


@pytest.mark.parametrize("m", [10, 11])
def test_beyond_nine_there_are_too_many_to_list_indeed(m):
    assert min(ms.count_masks(n, m) for n in range(1, m)) == factorial(m) > 1_000_000
    for n in range(1, m):  # what the message says
        assert 10 ** math.floor(estimate_masks(n, m).log10) <= ms.count_masks(n, m)


def test_all_masks_of_a_pattern_that_is_none():
    with pytest.raises(PatternError, match="n must not exceed m"):
        enumerate_masks(5, 4)
    with pytest.raises(OptionError, match="degree must be"):
        enumerate_masks(2, 4, degree="loose")


def test_binary_logarithms():
    assert mask_diversity((4, 8), 2, 4).log2 == pytest.approx(2 * math.log2(90), rel=1e-14)
    assert estimate_masks(2, 4).log2 == pytest.approx(math.log2(estimate_masks(2, 4).value))
