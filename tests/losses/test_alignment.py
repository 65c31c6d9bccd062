"""Losses of alignment and the reversed gradient against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mmjax.layers.gradient_reversal import reverse_gradient
from mmjax.losses.alignment import batch_transport, centroid_distance, modality_loss
from mmjax.losses.reconstruction import feature_error

RNG = np.random.default_rng(0)


def test_the_reversed_gradient_is_minus_lambda_times_the_gradient():
    x = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)

    def f(x):
        return jnp.sin(x).sum()

    np.testing.assert_array_equal(reverse_gradient(x, 0.7), x)
    found = jax.grad(lambda x: f(reverse_gradient(x, 0.7)))(x)
    np.testing.assert_allclose(found, -0.7 * jnp.cos(x), rtol=1e-6)
    # Inside: what is read after the reversal is trained as ever.
    w = jnp.float32(1.3)
    of_w, of_x = jax.grad(lambda w, x: f(w * reverse_gradient(x, 2.0)), (0, 1))(w, x)
    np.testing.assert_allclose(of_w, (x * jnp.cos(w * x)).sum(), rtol=1e-5)
    np.testing.assert_allclose(of_x, -2 * w * jnp.cos(w * x), rtol=1e-5)


def test_the_discriminators_loss_is_its_cross_entropy():
    image, text = np.float32([2.0, -1.0, 0.0]), np.float32([-3.0, 0.5, 0.0])
    loss, right = modality_loss(image, text)
    p = 1 / (1 + np.exp(-np.stack([image, text])))
    np.testing.assert_allclose(loss, -(np.log(p[0]) + np.log(1 - p[1])) / 2, rtol=1e-6)
    np.testing.assert_array_equal(right, [1.0, 0.0, 0.0])


def test_transport_between_batches_finds_the_permutation():
    x = np.linalg.qr(RNG.normal(size=(6, 6)))[0].astype(np.float32)
    noisy = x + 0.1 * RNG.normal(size=x.shape).astype(np.float32)
    y = noisy[RNG.permutation(6)]
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    costs = 1 - x @ unit.T
    want = costs[linear_sum_assignment(costs)].mean()
    found = jax.jit(lambda x, y: batch_transport(x, y, 0.1, 50))(x, y)
    assert found == pytest.approx(want, abs=1e-3)
    assert found < costs.mean() - 0.5


def test_centroids_and_relative_errors():
    x, y = RNG.normal(size=(5, 3)).astype(np.float32), RNG.normal(size=(7, 3)).astype(np.float32)
    want = np.square(x.mean(0) - y.mean(0)).sum()
    assert centroid_distance(x, y) == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(feature_error(np.zeros_like(x), x), 1, rtol=1e-6)
    np.testing.assert_allclose(feature_error(3 * x, x), 4, rtol=1e-5)
    of_values, of_target = jax.grad(lambda a, b: feature_error(a, b).sum(), (0, 1))(x[:5], y[:5])
    assert of_values.any() and not of_target.any()
