"""The maps of the front ends beside plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
from drawn import parameters

from mmjax.layers.speech_frontends import GroupNorm, Stem, TimeConvolution, gray_levels

RNG = np.random.default_rng(0)


def test_the_stem_is_a_convolution_in_three_dimensions():
    x = RNG.normal(size=(2, 4, 9, 10)).astype(np.float32)
    kernel = RNG.normal(size=(5, 7, 7, 3)).astype(np.float32)
    found = Stem(3).apply({"params": {"kernel": kernel}}, x)
    padded = np.pad(x, ((0, 0), (2, 2), (3, 3), (3, 3)))
    assert found.shape == (2, 4, 5, 5, 3)
    for t, i, j in ((0, 0, 0), (1, 2, 3), (3, 4, 4), (2, 0, 4)):
        part = padded[:, t : t + 5, 2 * i : 2 * i + 7, 2 * j : 2 * j + 7]
        want = np.einsum("bthw,thwc->bc", part, kernel)
        np.testing.assert_allclose(found[:, t, i, j], want, rtol=1e-4, atol=1e-4)


def test_group_norm_is_per_image_and_group():
    x = RNG.normal(size=(2, 3, 4, 6), loc=3).astype(np.float32)
    scale, bias = np.float32(1 + 0.1 * np.arange(6)), np.float32(np.arange(6))
    found = GroupNorm(2).apply({"params": {"scale": scale, "bias": bias}}, x)
    for n in range(2):
        for group in (slice(0, 3), slice(3, 6)):
            part = x[n, :, :, group]
            want = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
            np.testing.assert_allclose(
                found[n, :, :, group], want * scale[group] + bias[group], rtol=1e-5, atol=1e-5
            )


def test_a_convolution_over_time_halves_the_frames():
    x = RNG.normal(size=(1, 7, 2)).astype(np.float32)
    params = parameters(TimeConvolution(3), x)
    found = TimeConvolution(3).apply({"params": params}, x)
    padded = np.pad(x[0], ((1, 1), (0, 0)))
    windows = np.stack([padded[2 * i : 2 * i + 3] for i in range(4)])
    want = np.einsum("tkc,kcd->td", windows, params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(found[0], want, rtol=1e-5, atol=1e-5)


def test_gray_levels():
    colors = jnp.uint8([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 0]])
    np.testing.assert_allclose(jax.jit(gray_levels)(colors), [1, 0.299, 0.587, 0], rtol=1e-5)
