"""check_mask, certify_mask, check_certificate: what they say, and that it is true."""

import dataclasses
import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import masksolve as ms
from masksolve import errors
from masksolve.certify import relative_gap
from masksolve.diversity import enumerate_masks
from masksolve.errors import CertificateError, DtypeError, MaskError, NonFiniteError, ShapeError
from masksolve.scores import to_fixed_point
from masksolve.testing import brute_force, strategies

FEW = settings(derandomize=True, max_examples=60, deadline=None)
DEGREES = ["exact", "at_most"]


def valid(shape, n=2, m=4):
    """Keep n of m, exactly, everywhere."""
    rows, columns = (np.arange(size) % m for size in shape)
    return (rows[:, None] + columns) % m < n


# --- check_mask ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(5))
def test_valid_masks_pass(n):
    for degree in DEGREES:
        ms.check_mask(valid((8, 12), n), n, 4, degree=degree)
        ms.check_mask(np.zeros((0, 12), bool), n, 4, degree=degree)
    ms.check_mask(np.zeros((8, 8), bool), n, 4, degree="at_most")


def change(mask, *positions):
    for position in positions:
        mask[position] = ~mask[position]
    return mask


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (
            change(valid((8, 12)), (6, 9)),
            {},
            "row 2 of block (1, 2) (array row 6, columns 8 to 11) keeps 3 of 4 entries, "
            "but 2:4 keeps exactly 2",
        ),
        (
            # Rows stay as they are; columns 4 and 5 differ from 2.
            change(valid((8, 12)), (5, 4), (5, 5)),
            {},
            "column 0 of block (1, 1) (array column 4, rows 4 to 7) keeps 1 of 4 entries, "
            "but 2:4 keeps exactly 2",
        ),
        (
            change(valid((8, 12)), (0, 2)),
            {"degree": "at_most"},
            "row 0 of block (0, 0) (array row 0, columns 0 to 3) keeps 3 of 4 entries, "
            "but 2:4 keeps at most 2",
        ),
        (
            change(np.stack([valid((4, 8))] * 6).reshape(2, 3, 4, 8), (1, 2, 3, 7)),
            {},
            "row 3 of block (1, 2, 0, 1) (array row 3 of matrix (1, 2), columns 4 to 7) keeps 3 "
            "of 4 entries, but 2:4 keeps exactly 2",
        ),
        (
            change(np.stack([valid((4, 8))] * 3, axis=-1), (2, 5, 1)),
            {"axes": (0, 1)},
            "row 2 of block (1, 0, 1) (array row 2 of matrix (1,), columns 4 to 7) keeps",
        ),
        (
            # Transposed: the lines of axis 1 are the rows.
            change(valid((4, 8)), (2, 5)),
            {"axes": (1, 0)},
            "row 1 of block (1, 0) (array row 5, columns 0 to 3) keeps",
        ),
        (
            # A ragged edge: full lines must keep exactly n ...
            change(valid((6, 4)), (5, 0)),
            {},
            "row 1 of block (1, 0) (array row 5, columns 0 to 3) keeps",
        ),
        (
            # ... and lines cut short no more than n.
            np.ones((3, 3), bool),
            {},
            "row 0 of block (0, 0) (array row 0, columns 0 to 2) keeps 3 of 3 entries, "
            "but 2:4 keeps exactly 2",
        ),
        (
            np.array([[1, 0], [1, 0], [1, 0]], bool),
            {},
            "column 0 of block (0, 0) (array column 0, rows 0 to 2) keeps 3 of 3 entries",
        ),
    ],
)
def test_the_first_violation_is_named(mask, options, message):
    with pytest.raises(MaskError, match="^" + re.escape(message)):
        ms.check_mask(mask, 2, 4, **options)


def test_lines_that_a_ragged_edge_cuts_may_keep_fewer():
    ms.check_mask(np.zeros((2, 2), bool), 2, 4)
    ms.check_mask(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], bool), 2, 4)
    ms.check_mask(valid((6, 4)), 2, 4)
    with pytest.raises(MaskError):
        ms.check_mask(np.zeros((3, 4), bool), 2, 4)  # full rows, cut columns
    with pytest.raises(MaskError):
        ms.check_mask(np.zeros((4, 3), bool), 2, 4)


