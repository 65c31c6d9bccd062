"""Attention beside a slow one: one query, one head, one example at a time, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.layers import attention
from mmjax.layers.attention import Attention
from mmjax.layers.rotary import rotary_angles

B, L, S, D, DKV, HD = 2, 5, 4, 12, 6, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, L, D)).astype(np.float32)
CONTEXT = RNG.normal(size=(B, S, DKV)).astype(np.float32)


def params_of(layer, *args):
    shapes = jax.eval_shape(lambda: meta.unbox(layer.init(jax.random.key(0), *args)["params"]))
    rng = np.random.default_rng(1)  # biases too are not zero
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), shapes)


def rotated(x, position):
    half = len(x) // 2
    angle = position * 10_000.0 ** (-np.arange(half) / half)
    a, b = x[:half], x[half:]
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    )


def slow(params, x, kv, kv_heads, visible, bias=None, rotary=False):
    """The output [B, L, D] and weights [B, H, L, S]; visible [B, L, S]."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    heads, head_dim = p["out"]["kernel"].shape[:2]
    group = heads // kv_heads

    def dense(x, p):
        return np.tensordot(x, p["kernel"], 1) + p["bias"]

    out = np.zeros(x.shape)
    weights = np.zeros((len(x), heads, x.shape[1], visible.shape[2]))
    for b, i, h in np.ndindex(len(x), x.shape[1], heads):
        k, g = divmod(h, group)
        if kv is None:
            query = dense(x[b, i], p["qkv"])[g, k]
            keys = [dense(y, p["qkv"])[group, k] for y in x[b]]
            values = [dense(y, p["qkv"])[group + 1, k] for y in x[b]]
            if rotary:
                query = rotated(query, i)
                keys = [rotated(key, j) for j, key in enumerate(keys)]
        else:
            query = dense(x[b, i], p["query"])[h]
            keys, values = ([dense(y, p["key_value"])[n, k] for y in kv[b]] for n in range(2))
        seen = [j for j in range(len(keys)) if visible[b, i, j]]
        if seen:
            extra = np.zeros(len(keys)) if bias is None else bias[b % len(bias), h, i]
            e = np.exp([query @ keys[j] / np.sqrt(head_dim) + extra[j] for j in seen])
            weights[b, h, i, seen] = e / e.sum()
            y = weights[b, h, i] @ np.asarray(values)
            out[b, i] += y @ p["out"]["kernel"][h]
    return out + p["out"]["bias"], weights


def check(layer, kv_heads, visible, *args, slow_args=(), **kwargs):
    params = params_of(layer, X, *args)
    y, sown = layer.apply({"params": params}, X, *args, **kwargs, mutable=["intermediates"])
    expected, weights = slow(params, X, args[0] if args else None, kv_heads, visible, *slow_args)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sown["intermediates"]["attention_weights"][0], weights, atol=1e-5)
    plain = layer.apply({"params": params}, X, *args, **kwargs)
    assert isinstance(plain, jnp.ndarray)  # nothing is sown unless asked for
    return np.asarray(y), params


@settings(max_examples=12)
@given(
    causal=st.booleans(),
    lengths=st.none() | st.tuples(*[st.integers(1, L)] * B),
    heads=st.sampled_from([(3, 3), (4, 2), (6, 1)]),
    rotary=st.booleans(),
)
def test_self_attention(causal, lengths, heads, rotary):
    mask = None if lengths is None else np.arange(L)[None] < np.asarray(lengths)[:, None]
    visible = np.ones((B, L, L), bool) if mask is None else np.repeat(mask[:, None], L, 1)
    visible = visible & np.tri(L, dtype=bool) if causal else visible
    layer = Attention(heads[0], heads[1], HD, causal=causal)
    angles = rotary_angles(jnp.arange(L)[None], HD, 10_000.0) if rotary else None
    check(layer, heads[1], visible, mask=mask, angles=angles, slow_args=(None, rotary))


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2)])
def test_cross_attention_with_every_form_of_mask(heads, kv_heads):
    per_query = RNG.random((B, L, S)) < 0.5
    per_query[0, 1] = False  # a query that sees nothing
    per_key = RNG.random((B, S)) < 0.6
    per_key[1] = False
    every = np.ones((B, L, S), bool)
    layer = Attention(heads, kv_heads, HD if heads == 4 else None, cross=True)
    for mask, full in ((None, every), (per_query, per_query), (per_key, per_key[:, None] & every)):
        check(layer, kv_heads, full, CONTEXT, mask=mask)


@pytest.mark.parametrize("rows", [1, B])
def test_a_bias_is_added_to_the_logits(rows):
    bias = RNG.normal(size=(rows, 4, L, S)).astype(np.float32)
    mask = np.arange(S)[None] < np.asarray([[4], [2]])
    layer = Attention(4, 2, HD, cross=True)
    visible = np.repeat(mask[:, None], L, 1)
    check(layer, 2, visible, CONTEXT, mask=mask, bias=bias, slow_args=(bias,))
    own = RNG.normal(size=(rows, 3, L, L)).astype(np.float32)
    check(Attention(3), 3, np.ones((B, L, L), bool), bias=own, slow_args=(own,))


