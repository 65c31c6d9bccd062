import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.layers.linear import Linear, add_bias, linear
from mmjax.layers.platform import compiling_for


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


@pytest.mark.parametrize(
    "x, kernel, outputs, equation",
    [
        ((3, 5, 4), (4, 6), 1, "bli,io->blo"),
        ((3, 5, 4), (4, 3, 2, 5), 3, "bli,iqhd->blqhd"),
        ((3, 5, 2, 4), (2, 4, 6), 1, "blhd,hdo->blo"),
        ((3, 4), (4, 6), 1, "bi,io->bo"),
        ((1, 1, 4), (4, 3, 2, 5), 3, "bli,iqhd->blqhd"),  # one row goes another way on CPU
        ((1, 5), (5, 6), 1, "bi,io->bo"),
    ],
)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_value_and_gradients_are_those_of_einsum(x, kernel, outputs, equation, dtype, tolerance):
    x, kernel = arrays(x, kernel)
    bias, g = arrays(kernel.shape[kernel.ndim - outputs :], np.einsum(equation, x, kernel).shape)

    def f(x, kernel, bias):
        return jnp.sum(linear(x, kernel, bias, outputs=outputs, dtype=dtype) * g)

    y = linear(x, kernel, bias, outputs=outputs, dtype=dtype)
    scale = np.abs(np.einsum(equation, x, kernel)).max()
    expected = np.einsum(equation, x.astype(np.float64), kernel) + bias
    np.testing.assert_allclose(y, expected, atol=tolerance * scale)

    dx, dkernel, dbias = jax.grad(f, (0, 1, 2))(x, kernel, bias)
    left, right = equation.split("->")[0].split(",")
    out = equation.split("->")[1]
    expected = np.einsum(f"{out},{right}->{left}", g, kernel)
    np.testing.assert_allclose(dx, expected, atol=tolerance * np.abs(expected).max())
    expected = np.einsum(f"{left},{out}->{right}", x, g)
    np.testing.assert_allclose(dkernel, expected, atol=tolerance * np.abs(expected).max())
    expected = g.reshape(-1, *bias.shape).sum(0)
    np.testing.assert_allclose(dbias, expected, rtol=1e-5, atol=1e-5)


def test_a_bf16_bias_has_a_gradient_summed_in_fp32_on_tpus_too():
    """There it is a product with ones: bf16 sums of 4,096 values would be off by 1e-2."""
    (dy,) = arrays((4096, 3, 2, 5))
    dy, bias = jnp.asarray(np.abs(dy), jnp.bfloat16), jnp.zeros((3, 2, 5))
    expected = np.asarray(dy, np.float64).sum(0)
    for platform in ("tpu", "gpu"):
        with compiling_for(platform):
            dbias = jax.jit(jax.vjp(lambda b: add_bias(jnp.zeros_like(dy), b), bias)[1])(dy)[0]
        np.testing.assert_allclose(dbias, expected, rtol=1e-5)


def test_bf16_rounds_the_operands_and_nothing_else():
    x, kernel = arrays((2, 3, 64), (64, 8))
    rounded = [
        np.asarray(jnp.asarray(a).astype(jnp.bfloat16).astype(jnp.float32)) for a in (x, kernel)
    ]
    y = linear(x, kernel, dtype="bfloat16")
    assert y.dtype == jnp.float32  # the CPU policy
    np.testing.assert_allclose(y, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-5)
    assert np.abs(y - x @ kernel).max() > 1e-3  # and they are rounded


def test_gradient_of_a_bf16_input_is_bf16():
    x, kernel = arrays((2, 3, 4), (4, 5))
    dx = jax.grad(lambda x: linear(x, kernel, dtype="bfloat16").sum())(jnp.asarray(x, jnp.bfloat16))
    assert dx.dtype == jnp.bfloat16


def test_axes_are_named_and_the_initial_scale_is_that_of_the_matrix():
    layer = Linear((3, 4, 16), ("embed", "qkv", "heads", "head_dim"))
    params = layer.init(jax.random.key(0), jnp.zeros((1, 2, 256)))["params"]
    assert params["kernel"].names == ("embed", "qkv", "heads", "head_dim")
    assert params["bias"].names == ("qkv", "heads", "head_dim")
    kernel = meta.unbox(params)["kernel"]
    assert kernel.shape == (256, 3, 4, 16)
    np.testing.assert_allclose(np.std(kernel), 256**-0.5, rtol=0.02)  # LeCun: 1/sqrt(fan in)


def test_an_unknown_axis_name_raises():
    with pytest.raises(ValueError, match="embd.*Did you mean 'embed'"):
        Linear((4,), ("embd", "mlp")).init(jax.random.key(0), jnp.zeros((1, 2, 4)))