def test_a_violation_is_found_in_the_last_band_too():
    mask = valid((1024, 1024))
    mask[1023, 1020:] = True
    with pytest.raises(MaskError, match=r"row 3 of block \(255, 255\) \(array row 1023"):
        ms.check_mask(mask, 2, 4)


@FEW
@given(strategies.patterns(4), strategies.degrees(), st.data())
def test_check_mask_is_its_definition(pattern, degree, data):
    n, m = pattern.n, pattern.m
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    mask = data.draw(strategies.matrices(shape, families=["ties"], dtypes=["bool"]))
    if data.draw(st.booleans()):
        mask = ms.find_mask(mask, n, m, degree=degree)

    def block_is_right(block):
        if degree == "at_most":
            return max(*block.sum(axis=0), *block.sum(axis=1)) <= n
        rows, columns = block.shape
        return any((whole[:rows, :columns] == block).all() for whole in enumerate_masks(n, m))

    right = all(
        block_is_right(mask[i : i + m, j : j + m])
        for i in range(0, shape[0], m)
        for j in range(0, shape[1], m)
    )
    if right:
        ms.check_mask(mask, n, m, degree=degree)
    else:
        with pytest.raises(MaskError):
            ms.check_mask(mask, n, m, degree=degree)


@pytest.mark.parametrize("function", [ms.check_mask, lambda *a: ms.certify_mask(np.eye(4), *a)])
def test_a_mask_is_boolean(function):
    with pytest.raises(DtypeError, match=r"got dtype float64; .* mask.astype\(bool\)"):
        function(np.eye(4), 1, 4)


# --- certify_mask -------------------------------------------------------------------------


@st.composite
def problems(draw):
    """A matrix of any dtype, ragged perhaps, and one of its masks, optimal or not."""
    pattern, degree = draw(strategies.patterns(4)), draw(strategies.degrees())
    W = draw(strategies.matrices())
    absolute = draw(st.booleans())
    options = {"degree": degree, "absolute": absolute}
    source = W if draw(st.booleans()) else draw(strategies.matrices(W.shape))
    mask = ms.find_mask(source, pattern.n, pattern.m, method="flow", **options)
    return W, mask, pattern, options


def optimum(W, pattern, degree, absolute):
    """Kept and best scores of every block, by brute force on the padded matrix."""
    m = pattern.m
    padding = [(0, -size % m) for size in W.shape]
    grid = np.pad(W, padding).reshape(-(-W.shape[0] // m), m, -1, m) if W.size else None
    if grid is None:
        return np.empty(0, np.int64)
    q, _ = to_fixed_point(grid.swapaxes(1, 2).reshape(-1, m, m), absolute=absolute)
    return brute_force(q, pattern.n, degree)[0]


@FEW
@given(problems())
def test_the_stated_bound_is_the_true_optimum(problem):
    W, mask, pattern, options = problem
    certificate = ms.certify_mask(W, mask, pattern.n, pattern.m, **options)
    best = optimum(W, pattern, **options)
    assert certificate.bound.ravel().tolist() == best.tolist()
    assert certificate.optimal == (certificate.objective.ravel() == best).all()
    assert (certificate.cycle is None) == certificate.optimal
    ms.check_certificate(certificate, W, mask)


@st.composite
def poor_masks(draw):
    """As `problems`, but the mask is hardly ever optimal."""
    n, m = draw(st.sampled_from([(1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4), (3, 6)]))
    shape = draw(st.tuples(st.integers(m, 2 * m), st.integers(m, 2 * m)))
    W = draw(strategies.matrices(shape, families=["gaussian", "integers"], dtypes=["float32"]))
    options = {"degree": draw(strategies.degrees()), "absolute": draw(st.booleans())}
    opposite = -np.abs(W) if options["absolute"] else -W
    mask = ms.find_mask(opposite, n, m, degree="exact", absolute=False, method="flow")
    return W, mask, n, m, options


@FEW
@given(poor_masks())
def test_applying_the_stated_cycle_gains_what_it_says(problem):
    W, mask, n, m, options = problem
    before = ms.certify_mask(W, mask, n, m, **options)
    assume(not before.optimal)
    cycle = before.cycle
    row, column = cycle.block
    better = mask.copy()
    block = better[row * m : row * m + m, column * m : column * m + m]
    for i, j in cycle.remove:
        assert block[i, j]
        block[i, j] = False
    for i, j in cycle.add:
        assert not block[i, j]
        block[i, j] = True
    after = ms.certify_mask(W, better, n, m, **options)
    difference = after.objective - before.objective
    assert np.flatnonzero(difference).tolist() == [
        np.ravel_multi_index(cycle.block, difference.shape)
    ]
    assert difference[cycle.block] == np.ldexp(cycle.gain, before.shift[cycle.block]) > 0


def test_a_mask_that_is_not_optimal_is_told_how_to_improve():
    W = np.array([[3.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]])
    mask = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], bool)
    certificate = ms.certify_mask(W, mask, 1, 2)
    assert certificate.optimal_blocks.tolist() == [[False, True]]
    assert str(certificate) == (
        "1:2 mask (exact), proven optimal in 1 of 2 blocks; in block (0, 0), keeping "
        "[(0, 0), (1, 1)] instead of [(0, 1), (1, 0)] gains 3"
    )