def test_who_sees_nothing_of_a_context_gets_zero_and_passes_no_gradient():
    mask = np.asarray([[True] * S, [False] * S])
    layer = Attention(2, head_dim=HD, cross=True, out_bias=False)
    params = params_of(layer, X, CONTEXT)

    def apply(context):
        return layer.apply({"params": params}, X, context, mask=mask)

    y, grads = apply(CONTEXT), jax.grad(lambda c: apply(c).sum())(CONTEXT)
    assert not np.asarray(y)[1].any() and np.asarray(y)[0].any()
    assert not np.asarray(grads)[1].any() and np.asarray(grads)[0].any()


def test_nothing_to_look_at_in_its_own_sequence_is_finite():
    layer = Attention(3)
    params = params_of(layer, X)

    def f(params):
        return layer.apply({"params": params}, X, mask=np.zeros((B, L), bool)).sum()

    value, grads = jax.value_and_grad(f)(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_grouped_queries_are_multi_head_attention_with_repeated_keys():
    grouped, multi = Attention(6, 2, HD), Attention(6, 6, HD)
    params = params_of(grouped, X)
    wide = {"out": params["out"], "qkv": {}}
    for name, a in params["qkv"].items():  # [..., G + 2, K, D] -> [..., 3, K · G, D]
        queries, key_value = a[..., :3, :, :], np.repeat(a[..., 3:, :, :], 3, axis=-2)
        queries = queries.swapaxes(-3, -2).reshape(*a.shape[:-3], 1, 6, HD)
        wide["qkv"][name] = np.concatenate([queries, key_value], axis=-3)
    shapes = jax.tree.map(np.shape, params_of(multi, X))
    assert jax.tree.map(np.shape, wide) == shapes and shapes["qkv"]["kernel"] == (D, 3, 6, HD)
    y = grouped.apply({"params": params}, X)
    np.testing.assert_allclose(y, multi.apply({"params": wide}, X), rtol=1e-5, atol=1e-5)


def test_bf16_is_near_fp32_and_differs():
    params = jax.tree.map(lambda a: a * 0.3, params_of(Attention(3), X))
    wide = Attention(3).apply({"params": params}, X)
    narrow = Attention(3, dtype="bfloat16").apply({"params": params}, X)
    error = np.abs(wide - narrow).max() / np.abs(wide).max()
    assert 1e-5 < error < 2e-2


@pytest.mark.parametrize(
    ("layer", "args", "message"),
    [
        (Attention(5), (), "width 12 is not a multiple of heads 5"),
        (Attention(4, 3), (), "heads 4 is not a multiple of kv_heads 3"),
        (Attention(3), (CONTEXT,), "given a kv: set cross"),
        (Attention(3, cross=True), (), "needs a kv"),
    ],
)
def test_bad_settings_are_refused(layer, args, message):
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), X, *args)


@pytest.mark.parametrize(("kv_heads", "args"), [(3, ()), (1, ()), (3, (CONTEXT,))])
def test_without_a_bias_of_the_keys(kv_heads, args):
    """It is as with any such bias, which adds the same to all logits of a query."""
    fields = {"kv_heads": kv_heads, "cross": bool(args)}
    layer, biased = Attention(3, **fields, key_bias=False), Attention(3, **fields)
    params = params_of(layer, X, *args)
    name = "key_value" if args else "qkv"
    bias = params[name]["bias"]
    row = RNG.normal(size=bias.shape[1:]).astype(np.float32)
    whole = {**params[name], "bias": np.insert(bias, len(bias) - 1, row, axis=0)}
    want = biased.apply({"params": {**params, name: whole}}, X, *args)
    found = layer.apply({"params": params}, X, *args)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_one_head_after_the_other(kv_heads):
    """The same result and gradients as all at once."""
    query = RNG.normal(size=(B, L, kv_heads, 4 // kv_heads, HD)).astype(np.float32)
    key, value = RNG.normal(size=(2, B, kv_heads, S, HD)).astype(np.float32)

    def both(attend):
        def loss(*args):
            y = attend(*args)
            return jnp.sum(y**2), y

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(query, key, value)

    want, found = both(lambda *args: attention.attend(*args)[0]), both(attention.attend_by_head)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, want)


def test_long_attention_is_computed_head_by_head(monkeypatch):
    """A mask or a bias keeps it whole."""
    layer = Attention(3)
    params = params_of(layer, X)
    want = layer.apply({"params": params}, X)
    calls = []
    real = attention.attend_by_head
    monkeypatch.setattr(attention, "MANY", 1)
    monkeypatch.setattr(attention, "attend_by_head", lambda *args: calls.append(1) or real(*args))
    np.testing.assert_allclose(layer.apply({"params": params}, X), want, rtol=1e-5, atol=1e-5)
    assert calls == [1]
    layer.apply({"params": params}, X, mask=np.ones((B, L), bool))
    layer.apply({"params": params}, X, mutable=["intermediates"])
    assert calls == [1]
