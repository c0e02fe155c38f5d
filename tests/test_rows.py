"""Row-wise masks: against brute force, in every layout, and as strict as find_mask."""

from itertools import combinations

import ml_dtypes
import numpy as np
import pytest

import masksolve as ms
from masksolve import errors, rows

RNG = np.random.default_rng(0)
DTYPES = [
    *("bool", "int8", "uint8", "int64", "uint64", ">i4"),
    *("float16", ">f4", "float64", "longdouble", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
]


def best_rows(scores, n, m, *, absolute=True):
    """Try every choice of n in every group, the earliest columns first, in exact arithmetic."""
    mask = np.zeros(scores.shape, dtype=bool)
    for row, kept in zip(scores, mask, strict=True):
        for start in range(0, len(row), m):
            group = [score.item() for score in row[start : start + m]]
            group = [abs(score) for score in group] if absolute else group
            group += [0] * (m - len(group))
            best = max(combinations(range(m), n), key=lambda chosen: sum(group[j] for j in chosen))
            kept[[start + j for j in best if start + j < len(row)]] = True
    return mask


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(("n", "m"), [(0, 3), (1, 1), (2, 4), (3, 5), (4, 8), (6, 6)])
def test_row_masks_are_those_of_brute_force(n, m, absolute):
    """With many ties, and a ragged end: sums of so small integers are exact."""
    scores = RNG.integers(-3, 4, size=(40, 13))
    found = ms.find_row_mask(scores, n, m, absolute=absolute)
    np.testing.assert_array_equal(found, best_rows(scores, n, m, absolute=absolute))


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_real_dtype_is_taken(dtype, absolute):
    scores = RNG.integers(-8, 8, size=(20, 12)).astype(dtype)
    before = scores.tobytes()
    found = ms.find_row_mask(scores, 2, 4, absolute=absolute)
    np.testing.assert_array_equal(found, best_rows(scores, 2, 4, absolute=absolute))
    assert scores.tobytes() == before


def test_scores_are_compared_as_they_are():
    """Not in fixed point: a last bit, a denormal and the smallest integer count too."""
    assert ms.find_row_mask([[1.0, 1.0 + 2**-52]], 1, 2).tolist() == [[False, True]]
    assert ms.find_row_mask([[0.0, 5e-324, 1.0, 1.0]], 3, 4).tolist() == [[False, True, True, True]]
    least = np.iinfo(np.int64).min
    assert ms.find_row_mask(np.array([[least + 1, least]]), 1, 2).tolist() == [[False, True]]


def test_no_mask_of_the_pattern_keeps_more():
    for n, m in ((2, 4), (4, 8)):
        scores = RNG.integers(-(2**20), 2**20, size=(32, 32))
        loose = ms.kept_share(scores, ms.find_row_mask(scores, n, m))
        assert loose > ms.solve(scores, n, m).kept_share


def test_layout_bands_and_workers_do_not_change_the_mask(monkeypatch):
    scores = RNG.normal(size=(3, 30, 17))
    expected = np.array([best_rows(matrix, 3, 4) for matrix in scores])
    found = [
        ms.find_row_mask(np.asfortranarray(scores), 3, 4),
        ms.find_row_mask(scores[:, ::-1], 3, 4)[:, ::-1],
        ms.find_row_mask(scores.transpose(2, 0, 1), 3, 4, axes=(2, 0)).transpose(1, 2, 0),
    ]
    for entries, workers in ((1, 1), (100, 3)):
        monkeypatch.setattr(rows, "_BAND_ENTRIES", entries)
        found.append(ms.find_row_mask(scores, 3, 4, workers=workers))
    for mask in found:
        np.testing.assert_array_equal(mask, expected)


def test_groups_along_columns():
    scores = RNG.normal(size=(16, 6))
    along_columns = ms.find_row_mask(scores, 2, 4, axes=(1, 0))
    np.testing.assert_array_equal(along_columns, best_rows(scores.T, 2, 4).T)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 3, 3)])
def test_empty_arrays_have_empty_masks(shape):
    assert ms.find_row_mask(np.zeros(shape), 2, 4).shape == shape


def test_only_ragged_rows_can_be_refused():
    assert ms.find_row_mask(np.ones((3, 8)), 2, 4, remainder="error").sum() == 12
    with pytest.raises(errors.RaggedShapeError, match="axis 0 has size 6, which leaves"):
        ms.find_row_mask(np.ones((6, 8)), 2, 4, axes=(1, 0), remainder="error")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_refused_with_position_and_count(bad):
    scores = RNG.normal(size=(300, 2000))
    scores[17, 1999] = scores[299, 3] = scores[17, 5] = bad
    with pytest.raises(errors.NonFiniteError, match=r"at \(17, 5\) is .*; 3 entries"):
        ms.find_row_mask(scores, 2, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 5}, errors.PatternError, "n must not exceed m"),
        ({"m": "4"}, errors.PatternTypeError, "must be an integer"),
        ({"remainder": "crop"}, errors.OptionError, "remainder must be"),
        ({"axes": (0, 5)}, errors.OptionError, "axes must name"),
        ({"workers": 0}, errors.OptionError, "workers must be"),
        ({"scores": np.ones(4)}, errors.ShapeError, "at least 2 dimensions"),
        ({"scores": np.eye(4) * 1j}, errors.DtypeError, "complex"),
    ],
)
def test_bad_input_has_its_own_error(arguments, error, message):
    with pytest.raises(error, match=message):
        ms.find_row_mask(**{"scores": np.eye(4), "n": 2, "m": 4, **arguments})
