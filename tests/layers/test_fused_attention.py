"""The TPU kernel, interpreted on the CPU, beside the attention that writes its logits down."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax import sharding
from mmjax.layers import fused_attention as fused_module
from mmjax.layers.attention import MASKED, Attention
from mmjax.layers.fused_attention import fits, fused_attention, together
from mmjax.layers.platform import compiling_for
from mmjax.layers.rotary import rotary_angles


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
    by_plain = jax.jit(lambda x, dy: jax.vjp(functools.partial(plain, **settings), x)[1](dy)[0])
    f = jax.jit(lambda x, dy: jax.vjp(functools.partial(fused, **settings), x)[1](dy)[0])
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        found = jax.jit(functools.partial(fused, **settings))(qkv), f(qkv, dy)
    expected = jax.jit(functools.partial(plain, **settings))(wide[0]), by_plain(*wide)
    for got, want in zip(found, expected, strict=True):
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


@pytest.mark.parametrize("kv_heads, rotary", [(4, False), (4, True), (2, False), (1, True)])
def test_the_layer_is_the_same_with_it(monkeypatch, kv_heads, rotary):
    """The same parameters give the same result and gradients; weights are sown as before."""
    layer = Attention(4, kv_heads, 32, causal=True)
    angles = rotary_angles(jnp.arange(9)[None], 32, 100.0) if rotary else None
    x = np.random.default_rng(0).normal(size=(2, 9, 128)).astype(np.float32)
    mask = np.arange(9)[None] < np.array([[9], [4]])
    params = meta.unbox(jax.jit(layer.init)(jax.random.key(0), x)["params"])
    params = jax.tree.map(lambda a: a + 0.01 * np.arange(a.size).reshape(a.shape) / a.size, params)

    def loss(params, x):
        return jnp.square(layer.apply({"params": params}, x, mask=mask, angles=angles)).sum()

    expected = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
    sown = {"mask": mask, "angles": angles, "mutable": ["intermediates"]}
    _, expected_weights = layer.apply({"params": params}, x, **sown)
    calls = []

    def interpreted(*args, **settings):
        calls.append(args)
        return fused_attention(*args, interpret=True, **settings)

    monkeypatch.setattr(fused_module, "fused_attention", interpreted)
    with compiling_for("tpu"):
        found = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
        assert len(calls) == 1
        _, weights = layer.apply({"params": params}, x, **sown)
        assert len(calls) == 1
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    for got, want in zip(jax.tree.leaves(weights), jax.tree.leaves(expected_weights), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