def test_at_most_says_what_to_drop_and_what_to_add():
    W, mask = np.array([[-3.0, 0.0], [0.0, 5.0]]), np.array([[True, False], [False, False]])
    certificate = ms.certify_mask(W, mask, 1, 2, degree="at_most", absolute=False)
    assert ms.certify_mask(W, ~mask & (W > 0), 1, 2, degree="at_most", absolute=False).optimal
    assert certificate.cycle.gain in (3, 5, 8)
    assert str(ms.certify_mask(W, W > 0, 1, 2, degree="at_most")) == (
        "1:2 mask (at_most), proven optimal in 0 of 1 blocks; in block (0, 0), keeping [(0, 0)] "
        "instead of [] gains 3"
    )


def test_batches_axes_and_bands():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(6, 5, 300, 9)).astype(ml_dtypes.bfloat16)
    mask = ms.find_mask(W, 1, 3, axes=(2, 0))
    certificate = ms.certify_mask(W, mask, 1, 3, axes=(2, 0))
    assert certificate.optimal
    assert certificate.u.shape == (5, 9, 100, 2, 3)
    ms.check_certificate(certificate, W, mask)
    # One exchange, far into the array.
    block = mask[3:, 4, 297:, 8]
    block[...] = block[::-1]
    certificate = ms.certify_mask(W, mask, 1, 3, axes=(2, 0))
    assert np.argwhere(~certificate.optimal_blocks).tolist() == [[4, 8, 99, 1]]
    assert certificate.cycle.block == (4, 8, 99, 1)


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (5, 5), (6, 7), (1, 1), (3, 9), (10, 9)])
@pytest.mark.parametrize("n", range(5))
def test_ragged_edges_certify(shape, n):
    """What the padding must keep is filled in whenever that can be done."""
    for seed in range(5):
        W = np.random.default_rng(seed).integers(0, 4, shape)
        mask = ms.find_mask(W, n, 4)
        certificate = ms.certify_mask(W, mask, n, 4)
        assert certificate.optimal
        ms.check_certificate(certificate, W, mask)


def test_a_ragged_corner_that_no_padding_can_complete():
    mask = np.zeros((3, 3), bool)  # the one padding row cannot hold all that is missing
    with pytest.raises(MaskError, match=r"block \(0, 0\) at the ragged edge keeps too few"):
        ms.check_mask(mask, 2, 4)
    with pytest.raises(MaskError, match=r"block \(0, 0\) at the ragged edge keeps too few"):
        ms.certify_mask(np.ones((3, 3)), mask, 2, 4)
    assert not ms.certify_mask(np.ones((3, 3)), mask, 2, 4, degree="at_most").optimal


