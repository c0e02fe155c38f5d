import tracemalloc
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from masksolve.errors import DtypeError
from masksolve.scores import (
    FRACTION_BITS,
    as_real_array,
    nonfinite_error,
    scaled_sum,
    scaled_total,
    to_fixed_point,
)

ONE = 2**FRACTION_BITS


def exact_fixed_point(block):
    """The definition in rational arithmetic: round half to even after a power-of-two scale."""
    values = [[abs(Fraction(float(value))) for value in row] for row in block]
    top = max(max(row) for row in values)
    shift = 0
    if top:
        while top * Fraction(2) ** shift >= ONE:
            shift -= 1
        while top * Fraction(2) ** (shift + 1) < ONE:
            shift += 1
    return [[round(value * Fraction(2) ** shift) for value in row] for row in values], shift


@given(hnp.arrays(np.float64, (2, 2), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_fixed_point_is_its_definition(block):
    """Subnormals and the largest doubles included: nothing over- or underflows on the way."""
    (q,), (shift,) = to_fixed_point(block[None])
    expected, expected_shift = exact_fixed_point(block)
    assert q.tolist() == expected
    assert shift == expected_shift


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, ml_dtypes.bfloat16, np.longdouble, ">f4"]
)
def test_narrow_floats_are_scaled_without_error(dtype):
    raw = np.random.default_rng(0).normal(size=(5, 4, 4)).astype(dtype)
    q, shift = to_fixed_point(raw)
    exact = raw.astype(np.float64)
    back = np.ldexp(q.astype(np.float64), -shift[:, None, None])
    assert np.abs(back - abs(exact)).max() <= 2.0**-FRACTION_BITS * abs(exact).max()
    assert ((q.max(axis=(1, 2)) >= ONE // 2) & (q.max(axis=(1, 2)) <= ONE)).all()


def test_long_doubles_beyond_double_range_are_taken():
    if np.finfo(np.longdouble).maxexp <= 1024:
        pytest.skip("long double is no wider than double on this platform")
    raw = np.array([[[1, 2], [3, 4]]], dtype=np.longdouble) * np.ldexp(np.longdouble(1), 5000)
    q, shift = to_fixed_point(raw)
    assert (q * 4 == ONE // 2 * np.array([[1, 2], [3, 4]])).all()
    assert shift == FRACTION_BITS - 5003


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, ">i4"])
def test_integers_that_fit_are_taken_as_they_are(dtype):
    raw = np.array([[[0, 1], [1, 1]]], dtype=dtype)
    q, shift = to_fixed_point(raw)
    assert q.dtype == np.int64
    assert q.tolist() == [[[0, 1], [1, 1]]]
    assert shift == 0


def test_each_block_of_large_integers_is_scaled_on_its_own():
    low = np.iinfo(np.int64).min
    raw = np.array([[[low, 0], [0, low // 2]], [[ONE, 1], [2, -ONE]], [[ONE + 1, 1], [2, 3]]])
    q, shift = to_fixed_point(raw)
    assert q[0].tolist() == [[ONE // 2, 0], [0, ONE // 4]]
    assert q[1].tolist() == [[ONE, 1], [2, ONE]]
    assert shift.tolist() == [-24, 0, -1]
    assert to_fixed_point(raw, absolute=False)[0][0].tolist() == [[-ONE // 2, 0], [0, -ONE // 4]]
    top = np.full((1, 1, 1), np.iinfo(np.uint64).max, dtype=np.uint64)
    assert to_fixed_point(top)[0].item() == ONE // 2


def test_input_is_not_modified():
    for raw in (np.full((1, 2, 2), -3), np.full((1, 2, 2), -3.0)):
        raw.flags.writeable = False
        to_fixed_point(raw)
        assert (raw == -3).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_non_finite_is_noticed(bad, dtype):
    raw = np.zeros((3, 2, 2), dtype=dtype)
    raw[1, 0, 1] = bad
    assert to_fixed_point(raw) is None
    assert to_fixed_point(raw, absolute=False) is None


def test_non_finite_error_names_first_position_and_count():
    scores = np.zeros((3, 4, 5))
    scores[1, 2, 3], scores[2, 0, 0] = np.inf, np.nan
    message = str(nonfinite_error(scores.transpose(2, 1, 0)))
    assert "the entry at (0, 0, 2) is nan; 2 entries are not finite" in message
    message = str(nonfinite_error(scores[:2]))
    assert "the entry at (1, 2, 3) is inf;" in message
    assert "2 entries" not in message


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        (np.zeros((2, 2), complex), "complex"),
        (np.array([["a"]]), "<U1"),
        (np.array([[None]]), "object"),
        (np.zeros((2, 2), "M8[s]"), "datetime64"),
        (np.zeros((2, 2), "f4,f4"), "f0"),
        (np.zeros((2, 2), "V2"), "V2"),
        (np.ma.masked_equal(np.eye(2), 1), "masked arrays"),
        ([[1, 2], [3]], "cannot be read"),
    ],
)
def test_what_is_not_real_is_refused(scores, word):
    with pytest.raises(DtypeError, match=word):
        as_real_array(scores)


def test_scaled_sum_is_exact_and_does_not_overflow():
    values, shift = np.array([3, -1, 0]), np.array([-2000, -1999, 5000])
    mantissa, exponent = scaled_sum(values, shift)
    assert Fraction(mantissa) * Fraction(2) ** exponent == 3 * 2**2000 - 2**1999
    assert scaled_total(values, shift) == np.inf
    assert scaled_total(np.array([[1, 2]]), np.array([[1, 2]])) == 1.0
    assert scaled_total(np.array([]), np.array([])) == 0.0


def test_a_sum_over_many_blocks_copies_none_of_them():
    values, shift = np.arange(1 << 20), np.full(1 << 20, 7)
    tracemalloc.start()
    try:
        found = scaled_sum(values, shift)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == (float(values.sum()), -7)
    assert peak < values.nbytes
