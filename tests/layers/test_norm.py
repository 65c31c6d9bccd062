import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.norm import layer_norm

X, SCALE, BIAS, G = (
    np.random.default_rng(0).normal(size=s).astype(np.float32)
    for s in ((2, 5, 16), (16,), (16,), (2, 5, 16))
)


def naive(x, scale, bias, epsilon):
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + epsilon) * scale[None, None] + bias[None, None]


def test_value_in_closed_form():
    # Two values a and b have mean (a+b)/2 and deviation |a-b|/2: they become -1 and 1.
    x = jnp.asarray([[[3.0, 7.0], [5.0, -1.0]]])
    y = layer_norm(x, jnp.asarray([2.0, 10.0]), jnp.asarray([0.5, 0.0]), 0.0, jnp.float32)
    np.testing.assert_allclose(y, [[[-1.5, 10.0], [2.5, -10.0]]], rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_value_and_gradients_are_those_of_the_naive_form(offset):
    args = (X + np.float32(offset), SCALE, BIAS)
    with jax.enable_x64():
        wide = tuple(jnp.asarray(a, jnp.float64) for a in args)
        value = jax.jit(lambda *a: naive(*a, 1e-5))(*wide)
        total = lambda *a: jnp.sum(naive(*a, 1e-5) * G.astype(np.float64))  # noqa: E731
        grads = jax.jit(jax.grad(total, (0, 1, 2)))(*wide)
    ours = jax.jit(lambda *a: layer_norm(*a, 1e-5, jnp.float32))(*args)
    tolerance = 1e-5 if not offset else 1e-3  # fp32 itself holds 1000.x to 6e-5
    np.testing.assert_allclose(ours, value, atol=tolerance)
    total = lambda *a: jnp.sum(layer_norm(*a, 1e-5, jnp.float32) * G)  # noqa: E731
    ours = jax.jit(jax.grad(total, (0, 1, 2)))(*args)
    for a, b in zip(ours, grads):
        np.testing.assert_allclose(a, b, atol=10 * tolerance)


@pytest.mark.parametrize("offset", [-200.0, 0.0, 200.0])
def test_one_pass_over_bf16_loses_less_than_bf16_itself(offset):
    """With a mean of 100 deviations x is rounded by 0.3 of one; the variance is to 0.2 %."""
    x = jnp.asarray(X * 2 + np.float32(offset), jnp.bfloat16)
    wide = np.asarray(x, np.float64)
    y = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    ours = layer_norm(x, np.ones(16, np.float32), np.zeros(16, np.float32), 1e-5, jnp.float32)
    np.testing.assert_allclose(ours, y, rtol=2e-3, atol=2e-4)
    constant = jnp.full((1, 1, 16), offset + 1, jnp.bfloat16)  # no variance, nor a negative one
    assert np.isfinite(layer_norm(constant, SCALE, BIAS, 1e-5, jnp.float32)).all()


def test_statistics_of_bf16_are_taken_in_fp32():
    x = jnp.asarray(X * 3 + 50, jnp.bfloat16)
    y = layer_norm(x, SCALE, BIAS, 1e-5, jnp.float32)
    np.testing.assert_allclose(y, naive(x.astype(jnp.float32), SCALE, BIAS, 1e-5), atol=1e-4)
    assert layer_norm(x, SCALE, BIAS, 1e-5, jnp.bfloat16).dtype == jnp.bfloat16
    dx = jax.grad(lambda x: layer_norm(x, SCALE, BIAS, 1e-5, jnp.float32).sum())(x)
    assert dx.dtype == jnp.bfloat16