def test_what_cannot_be_certified():
    with pytest.raises(ShapeError, match=r"\(4, 4\) and \(4, 8\)"):
        ms.certify_mask(np.eye(4), np.zeros((4, 8), bool), 1, 4)
    with pytest.raises(MaskError, match="row 0"):
        ms.certify_mask(np.eye(4), np.zeros((4, 4), bool), 1, 4)
    W = np.eye(4)
    W[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"\(2, 1\)"):
        ms.certify_mask(W, np.eye(4, dtype=bool), 1, 4)


# --- check_certificate --------------------------------------------------------------------


@pytest.fixture(params=DEGREES)
def proof(request):
    W = np.random.default_rng(3).normal(size=(8, 10))
    solution = ms.solve(W, 2, 4, degree=request.param)
    ms.check_certificate(solution.certificate, W, solution.mask)
    return W, solution.mask, solution.certificate


def plus(array, index, amount):
    changed = array.copy()
    changed[index] += amount
    return changed


@pytest.mark.parametrize("field", ["u", "v"])
@pytest.mark.parametrize("amount", [1, -1, 2**40, 2**62])
def test_changed_potentials_are_rejected(proof, field, amount):
    W, mask, certificate = proof
    for index in np.ndindex(certificate.u.shape):
        forged = dataclasses.replace(
            certificate, **{field: plus(getattr(certificate, field), index, amount)}
        )
        # A price may change if it still proves the very same bound; nothing else may.
        try:
            ms.check_certificate(forged, W, mask)
        except CertificateError:
            continue
        assert abs(amount) == 1


@pytest.mark.parametrize("field", ["shift", "objective", "bound"])
@pytest.mark.parametrize("amount", [1, -1])
def test_changed_statements_are_rejected(proof, field, amount):
    W, mask, certificate = proof
    for index in np.ndindex(certificate.shift.shape):
        forged = dataclasses.replace(
            certificate, **{field: plus(getattr(certificate, field), index, amount)}
        )
        with pytest.raises(CertificateError, match=f"{field} of block {re.escape(str(index))} is"):
            ms.check_certificate(forged, W, mask)


def test_other_scores_or_another_mask_are_rejected(proof):
    W, mask, certificate = proof
    with pytest.raises(CertificateError, match="does not fit"):
        ms.check_certificate(certificate, plus(W, tuple(np.argwhere(mask)[-1]), 0.01), mask)
    other = mask.copy()
    other[:4, :4] = other[:4, [1, 2, 3, 0]]
    with pytest.raises(CertificateError, match=r"objective of block \(0, 0\)"):
        ms.check_certificate(certificate, W, other)
    with pytest.raises(MaskError):
        ms.check_certificate(certificate, W, ~mask | True)
    with pytest.raises(CertificateError, match=r"the mask have \(4, 10\)"):
        ms.check_certificate(certificate, W, mask[:4])
    with pytest.raises(CertificateError, match=r"the scores have \(8, 8\)"):
        ms.check_certificate(certificate, W[:, :8], mask)
    with pytest.raises(CertificateError, match="does not fit"):
        ms.check_certificate(dataclasses.replace(certificate, absolute=False), W, mask)


def test_potentials_below_zero_prove_nothing_for_at_most():
    W, mask = np.diag([2.0, 3.0]), np.eye(2, dtype=bool)
    certificate = ms.certify_mask(W, mask, 1, 2)
    moved = dataclasses.replace(certificate, u=certificate.u - 2**50, v=certificate.v + 2**50)
    ms.check_certificate(moved, W, mask)
    with pytest.raises(CertificateError, match="must not be negative for at_most"):
        ms.check_certificate(dataclasses.replace(moved, degree="at_most"), W, mask)


def test_a_bound_forged_by_wrap_around_is_rejected():
    """Two rows of price -2**63 used to vanish from the bound, modulo 2**64."""
    W = np.zeros((4, 4), dtype=np.int64)
    W[2:] = 1
    W[0, 0] = 100
    mask = valid((4, 4))[[2, 1, 0, 3]]
    certificate = ms.certify_mask(W, mask, 2, 4)
    assert not certificate.optimal
    u = np.array([[[-(2**63), -(2**63), 1, 1]]])
    forged = dataclasses.replace(
        certificate, u=u, v=np.zeros_like(u), bound=certificate.objective, cycle=None
    )
    assert forged.optimal, "or the test shows nothing"
    with pytest.raises(CertificateError):
        ms.check_certificate(forged, W, mask)


