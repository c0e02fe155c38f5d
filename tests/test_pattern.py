import numpy as np
import pytest

from masksolve.errors import MaskSolveError, OptionError, PatternError, PatternTypeError
from masksolve.pattern import MAX_M, Pattern, check_degree


@pytest.mark.parametrize(
    ("n", "m", "message"),
    [
        (5, 4, "n must not exceed m: n=5"),
        (-1, 4, "n must be at least 0, got n=-1"),
        (0, 0, "m must be at least 1, got m=0"),
        (1, -4, "m must be at least 1, got m=-4"),
        (1, MAX_M + 1, f"m must be at most {MAX_M}"),
    ],
)
def test_out_of_range_is_refused(n, m, message):
    with pytest.raises(PatternError, match=message):
        Pattern(n, m)
    with pytest.raises(ValueError, match=message):  # it is one too
        Pattern(n, m)


@pytest.mark.parametrize(
    ("n", "m"),
    [
        (2.0, 4),
        ("2", 4),
        (2, None),
        (True, 4),
        (np.float32(2), 4),
        (np.True_, 4),
        (np.array([2]), 4),
    ],
)
def test_non_integers_are_refused(n, m):
    with pytest.raises(PatternTypeError, match="must be an integer") as caught:
        Pattern(n, m)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, MaskSolveError)


def test_numpy_integers_become_python_integers():
    pattern = Pattern(np.int8(2), np.uint64(4))
    assert pattern == Pattern(2, 4)
    assert type(pattern.n) is int
    assert type(pattern.m) is int


@pytest.mark.parametrize("text", ["", "2", "2:", ":4", "2:4:8", "a:b", "-1:4", "2.0:4", 24])
def test_parse_refuses_what_is_no_pattern(text):
    with pytest.raises(PatternError, match="a pattern is written n:m"):
        Pattern.parse(text)


def test_parse_and_print_are_inverse():
    for text in ("0:1", "2:4", "16:32"):
        assert str(Pattern.parse(text)) == text
    assert Pattern.parse(" 2 : 4 ") == Pattern(2, 4)


def test_from_zeros_counts_what_is_dropped():
    assert Pattern.from_zeros(3, 4) == Pattern(1, 4)
    with pytest.raises(PatternError, match="zeros must lie between 0 and m=4, got zeros=5"):
        Pattern.from_zeros(5, 4)
    with pytest.raises(PatternTypeError, match="zeros must be an integer"):
        Pattern.from_zeros(1.5, 4)


def test_degree_is_one_of_two():
    assert check_degree("exact") == "exact"
    with pytest.raises(OptionError, match="degree must be"):
        check_degree("atmost")
