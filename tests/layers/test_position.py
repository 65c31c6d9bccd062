import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mmjax.layers.position import (
    LearnedGrid,
    LearnedSequence,
    resize_grid,
    resize_grids,
    sincos2d,
)

GRIDS = st.tuples(st.integers(2, 9), st.integers(2, 9))


@settings(max_examples=10)
@given(stored=GRIDS, grid=GRIDS)
def test_a_resized_constant_stays_and_both_axes_keep_their_meaning(stored, grid):
    resize = jax.jit(resize_grid, static_argnums=1)
    flat = resize(np.full((*stored, 3), 2.5, np.float32), grid)
    assert flat.shape == (*grid, 3)
    np.testing.assert_allclose(flat, 2.5, rtol=1e-5)
    rows = np.broadcast_to(np.arange(stored[0], dtype=np.float32)[:, None, None], (*stored, 1))
    resized = np.asarray(resize(rows, grid))[:, :, 0]
    np.testing.assert_allclose(resized, np.broadcast_to(resized[:, :1], grid), atol=1e-4)
    assert (np.diff(resized[:, 0]) > 0).all()  # still from top to bottom


def test_the_stored_grid_is_given_back_untouched():
    table = jax.random.normal(jax.random.key(0), (3, 5, 4))
    np.testing.assert_array_equal(resize_grid(table, (3, 5)), table)


def test_shrinking_averages_where_no_antialias_would_skip():
    # The centres of 4 x 4 cells fall on single squares of a 12 x 12 checkerboard of +1 and -1.
    board = 1.0 - 2.0 * (np.indices((12, 12)).sum(0) % 2)
    board = jnp.asarray(board[:, :, None], jnp.float32)
    inner = np.asarray(resize_grid(board, (4, 4)))[1:-1, 1:-1]
    np.testing.assert_allclose(inner, 0, atol=0.2)


@pytest.mark.parametrize("grid", [(7, 4), (2, 9), (1, 3)])
def test_corners_is_the_zoom_of_scipy(grid):
    table = np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32)
    zoom = [new / old for new, old in zip(grid, table.shape)] + [1]
    expected = ndimage.zoom(table, zoom, order=1)
    np.testing.assert_allclose(
        resize_grid(jnp.asarray(table), grid, "corners"), expected, atol=1e-6
    )


def test_a_grid_of_its_own_for_each_row():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32))
    sizes = np.asarray([[5, 6], [1, 1], [7, 2], [3, 8], [0, 0]], np.int32)
    found = jax.jit(resize_grids, static_argnums=2)(table, sizes, (7, 8))
    assert found.shape == (5, 7, 8, 3) and np.isfinite(found).all()
    for row, (height, width) in zip(found, sizes[:-1]):
        want = resize_grid(table, (height, width), "corners")
        np.testing.assert_allclose(row[:height, :width], want, atol=1e-6)
    with pytest.raises(ValueError, match="per image by 'corners', not 'antialias'"):
        LearnedGrid((5, 6), 3).init(jax.random.key(0), (7, 8), sizes)


@pytest.mark.parametrize("method", ["bicubic", "corners"])
def test_a_constant_stays_at_the_edges_too(method):
    flat = resize_grid(jnp.full((4, 5, 3), 2.5), (7, 2), method)
    np.testing.assert_allclose(flat, 2.5, rtol=1e-6)


def test_bicubic_has_the_four_weights_of_torch():
    """Of a quarter of the way between two cells, with a = -0.75; the edge is repeated."""
    weights = np.array([-0.10546875, 0.87890625, 0.26171875, -0.03515625])
    line = jnp.arange(8, dtype=jnp.float32)[:, None, None] ** 2
    finer = np.asarray(resize_grid(line, (16, 1), "bicubic"))[:, 0, 0]
    np.testing.assert_allclose(finer[7], np.arange(2, 6) ** 2 @ weights, rtol=1e-6)
    np.testing.assert_allclose(finer[1], np.array([0, 0, 1, 4]) @ weights, rtol=1e-5)


def test_an_unknown_way_to_resize_is_named():
    with pytest.raises(ValueError, match="position_resize is 'cubic'; use one of antialias"):
        resize_grid(jnp.zeros((2, 2, 1)), (3, 3), "cubic")


def test_the_parameter_has_the_stored_shape_whatever_the_image():
    layer = LearnedGrid((3, 5), 8)
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), (6, 4)))["params"]
    assert params["table"].value.shape == (3, 5, 8)


def test_sincos2d_by_the_formula():
    h, w, width = 2, 3, 16
    table = sincos2d((h, w), width)
    for y in range(h):
        for x in range(w):
            for k in range(width // 4):
                omega = 1 / 10_000 ** (k / (width // 4 - 1))
                expected = [
                    np.sin(x * omega),
                    np.cos(x * omega),
                    np.sin(y * omega),
                    np.cos(y * omega),
                ]
                np.testing.assert_allclose(table[y, x, k :: width // 4], expected, atol=1e-6)


def test_sincos2d_of_another_grid_covers_the_same_image():
    # The middle of 2n cells lies between the two middle ones of a stored grid of n = odd.
    small, large = sincos2d((3, 3), 16), sincos2d((9, 9), 16, stored=(3, 3))
    np.testing.assert_allclose(large[1::3, 1::3], small, atol=1e-6)  # centres that coincide


def test_impossible_widths_and_lengths_raise():
    with pytest.raises(ValueError, match="multiple of 4, not 18"):
        sincos2d((2, 2), 18)
    with pytest.raises(ValueError, match="Text of 9 tokens is longer than the model's 8"):
        LearnedSequence(8, 4).init(jax.random.key(0), 9)


def test_a_shorter_text_takes_the_first_rows():
    layer = LearnedSequence(8, 4)
    params = layer.init(jax.random.key(0), 8)
    np.testing.assert_array_equal(layer.apply(params, 3), layer.apply(params, 8)[:3])