def test_a_bound_forged_by_rounding_is_rejected():
    """In doubles 2**60 swallows every score, so any mask would look optimal."""
    W = np.full((4, 4), 50)  # less than half of what 2**60 resolves
    W[0, :2] = 0
    mask = valid((4, 4))
    certificate = ms.certify_mask(W, mask, 2, 4)
    u = np.full((1, 1, 4), 2.0**60)
    objective = certificate.objective
    assert objective.item() == 300
    forged = dataclasses.replace(certificate, u=u, v=-u, bound=np.zeros_like(objective))
    with pytest.raises(CertificateError):
        ms.check_certificate(forged, W, mask)


@pytest.mark.parametrize("field", ["u", "v", "shift", "objective", "bound"])
def test_arrays_of_another_shape_or_dtype_are_rejected(proof, field):
    W, mask, certificate = proof
    values = getattr(certificate, field)
    for wrong in (values[..., :-1], values.astype(np.float64), values.astype(np.uint64), None):
        with pytest.raises(CertificateError, match=field):
            ms.check_certificate(dataclasses.replace(certificate, **{field: wrong}), W, mask)


# --- the gap ------------------------------------------------------------------------------


def test_gap_is_exact():
    def of(objective, bound, shift=(0,)):
        return relative_gap(*(np.array(a, dtype=np.int64) for a in (objective, bound, shift)))

    assert of([3], [3]) == 0
    assert of([], [], []) == 0
    assert of([3], [4]) == 0.25
    assert of([-4], [-3]) == 1 / 3
    assert of([-1], [0]) == np.inf
    # One unit in the last place of 2**40, beside a block 2**900 times as large.
    assert 0 < of([2**40, 2**40 - 1], [2**40, 2**40], [0, 900]) < 1e-250
    assert of([2**40, 2**40 - 1], [2**40, 2**40], [-900, 1000]) > 0


def test_a_certificate_of_subclasses_is_rejected():
    """A masked objective equals whatever it is compared with."""
    W, mask = np.full((2, 2), 1.0), np.eye(2, dtype=bool)
    certificate = ms.certify_mask(W, mask, 1, 2)
    hidden = np.ma.masked_array(certificate.objective, mask=True)
    for field in ("objective", "u"):
        forged = dataclasses.replace(certificate, **{field: hidden})
        with pytest.raises(CertificateError, match=field):
            ms.check_certificate(forged, W, mask)


# --- what a mask keeps ----------------------------------------------------------------------


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "float32", ">f8", "longdouble", ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("shape", [(7,), (30, 45), (600, 700)])  # more than a piece of them
def test_kept_share_is_its_definition(shape, dtype, absolute):
    """Integers of a few bits: every sum is exact, in any order, and so is the quotient of two."""
    rng = np.random.default_rng(len(shape))
    scores = rng.integers(-7, 20, size=shape).astype(dtype)
    mask = rng.random(shape) < 0.4
    before = scores.tobytes(), mask.tobytes()
    numbers = scores.astype(np.int64)
    numbers = np.abs(numbers) if absolute else numbers
    found = ms.kept_share(scores, mask, absolute=absolute)
    assert found == numbers[mask].sum() / numbers.sum()
    assert (scores.tobytes(), mask.tobytes()) == before
    flipped = ms.kept_share(scores[::-1], mask[::-1], absolute=absolute)
    assert flipped == found


def test_kept_share_is_that_of_a_solution():
    for scale in (1.0, 1e-300, 1e300):
        W = scale * np.random.default_rng(1).normal(size=(50, 70))
        solution = ms.solve(W, 2, 4)
        assert ms.kept_share(W, solution.mask) == pytest.approx(solution.kept_share, rel=1e-10)


def test_kept_share_of_scores_that_differ_widely():
    """What is scaled together has its own shift, and a sum of shifted terms must heed it."""
    scores = np.repeat([0.5, 2.0**19], 2048)
    assert ms.kept_share(scores, scores < 1) == 1 / (1 + 2**20)


