"""FLOPs of traced programs against closed forms and XLA's own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmjax import sharding
from mmjax.plan import flops

A = jax.ShapeDtypeStruct((8, 16), jnp.float32)
B = jax.ShapeDtypeStruct((16, 16), jnp.float32)


def count(f, *args, **kwargs):
    return flops.count(jax.make_jaxpr(f)(*args), **kwargs)


def test_matmul_and_batched_einsum():
    assert count(jnp.matmul, A, B).flops == 2 * 8 * 16 * 16
    q = jax.ShapeDtypeStruct((2, 5, 3, 4), jnp.float32)
    assert count(lambda q: jnp.einsum("bqhd,bkhd->bhqk", q, q), q).flops == 2 * 2 * 3 * 5 * 5 * 4

    def both(q, b):
        weights = jnp.einsum("bqhd,bkhd->bhqk", q, q)
        return weights, q.reshape(2 * 5 * 3, 4) @ b

    b = jax.ShapeDtypeStruct((4, 7), jnp.float32)
    assert count(both, q, b, batched_products=False).flops == 2 * (2 * 5 * 3) * 4 * 7


def test_loops_branches_and_remat():
    one = 2 * 8 * 16 * 16

    def f(a, b):
        a = jax.lax.scan(lambda a, _: (jnp.tanh(a @ b), None), a, length=5)[0]
        a = jax.lax.cond(a[0, 0] > 0, lambda a: a @ b @ b, lambda a: a, a)
        return jax.jit(lambda a: a @ b)(a).sum()

    assert count(f, A, B).flops == 8 * one
    # Backwards twice as many for a and b; remat does the forward again.
    layer = lambda a, b: jnp.tanh(jnp.tanh(a @ b) @ b)  # noqa: E731
    grad = lambda f: jax.value_and_grad(lambda a, b: f(a, b).sum(), argnums=(0, 1))  # noqa: E731
    assert count(grad(layer), A, B).flops == 6 * one
    assert 6 * one < count(grad(jax.checkpoint(layer)), A, B).flops <= 8 * one


def test_convolution_is_what_xla_counts():
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    k = jax.ShapeDtypeStruct((4, 4, 3, 5), jnp.float32)

    def f(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert count(f, x, k).flops == 2 * (2 * 2 * 2 * 5) * (4 * 4 * 3)


def test_a_shard_map_counts_all_devices():
    mesh = sharding.make_mesh()
    f = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    assert count(f, A, B).flops == 2 * 8 * 16 * 16


def test_the_roofline_takes_the_slower_of_flops_and_bytes():
    work, moved = 2 * 8 * 16 * 16, 4 * (8 * 16 + 16 * 16 + 8 * 16)
    assert count(jnp.matmul, A, B, peak=1.0, bandwidth=1e9).seconds == work
    assert count(jnp.matmul, A, B, peak=1e9, bandwidth=1.0).seconds == moved


@pytest.mark.parametrize("length", [1, 4])
def test_a_model_is_what_xla_counts_of_it_unrolled(length):
    """XLA counts elementwise work too: a few per cent here."""
    x = jax.ShapeDtypeStruct((64, 128), jnp.float32)
    w = jax.ShapeDtypeStruct((length, 128, 128), jnp.float32)

    def f(x, w):
        return jax.lax.scan(lambda x, w: (jnp.maximum(x @ w, 0), None), x, w)[0].sum()

    def unrolled(x, w):
        for i in range(length):
            x = jnp.maximum(x @ w[i], 0)
        return x.sum()

    xla = jax.jit(jax.grad(unrolled, argnums=(0, 1))).lower(x, w).cost_analysis()["flops"]
    np.testing.assert_allclose(count(jax.grad(f, argnums=(0, 1)), x, w).flops, xla, rtol=0.05)


def test_what_no_result_needs_does_not_count():
    """As the compiler leaves it out: here the first product, and the second of a jitted call."""

    def f(a, b):
        a @ b
        return jax.jit(lambda a: (a @ b, b @ b))(a)[0].sum()

    assert count(f, A, B).flops == 2 * 8 * 16 * 16 + 2 * 16 * 16 * 16  # the call keeps its results
