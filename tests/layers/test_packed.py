import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.packed import in_int8, packed_dot


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_an_int8_product_is_within_the_rounding_of_its_operands(rows):
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, 1, 40)).astype(np.float32)
    w = (rng.normal(size=(7, 40)) * np.logspace(-3, 3, 7)[:, None]).astype(np.float32)
    x_step, w_step = (np.abs(a).max(-1, keepdims=True) / 127 for a in (x, w))
    # each operand is off by at most half its step
    w_step, by_row = w_step[:, 0], np.abs(x).sum(-1, keepdims=True)
    bound = by_row * w_step / 2 + np.abs(w).sum(-1) * x_step / 2 + 40 * x_step * w_step / 4
    found = np.asarray(packed_dot(jnp.asarray(x), in_int8(jnp.asarray(w)), "float32"))
    error = np.abs(found - x.astype(np.float64) @ w.T)
    assert found.shape == (rows, 1, 7) and (error <= bound * 1.0001).all()
    assert error.max() > 0


def test_an_int8_product_of_whole_numbers_is_exact():
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-127, 128, size).astype(np.float32) for size in ((3, 50), (4, 50)))
    x[:, 0] = w[:, 0] = 127  # so that the scales are 1
    np.testing.assert_array_equal(packed_dot(x, in_int8(jnp.asarray(w)), "float32"), x @ w.T)
    zeros = in_int8(jnp.zeros((2, 50)))
    np.testing.assert_array_equal(packed_dot(x, zeros, "float32"), np.zeros((3, 2)))


@pytest.mark.parametrize("rows", [1, 4])
def test_other_dtypes_are_plain_products(rows):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(rows, 20)), rng.normal(size=(6, 20))
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 0.1)):
        found = packed_dot(jnp.asarray(x, "float32"), jnp.asarray(w, dtype), dtype)
        np.testing.assert_allclose(found, x @ w.T, atol=tolerance)