def test_kept_share_of_nothing():
    assert np.isnan(ms.kept_share(np.zeros((2, 2)), np.ones((2, 2), dtype=bool)))
    assert np.isnan(ms.kept_share(np.ones((0, 2)), np.ones((0, 2), dtype=bool)))
    assert ms.kept_share(np.ones((2, 2)), np.zeros((2, 2), dtype=bool)) == 0


def test_kept_share_of_bad_input():
    mask = np.ones((2, 2), dtype=bool)
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 2\)"):
        ms.kept_share(np.ones((2, 3)), mask)
    with pytest.raises(DtypeError, match="a mask must be a boolean array"):
        ms.kept_share(np.ones((2, 2)), mask.astype(int))
    with pytest.raises(DtypeError, match="complex"):
        ms.kept_share(np.ones((2, 2)) * 1j, mask)
    with pytest.raises(NonFiniteError, match=r"at \(1, 0\)"):
        ms.kept_share(np.array([[0, 1], [np.nan, 2]]), mask)


def test_kept_entries_are_counted_block_by_block():
    mask = np.random.default_rng(0).random((3, 10, 7)) < 0.5
    found = ms.kept_per_block(mask, 4)
    assert found.shape == (3, 3, 2)
    for k, i, j in np.ndindex(found.shape):
        assert found[k, i, j] == mask[k, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].sum()
    turned = ms.kept_per_block(mask.transpose(2, 0, 1), 4, axes=(2, 0))
    np.testing.assert_array_equal(turned, found)
    assert ms.kept_per_block(mask[:0], 4).shape == (0, 3, 2)
    large = np.random.default_rng(0).random((1024, 1024)) < 0.5  # more than a band
    assert ms.kept_per_block(large, 512).sum() == large.sum()


def test_kept_entries_of_bad_input():
    with pytest.raises(DtypeError, match="a mask must be a boolean array"):
        ms.kept_per_block(np.eye(4), 2)
    with pytest.raises(ShapeError, match="remainder of 1"):
        ms.kept_per_block(np.eye(3, dtype=bool), 2, remainder="error")
    with pytest.raises(errors.PatternError, match="m must be at least 1"):
        ms.kept_per_block(np.eye(3, dtype=bool), 0)


@pytest.mark.parametrize(
    "read",
    [
        lambda mask: ms.check_mask(mask, 1, 2),
        lambda mask: ms.kept_per_block(mask, 2),
        lambda mask: ms.kept_share(np.eye(2), mask),
    ],
)
def test_what_cannot_be_read_as_a_mask_is_refused(read):
    with pytest.raises(DtypeError, match="mask cannot be read as an array"):
        read([[True], [True, False]])
    with pytest.raises(DtypeError, match=r"pass mask\.filled\(False\)"):
        read(np.ma.masked_array(np.eye(2, dtype=bool), mask=np.eye(2, dtype=bool)))


def test_a_mask_of_one_dimension_has_no_blocks():
    flat = np.ones(4, dtype=bool)
    for read in (lambda: ms.check_mask(flat, 1, 2), lambda: ms.kept_per_block(flat, 2)):
        with pytest.raises(ShapeError, match="a mask must have at least 2 dimensions"):
            read()


def test_block_scores_are_what_blocks_keep():
    W = np.random.default_rng(0).integers(0, 100, size=(2, 12, 8)) / 64
    solution = ms.solve(W, 2, 4, method="greedy")
    certificate = solution.certificate
    blocks = np.where(solution.mask, W, 0).reshape(2, 3, 4, 2, 4)
    np.testing.assert_array_equal(certificate.block_scores, blocks.sum(axis=(2, 4)))
    best = ms.solve(W, 2, 4).certificate
    np.testing.assert_array_equal(best.block_bounds, best.block_scores)
    assert (certificate.block_bounds >= best.block_scores).all()
    assert certificate.block_bounds.sum() == solution.bound
    huge = ms.solve(np.full((2, 2), np.finfo(np.longdouble).max), 1, 2).certificate
    assert huge.block_scores.tolist() == [[np.inf]]
