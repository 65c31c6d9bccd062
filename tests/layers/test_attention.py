import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.layers.attention import MultiHeadAttention

B, L, D, H = 2, 5, 12, 3
X = np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)


def slow_attention(x, params, causal, mask):
    """One query, one head, one example at a time."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    y, weights = np.zeros((B, L, D)), np.zeros((B, H, L, L))
    for b in range(B):
        qkv = np.einsum("ld,dqhe->lqhe", x[b], p["qkv"]["kernel"]) + p["qkv"]["bias"]
        heads = np.zeros((L, H, D // H))
        for h in range(H):
            for i in range(L):
                seen = [
                    j for j in range(L) if (not causal or j <= i) and (mask is None or mask[b, j])
                ]
                logits = [qkv[i, 0, h] @ qkv[j, 1, h] / np.sqrt(D // H) for j in seen]
                e = np.exp(np.asarray(logits) - max(logits))
                weights[b, h, i, seen] = e / e.sum()
                heads[i, h] = sum(w * qkv[j, 2, h] for w, j in zip(e / e.sum(), seen))
        y[b] = np.einsum("lhe,hed->ld", heads, p["out"]["kernel"]) + p["out"]["bias"]
    return y, weights


def params_of(layer):
    params = meta.unbox(layer.init(jax.random.key(0), X)["params"])
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)  # biases too are not zero
    return jax.tree.unflatten(tree, [rng.normal(size=a.shape).astype(np.float32) for a in leaves])


@settings(max_examples=12)
@given(causal=st.booleans(), lengths=st.none() | st.tuples(*[st.integers(1, L)] * B))
def test_values_and_sown_weights_are_those_of_the_loops(causal, lengths):
    mask = None if lengths is None else np.arange(L)[None] < np.asarray(lengths)[:, None]
    layer = MultiHeadAttention(H, causal)
    params = params_of(layer)
    y, sown = layer.apply({"params": params}, X, mask, mutable=["intermediates"])
    expected, weights = slow_attention(X, params, causal, mask)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sown["intermediates"]["attention_weights"][0], weights, atol=1e-5)


def test_bf16_is_near_fp32_and_differs():
    params = jax.tree.map(lambda a: a * 0.3, params_of(MultiHeadAttention(H)))
    wide = MultiHeadAttention(H).apply({"params": params}, X)
    narrow = MultiHeadAttention(H, dtype="bfloat16").apply({"params": params}, X)
    error = np.abs(wide - narrow).max() / np.abs(wide).max()
    assert 1e-5 < error < 2e-2


def test_nothing_to_look_at_is_finite():
    layer = MultiHeadAttention(H)
    params = params_of(layer)

    def f(params):
        return layer.apply({"params": params}, X, np.zeros((B, L), bool)).sum()

    value, grads = jax.value_and_grad(f)(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_nothing_is_sown_unless_asked():
    layer = MultiHeadAttention(H)
    assert set(layer.init(jax.random.key(0), X)) >= {"params"}
    y = layer.apply({"params": params_of(layer)}, X)
    assert isinstance(y, jnp.ndarray)


def test_heads_that_do_not_divide_raise():
    with pytest.raises(ValueError, match="width 12 is not a multiple of heads 5"):
        MultiHeadAttention(5).init(jax.random.key(0), X)
