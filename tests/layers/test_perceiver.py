import functools

import jax
import numpy as np
import pytest
from flax.core import meta

from mmjax.layers.perceiver import PerceiverResampler, spread

RNG = np.random.default_rng(0)
LAYER = PerceiverResampler(latents=64, depth=2, heads=2, frames=4, media=3)


def features(*shape):
    return RNG.normal(size=(*shape, 8)).astype(np.float32)


@functools.cache
def params():
    shapes = meta.unbox(jax.eval_shape(LAYER.init, jax.random.key(0), features(1, 1, 2))["params"])
    return jax.tree.map(lambda p: 0.3 * RNG.normal(size=p.shape).astype(np.float32), shapes)


@jax.jit
def apply(params, x, mask):
    return LAYER.apply({"params": params}, x, mask)


def resample(x, mask=None):
    return np.asarray(apply(params(), x, mask))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 2), (11, 3)])
def test_64_tokens_out_whatever_goes_in(shape):
    assert jax.eval_shape(apply, params(), features(2, *shape), None).shape == (2, 64, 8)


def test_media_are_resampled_each_on_its_own():
    x = features(2, 3, 2, 4)
    y = resample(x)
    assert y.shape == (2, 3, 64, 8)
    changed = x.copy()
    changed[:, 1] *= -1
    same = np.isclose(resample(changed), y, atol=1e-5).all((0, 2, 3))
    np.testing.assert_array_equal(same, [True, False, True])
    # The media embedding alone tells the same image in two places apart.
    twice = resample(np.repeat(x[:, :1], 2, axis=1))
    assert np.abs(twice[:, 0] - twice[:, 1]).max() > 1e-3
    np.testing.assert_allclose(twice[:, 0], resample(x[:, 0]), atol=1e-5)


def test_padding_changes_nothing():
    x = features(2, 2, 3)
    padded = np.concatenate([x, 1e3 * features(2, 1, 3)], axis=1)
    frames = np.asarray([[True, True, False]] * 2)
    np.testing.assert_allclose(resample(padded, frames), resample(x), atol=1e-4)
    tokens = np.broadcast_to(frames[:, :, None], (2, 3, 3))
    np.testing.assert_allclose(resample(padded, tokens), resample(x), atol=1e-4)


def test_a_medium_that_is_absent_gives_the_same_latents_whatever_it_holds():
    x, other = features(2, 1, 3), features(2, 1, 3)
    absent = np.zeros((2, 1), bool)
    np.testing.assert_array_equal(resample(x, absent), resample(other, absent))
    grads = jax.grad(lambda x: apply(params(), x, absent).sum())(x)
    assert not np.asarray(grads).any() and np.isfinite(resample(x, absent)).all()


def test_tokens_of_a_frame_have_no_order_and_frames_have():
    x = features(2, 2, 3)
    np.testing.assert_allclose(resample(x[:, :, ::-1]), resample(x), atol=1e-5)
    assert np.abs(resample(x[:, ::-1]) - resample(x)).max() > 1e-3


def test_more_frames_than_the_table_spread_over_the_same_time():
    table = RNG.normal(size=(4, 8)).astype(np.float32)
    # 7 frames on a table of 4: every second one falls on an entry.
    want = np.stack([np.interp(np.arange(7) / 2, np.arange(4), column) for column in table.T], 1)
    np.testing.assert_allclose(spread(table, 7), want, atol=1e-6)
    np.testing.assert_array_equal(spread(table, 3), table[:3])
    np.testing.assert_allclose(spread(table[:1], 3), table[[0, 0, 0]], atol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"not \[2, 3, 8\]"):
        resample(features(2, 3))
    with pytest.raises(ValueError, match="4 media per example.*holds 3"):
        resample(features(1, 4, 1, 1))
    with pytest.raises(ValueError, match=r"mask is \[2, 1, 5\].*2 frames of 3 tokens"):
        resample(features(2, 2, 3), np.ones((2, 5), bool))
