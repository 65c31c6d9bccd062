import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.norm import RMSNorm, norm_class, rms_norm
from mmjax.layers.rotary import frequencies, rotary_angles, rotate

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


def test_scaled_frequencies_are_the_formulas_at_their_ends():
    """High frequencies stay, low ones are divided by the factor (arXiv 2309.00071, section 3.2)."""
    plain = frequencies(64, 1e4)[0]
    np.testing.assert_allclose(plain, 1e4 ** (-np.arange(32) / 32), rtol=1e-6)
    np.testing.assert_allclose(
        frequencies(64, 1e4, {"rope_type": "linear", "factor": 4.0})[0], plain / 4, rtol=1e-6
    )
    original = {"factor": 8.0, "original_max_position_embeddings": 1024}
    llama3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **original}
    yarn = {"rope_type": "yarn", **original}
    for scaling, ends, magnitude in (
        (llama3, (4, 1), 1.0),
        (yarn, (32, 1), 0.1 * np.log(8) + 1),
    ):
        found, factor = frequencies(64, 1e4, scaling)
        ratio, turns = plain / found, 1024 * plain / (2 * np.pi)
        np.testing.assert_allclose(ratio[turns > ends[0]], 1, rtol=1e-6)
        np.testing.assert_allclose(ratio[turns < 0.8 * ends[1]], 8, rtol=1e-6)
        assert (np.diff(ratio) >= -1e-5).all() and ((ratio > 1.1) & (ratio < 7.9)).any()
        np.testing.assert_allclose(factor, magnitude)
    divided = {"rope_type": "factors", "factors": tuple(range(1, 33)), "attention_factor": 0.5}
    found, factor = frequencies(64, 1e4, divided)
    np.testing.assert_allclose(found, plain / np.arange(1, 33), rtol=1e-6)
    x = RNG.normal(size=(1, 2, 3, 64)).astype(np.float32)
    angles = rotary_angles(jnp.asarray([[3, 9]]), 64, 1e4, divided)
    np.testing.assert_allclose(
        rotate(x, angles, factor), 0.5 * np.asarray(rotate(x, angles)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ({"rope_type": "liner"}, "Did you mean 'linear'"),
        ({"rope_type": "linear", "factr": 2}, "factr is not a setting.*Did you mean 'factor'"),
        ({"rope_type": "llama3", "factor": 2}, "of type 'llama3' needs low_freq_factor, high"),
        ({"rope_type": "factors", "factors": (1.0, 2.0)}, "2 values and a head 4 pairs"),
    ],
)
def test_wrong_scalings_are_refused(scaling, words):
    with pytest.raises(ValueError, match=words):
        frequencies(8, 1e4, scaling)


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
