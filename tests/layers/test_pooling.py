import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.layers.pooling import AttentionPool, check_pool, pool_tokens

X = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
MASKS = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=3, max_size=3)


@settings(max_examples=25)
@given(MASKS)
def test_end_and_mean_by_loops(mask):
    mask = np.asarray(mask)
    end, mean = (np.asarray(pool_tokens(X, pool, mask)) for pool in ("end", "mean"))
    for row in range(3):
        seen = [i for i in range(6) if mask[row, i]]
        np.testing.assert_array_equal(end[row], X[row, seen[-1] if seen else 5])
        expected = np.mean([X[row, i] for i in seen], axis=0) if seen else np.zeros(8)
        np.testing.assert_allclose(mean[row], expected, atol=1e-5)


@pytest.mark.parametrize("pool", ["max", "mean_sqrt", "weighted_mean"])
def test_poolings_of_sentence_transformers_by_loops(pool):
    mask = np.asarray([[1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0], [1] * 6], bool)
    found = np.asarray(pool_tokens(X, pool, mask))
    for row in range(3):
        seen = np.flatnonzero(mask[row])
        weights = (seen + 1) / (seen + 1).sum()
        want = {
            "max": X[row, seen].max(0),
            "mean_sqrt": X[row, seen].sum(0) / len(seen) ** 0.5,
            "weighted_mean": weights @ X[row, seen],
        }
        np.testing.assert_allclose(found[row], want[pool], atol=1e-5)


def test_without_a_mask_all_tokens_are_pooled():
    for pool in ("mean", "mean_sqrt", "weighted_mean", "max", "end"):
        whole = pool_tokens(X, pool, np.ones((3, 6), bool))
        np.testing.assert_allclose(pool_tokens(X, pool), whole, atol=1e-6)


def test_cls_and_last():
    np.testing.assert_array_equal(pool_tokens(X, "cls"), X[:, 0])
    np.testing.assert_array_equal(pool_tokens(X, "last"), X[:, 5])
    np.testing.assert_allclose(pool_tokens(X, "mean"), X.mean(1), atol=1e-6)


def test_attention_pool_ignores_the_order_and_what_is_masked():
    layer = AttentionPool(2, 16)
    params = meta.unbox(jax.jit(layer.init)(jax.random.key(0), X)["params"])
    apply = jax.jit(lambda x, mask: layer.apply({"params": params}, x, mask))
    mask = np.arange(6)[None] < np.asarray([6, 4, 1])[:, None]
    y = apply(X, mask)
    garbage = np.where(mask[:, :, None], X, 1e3).astype(np.float32)
    np.testing.assert_allclose(apply(garbage, mask), y, atol=1e-5)
    np.testing.assert_allclose(apply(X[:, ::-1], mask[:, ::-1]), y, atol=1e-5)
    assert np.abs(apply(X, None) - y).max() > 1e-3


def test_attention_pool_of_one_token_is_its_value_through_the_head():
    # One key has weight 1, so the attention is out(value(x)), whatever probe, query and key are.
    layer = AttentionPool(2, 16)
    x = X[:, :1]
    p = meta.unbox(layer.init(jax.random.key(0), x)["params"])
    value = np.einsum("bd,dhe->bhe", x[:, 0], p["attention"]["key_value"]["kernel"][:, 1])
    a = np.einsum("bhe,hed->bd", value, p["attention"]["out"]["kernel"])
    n = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-6)
    h = jax.nn.gelu(jnp.asarray(n @ p["mlp"]["up"]["kernel"]), approximate=False)
    expected = a + np.asarray(h) @ p["mlp"]["down"]["kernel"]
    np.testing.assert_allclose(layer.apply({"params": p}, x), expected, atol=1e-5)


def test_unknown_pool_raises():
    with pytest.raises(ValueError, match="pool is 'max'; use one of"):
        check_pool("max", "config.model.text.pool")
