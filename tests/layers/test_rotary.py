import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.norm import RMSNorm, norm_class, rms_norm
from mmjax.layers.rotary import rotary_angles, rotate

RNG = np.random.default_rng(0)


def test_pairs_turn_as_complex_numbers_do():
    x = RNG.normal(size=(2, 3, 4, 8)).astype(np.float32)
    positions = np.asarray([[0, 1, 2], [5, 6, 40]])
    found = np.asarray(rotate(x, rotary_angles(jnp.asarray(positions), 8, 100.0)))
    z = x[..., :4] + 1j * x[..., 4:]
    turn = np.exp(1j * positions[:, :, None] * 100.0 ** (-np.arange(4) / 4))[:, :, None]
    np.testing.assert_allclose(found[..., :4] + 1j * found[..., 4:], z * turn, atol=1e-4)


def test_products_depend_on_the_distance_alone():
    q, k = RNG.normal(size=(2, 1, 1, 16)).astype(np.float32)

    def product(i, j):
        turned = [
            rotate(x[None], rotary_angles(jnp.asarray([[p]]), 16, 1e4)) for x, p in ((q, i), (k, j))
        ]
        return float((turned[0] * turned[1]).sum())

    np.testing.assert_allclose(product(3, 1), product(33, 31), rtol=1e-4)
    assert abs(product(3, 1) - product(3, 2)) > 1e-3


def test_an_odd_head_is_refused():
    with pytest.raises(ValueError, match="even head_dim, not 5"):
        rotary_angles(jnp.zeros((1, 1), jnp.int32), 5, 1e4)


def test_rms_norm_and_its_gradient_are_those_of_the_formula():
    x = RNG.normal(size=(2, 3, 8)).astype(np.float32)
    scale = RNG.normal(size=8).astype(np.float32)

    def formula(x, scale):
        mean = jnp.square(x).mean(-1, keepdims=True)
        return x / jnp.sqrt(mean + 1e-6) * scale.reshape(1, 1, -1)

    def values_and_grads(f):
        return jax.value_and_grad(lambda x, s: jnp.sin(f(x, s)).sum(), (0, 1))(x, scale)

    ours = values_and_grads(lambda x, s: rms_norm(x, s, 1e-6, jnp.float32))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, values_and_grads(formula)
    )
    assert norm_class("rms") is RMSNorm
