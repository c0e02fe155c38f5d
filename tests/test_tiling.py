import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masksolve.errors import OptionError, RaggedShapeError, ShapeError
from masksolve.tiling import make_tiling


@st.composite
def problems(draw):
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=2, max_size=4)))
    axes = tuple(draw(st.permutations(range(-len(shape), 0)))[:2])
    return shape, axes, draw(st.integers(1, 5)), draw(st.integers(1, 100))


@given(problems())
def test_scatter_undoes_gather_and_bands_cover_every_entry_once(problem):
    shape, axes, m, entries = problem
    array = np.arange(1, np.prod(shape) + 1).reshape(shape)
    tiling = make_tiling(shape, m, axes=axes)
    out, seen, blocks = np.zeros(shape, int), np.zeros(shape, int), 0
    for band in tiling.bands(entries):
        parts = [tiling.gather(array, part) for part in band.each_matrix()]
        assert (np.concatenate(parts) == tiling.gather(array, band)).all()
        piece = tiling.gather(array, band)
        assert piece.shape == (band.blocks, m, m)
        assert band.blocks * m * m <= max(entries, m * m) or band.shape == (1, 1, 1)
        tiling.scatter(piece, band, out)
        once = np.zeros(shape, int)
        tiling.scatter(np.ones_like(piece), band, once)
        seen += once
        blocks += band.blocks
    assert (out == array).all()
    assert (seen == 1).all()
    assert blocks == tiling.blocks == np.prod(tiling.block_shape)


def test_blocks_are_the_tiles_of_the_matrix():
    array = np.arange(24).reshape(4, 6)
    (band,) = make_tiling((4, 6), 2).bands(100)
    blocks = make_tiling((4, 6), 2).gather(array, band)
    assert blocks[4].tolist() == array[2:4, 2:4].tolist()


def test_a_ragged_edge_is_filled_with_zeros():
    array = np.ones((3, 5))
    tiling = make_tiling((3, 5), 4)
    (band,) = tiling.bands(100)
    blocks = tiling.gather(array, band)
    assert blocks.sum(axis=2).tolist() == [[4, 4, 4, 0], [1, 1, 1, 0]]
    assert [extent.tolist() for extent in tiling.real_extent()] == [[3], [4, 1]]


def test_axes_name_the_matrix_of_a_convolution_weight():
    weight = np.arange(2 * 4 * 3 * 5).reshape(4, 2, 3, 5)
    tiling = make_tiling(weight.shape, 2, axes=(0, 1))
    assert tiling.block_shape == (3, 5, 2, 1)
    band = tiling.bands(4)[2 * (1 * 5 + 4)]  # tap (1, 4) has two bands of one block
    assert tiling.gather(weight, band)[0].tolist() == weight[:2, :, 1, 4].tolist()


def test_swapped_axes_transpose_the_blocks():
    array = np.arange(16).reshape(4, 4)
    a, b = make_tiling((4, 4), 4), make_tiling((4, 4), 4, axes=(1, 0))
    assert (b.gather(array, b.bands(1)[0])[0] == a.gather(array, a.bands(1)[0])[0].T).all()


@pytest.mark.parametrize("shape", [(), (5,)])
def test_fewer_than_two_dimensions_are_refused(shape):
    with pytest.raises(ShapeError, match="at least 2 dimensions"):
        make_tiling(shape, 4)


@pytest.mark.parametrize("axes", [(0, 0), (0, 2), (0,), (0, 1, 1), 5, None, ("a", "b"), (0.5, 1)])
def test_axes_must_be_two_different_ones(axes):
    with pytest.raises(OptionError, match="two different axes"):
        make_tiling((4, 4), 4, axes=axes)


def test_ragged_shapes_can_be_refused():
    with pytest.raises(RaggedShapeError, match=r"axis 1 has size 6.* remainder of 2 .* m=4"):
        make_tiling((8, 6), 4, remainder="error")
    make_tiling((8, 12), 4, remainder="error")
    with pytest.raises(OptionError, match="remainder must be"):
        make_tiling((8, 6), 4, remainder="crop")
