"""Learned-mixin against its closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.losses.debias import learned_mixin, mixin_entropy

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
BIAS = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)


def test_the_mixture_is_the_renormalised_product():
    gate = jnp.asarray([0.0, 0.5, 1.0, 2.0, 7.0])
    p, b = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (LOGITS, BIAS))
    want = p * b ** np.asarray(gate)[:, None]
    want /= want.sum(-1, keepdims=True)
    np.testing.assert_allclose(jnp.exp(learned_mixin(LOGITS, BIAS, gate)), want, rtol=1e-5)


def test_a_closed_gate_leaves_the_model_alone_and_the_bias_gets_no_gradient():
    zero = jnp.zeros(5)
    plain = jax.nn.log_softmax(LOGITS, axis=-1)
    np.testing.assert_allclose(learned_mixin(LOGITS, BIAS, zero), plain, atol=1e-6)

    def loss(bias):
        gate = jnp.ones(5)
        return learned_mixin(LOGITS, bias, gate)[:, 0].sum() + mixin_entropy(bias, gate).sum()

    np.testing.assert_array_equal(jax.grad(loss)(BIAS), jnp.zeros_like(BIAS))


def test_entropy():
    np.testing.assert_allclose(mixin_entropy(BIAS, jnp.zeros(5)), np.full(5, np.log(4)), rtol=1e-5)
    b = np.exp(BIAS) / np.exp(BIAS).sum(-1, keepdims=True)
    want = -(b * np.log(b)).sum(-1)
    np.testing.assert_allclose(mixin_entropy(BIAS, jnp.ones(5)), want, rtol=1e-5)
    assert float(mixin_entropy(BIAS, jnp.full(5, 100.0)).max()) < 0.1
