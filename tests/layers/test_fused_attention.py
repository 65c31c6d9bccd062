"""The TPU kernel, interpreted on the CPU, beside the attention that writes its logits down."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import parameters

from mmjax import sharding
from mmjax.layers import fused_attention as fused_module
from mmjax.layers.attention import MASKED, Attention
from mmjax.layers.fused_attention import (
    fits,
    fused_attention,
    fused_cross_attention,
    together,
)
from mmjax.layers.platform import compiling_for
from mmjax.layers.rotary import rotary_angles

RNG = np.random.default_rng(0)


def plain(qkv, causal=False, key_mask=None):
    """[B, L, 3, H, D] -> [B, L, H·D], all in fp32."""
    query, key, value = jnp.moveaxis(qkv.astype(jnp.float32), 2, 0)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision="highest")
    seen = jnp.tri(logits.shape[-1], dtype=bool) if causal else jnp.ones(logits.shape[2:], bool)
    seen = seen[None, None]
    seen = seen if key_mask is None else seen & key_mask[:, None, None]
    logits = jnp.where(seen, logits / np.sqrt(query.shape[-1]), MASKED)
    y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), value, precision="highest")
    return y.reshape(*y.shape[:2], -1)


def fused(qkv, **settings):
    return fused_attention(together(qkv), qkv.shape[-1], interpret=True, **settings)


def arrays(batch, length, heads, head_dim, dtype=jnp.float32):
    rng = np.random.default_rng(length)
    qkv = rng.normal(size=(batch, length, 3, heads, head_dim))
    dy = rng.normal(size=(batch, length, heads * head_dim))
    return jnp.asarray(qkv, dtype), jnp.asarray(dy, dtype)


def compare(qkv, dy, tolerance, mesh=None, **settings):
    wide = qkv.astype(jnp.float32), dy.astype(jnp.float32)
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        found = values_and_gradients(functools.partial(fused, **settings), qkv, dy=dy)
    expected = values_and_gradients(functools.partial(plain, **settings), wide[0], dy=wide[1])
    for got, want in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert got.dtype == qkv.dtype
        np.testing.assert_allclose(got.astype(jnp.float32), want, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    "length, causal, masked",
    [(1, True, False), (7, True, True), (77, True, False), (197, False, True)],
)
def test_values_and_gradients(length, causal, masked):
    qkv, dy = arrays(2, length, 2, 64)
    mask = np.arange(length)[None] < np.array([[length], [length // 2 + 1]]) if masked else None
    compare(qkv, dy, 2e-5, causal=causal, key_mask=mask)


@pytest.mark.parametrize("heads, head_dim", [(1, 256), (8, 16)])
def test_sizes_of_heads(heads, head_dim):
    compare(*arrays(1, 9, heads, head_dim), 2e-5)


@pytest.mark.parametrize("length, keys, masked", [(1, 9, False), (17, 5, True), (5, 40, True)])
def test_cross_attention(length, keys, masked):
    """Values, and the gradients of queries, keys and values."""
    rng = np.random.default_rng(length)
    query = jnp.asarray(rng.normal(size=(2, length, 4, 32)), jnp.float32)
    key_value = jnp.asarray(rng.normal(size=(2, keys, 2, 4, 32)), jnp.float32)
    dy = jnp.asarray(rng.normal(size=(2, length, 128)), jnp.float32)
    mask = np.arange(keys)[None] < np.array([[keys], [keys // 2]]) if masked else None

    def by_plain(query, key_value):
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key_value[:, :, 0], precision="highest")
        if masked:
            logits = jnp.where(mask[:, None, None], logits, MASKED)
        weights = jax.nn.softmax(logits / np.sqrt(32))
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, key_value[:, :, 1], precision="highest")
        return y.reshape(2, length, 128)

    def by_kernel(query, key_value):
        query = query.reshape(2, length, 128)
        return fused_cross_attention(query, together(key_value), 32, key_mask=mask, interpret=True)

    for got, want in zip(
        jax.tree.leaves(values_and_gradients(by_kernel, query, key_value, dy=dy)),
        jax.tree.leaves(values_and_gradients(by_plain, query, key_value, dy=dy)),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=2e-5)


def values_and_gradients(f, *arrays, dy):
    def both(dy, *arrays):
        y, vjp = jax.vjp(f, *arrays)
        return y, vjp(dy)

    return jax.jit(both)(dy, *arrays)


def test_bf16_is_near():
    compare(*arrays(2, 33, 2, 64, jnp.bfloat16), 4e-2)


def test_on_a_mesh():
    """Of 8 devices: examples and heads are split."""
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    mask = np.arange(11)[None] <= np.arange(8)[:, None]
    compare(*arrays(8, 11, 4, 64), 2e-5, mesh, key_mask=mask)


def test_nothing_to_look_at_is_the_mean():
    qkv, _ = arrays(1, 5, 2, 64)
    y = fused(qkv, key_mask=np.zeros((1, 5), bool))
    mean = qkv[0, :, 2].mean(0).reshape(-1)
    np.testing.assert_allclose(y[0], np.broadcast_to(mean, y[0].shape), atol=1e-6)


def test_which_sizes_fit():
    assert fits(2, 197, 12, 64)
    assert not fits(2, 197, 3, 64)  # one and a half registers
    assert not fits(2, 197, 16, 80)
    assert not fits(2, 4096, 12, 64)
    with jax.set_mesh(sharding.make_mesh({"data": 2, "tensor": 4})):
        assert fits(2, 197, 8, 64)
        assert not fits(2, 197, 12, 64)  # three heads a device
        assert not fits(3, 197, 8, 64)


LAYERS = {
    "multi-head": ({"causal": True}, {}),
    "rotary": ({"causal": True}, {"angles": rotary_angles(jnp.arange(9)[None], 32, 100.0)}),
    "grouped": ({"kv_heads": 2}, {}),
    "grouped, rotary": ({"kv_heads": 1}, {"angles": rotary_angles(jnp.arange(9)[None], 32, 9.0)}),
    "cross": ({"cross": True}, {"kv": RNG.normal(size=(2, 9, 24)).astype(np.float32)}),
}


MESH = {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("kind", "mesh"),
    [*((kind, None) for kind in LAYERS), ("grouped, rotary", MESH), ("cross", MESH)],
)
def test_the_layer_is_the_same_with_it(monkeypatch, kind, mesh):
    """The same parameters give the same result and gradients; weights are sown as before."""
    settings, given = LAYERS[kind]
    layer = Attention(8 if mesh else 4, head_dim=32, **settings)
    x = RNG.normal(size=(2, 9, 128)).astype(np.float32)
    given = {**given, "mask": np.arange(9)[None] < np.array([[9], [0 if layer.cross else 4]])}
    if mesh:
        mesh = sharding.make_mesh(mesh)
        x, given = jax.tree.map(lambda a: jnp.tile(a, (2, *[1] * (a.ndim - 1))), (x, given))
    if "angles" in given:
        given["angles"] = jnp.broadcast_to(given["angles"][:1], (len(x), 9, 16))
    params = parameters(layer, x, **given)

    def loss(params, x):
        return jnp.square(layer.apply({"params": params}, x, **given)).sum()

    def run():
        with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
            found = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
        sow = functools.partial(layer.apply, **given, mutable=["intermediates"])
        return found, jax.jit(sow)({"params": params}, x)[1]

    expected, calls = run(), []
    name = "fused_cross_attention" if layer.cross else "fused_attention"

    def interpreted(*args, kernel=getattr(fused_module, name), **settings):
        calls.append(args)
        return kernel(*args, interpret=True, **settings)

    monkeypatch.setattr(fused_module, name, interpreted)
    with compiling_for("tpu"):
        found = run()
    assert len(calls) == 1  # and not where weights are sown
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
