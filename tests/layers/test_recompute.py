"""Recomputed work: the same gradients, and less kept for them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn
from flax.core import meta

from mmjax.layers import platform
from mmjax.layers.attention import Attention
from mmjax.layers.mlp import MLP
from mmjax.layers.recompute import recompute
from mmjax.layers.unet_blocks import ResidualBlock


def test_gradients_are_those_of_the_function():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 3, 4), (4, 5)))
    keep = jnp.asarray([True, False, True, True, False])[None, None]

    def f(x, kernel, keep, nothing):
        assert nothing is None
        return jnp.where(keep, jnp.tanh(x) @ kernel, 0.0)

    def loss(f):
        return lambda x, kernel: jnp.sum(f(x, kernel, keep, None) ** 2)

    wanted = jax.grad(loss(f), (0, 1))(x, kernel)
    found = jax.jit(jax.grad(loss(recompute(f)), (0, 1)))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)


MODULES = {
    "mlp": MLP(64, activation="quick_gelu"),
    "mlp in bf16": MLP(64, dtype="bfloat16"),
    "attention": Attention(2, causal=True),
    "attention in bf16": Attention(2, dtype="bfloat16"),
    "cross-attention": Attention(2, cross=True),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_layer_has_the_same_gradients_with_and_without(name):
    module = MODULES[name]
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    more = (x[:, :3],) if name.startswith("cross") else ()
    params = module.init(jax.random.key(1), x, *more)

    def gradients():
        def loss(params, x):
            return jnp.sum(module.apply(params, x, *more).astype(jnp.float32) ** 2)

        return jax.grad(loss, (0, 1))(params, x)

    cpu = platform.named("cpu")
    found = gradients()
    with platform.compiling_for(cpu.__class__(**{**vars(cpu), "recomputes": False})):
        wanted = gradients()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


@pytest.mark.parametrize("resize", ["", "down", "up"])
def test_a_block_of_a_u_net_has_the_same_gradients_with_and_without(resize):
    module = ResidualBlock(8, groups=2, resize=resize, dropout=0.5 if resize else 0.0, train=True)
    rng = np.random.default_rng(0)
    x, condition = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 4, 6, 4), (2, 3)))
    rngs = {"dropout": jax.random.key(1)}
    shapes = jax.eval_shape(
        lambda: module.init({"params": jax.random.key(0), **rngs}, x, condition)
    )
    params = drawn(meta.unbox(shapes))

    def gradients(params, x, condition):
        def loss(params, x, condition):
            return jnp.sum(jnp.sin(module.apply(params, x, condition, rngs=rngs)))

        return jax.grad(loss, (0, 1, 2))(params, x, condition)

    cpu = platform.named("cpu")
    found = jax.jit(gradients)(params, x, condition)
    with platform.compiling_for(dataclasses.replace(cpu, recomputes=False)):
        wanted = jax.jit(lambda *args: gradients(*args))(params, x, condition)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found, wanted)
    assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(found))


def kept(recomputes, layers=4):
    """Bytes of temporaries of the gradient of layers of tanh between products."""

    def layer(x, kernel):
        return x @ kernel + jnp.tanh(jnp.exp(x)) @ kernel

    def loss(kernels, x):
        for kernel in kernels:
            f = recompute(layer) if recomputes else jax.checkpoint(layer)
            x = f(x, kernel)
        return jnp.sum(x)

    kernels = [jnp.ones((64, 64)) for _ in range(layers)]
    lowered = jax.jit(jax.grad(loss)).lower(kernels, jnp.ones((4096, 64)))
    return lowered.compile().memory_analysis().temp_size_in_bytes


def test_less_is_kept_where_checkpoint_keeps_everything():
    assert kept(True) < 0.8 * kept(False)
