"""Heads on features, against NumPy."""

import jax
import numpy as np
from drawn import parameters
from scipy.special import erf

from mmjax.layers.feature_head import FeatureHead

RNG = np.random.default_rng(0)


def test_a_head_is_a_linear_map_a_perceptron_and_a_bag_of_words():
    head = FeatureHead(width=5, inner=7, dropout=0.5, vocab_size=11)
    x = RNG.normal(2.0, 30.0, size=(3, 6)).astype(np.float32)
    tokens = np.array([[1, 4, 4, 9], [2, 3, 9, 9], [5, 5, 5, 5]], np.int32)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)  # the last has no token
    params = parameters(head, x, tokens, mask)
    params["down"]["kernel"] = RNG.normal(size=(7, 5)).astype(np.float32)
    apply = jax.jit(head.apply)
    found = apply({"params": params}, x, tokens, mask)

    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    inner = normed @ p["up"]["kernel"] + p["up"]["bias"]
    inner = inner * (1 + erf(inner / 2**0.5)) / 2
    want = normed @ p["linear"]["kernel"] + inner @ p["down"]["kernel"]
    for row, (ids, valid) in enumerate(zip(tokens, mask)):
        for token in ids[valid]:
            want[row] += p["words"][token] * (5 / valid.sum()) ** 0.5
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    other = np.where(mask, tokens, 0)  # padding does not matter
    np.testing.assert_array_equal(found, apply({"params": params}, x, other, mask))
    np.testing.assert_allclose(  # nor does the tower's scale
        found, apply({"params": params}, 3 * x, tokens, mask), rtol=1e-5, atol=1e-5
    )
