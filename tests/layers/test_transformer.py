import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import parameters
from flax.core import meta

from mmjax.layers.block import Block
from mmjax.layers.platform import CPU, compiling_for
from mmjax.layers.stochastic_depth import stochastic_depth
from mmjax.layers.transformer import Transformer

DEPTH, H, D = 3, 2, 8
X = np.random.default_rng(0).normal(size=(4, 5, D)).astype(np.float32)
MASK = np.arange(5)[None] < np.asarray([5, 3, 1, 4])[:, None]


def make(**kwargs):
    model = Transformer(DEPTH, H, 16, causal=True, **kwargs)
    return model, parameters(model, X, MASK)


def run(model, params, x, *args, **kwargs):
    """The stack's output; jitted, as compiling each operation alone is slow."""
    return jax.jit(lambda p: model.apply({"params": p}, x, *args, **kwargs))(params)


def loop(params, x, norm):
    """The blocks one after the other, each with its own slice."""
    for i in range(DEPTH):
        layer = jax.tree.map(lambda a, i=i: a[i], params["layers"])
        x, _ = Block(H, 16, causal=True, norm=norm).apply({"params": layer}, x, None, MASK)
    return x


def value_and_grads(apply, params):
    return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(apply(p)))))(params)


@functools.cache
def one_by_one(norm):
    return value_and_grads(lambda p: loop(p, X, norm), make(norm=norm)[1])


@pytest.mark.parametrize(
    ("norm", "remat", "unrolled"),
    [
        ("pre", "none", True),
        ("pre", "none", False),
        ("post", "none", True),
        ("post", "none", False),
        ("pre", "full", True),  # with remat there is always a loop
        ("pre", "dots", True),
        ("post", "dots", True),
    ],
)
def test_the_stack_is_its_blocks_one_by_one(norm, remat, unrolled):
    model, params = make(remat=remat, norm=norm)
    with compiling_for(dataclasses.replace(CPU, unrolled_layers=unrolled)):
        value, grads = value_and_grads(lambda p: model.apply({"params": p}, X, MASK), params)
    expected, expected_grads = one_by_one(norm)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, expected_grads)


def test_parameters_are_stacked_under_one_name_and_differ_by_layer():
    boxed = jax.jit(Transformer(DEPTH, H, 16).init)(jax.random.key(0), X)["params"]
    for box in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, meta.AxisMetadata)):
        assert box.names[0] == "layers" and box.value.shape[0] == DEPTH
    kernel = meta.unbox(boxed)["layers"]["mlp"]["up"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1


def test_attention_of_every_layer_is_sown():
    model, params = make()
    _, sown = run(model, params, X, MASK, mutable=["intermediates"])
    weights = sown["intermediates"]["layers"]["attention"]["attention_weights"][0]
    assert weights.shape == (DEPTH, 4, H, 5, 5)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)


def test_dropout_needs_train_and_changes_with_its_key():
    model, params = make(dropout=0.5)
    still = run(model, params, X, MASK)
    np.testing.assert_allclose(still, run(make()[0], params, X, MASK))
    one, two = (
        run(model, params, X, MASK, train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 1)
    )
    assert np.abs(one - still).max() > 1e-2 and np.abs(one - two).max() > 1e-2


def test_unknown_remat_raises():
    with pytest.raises(ValueError, match="Unknown remat 'some'"):
        make(remat="some")


def test_stochastic_depth_drops_whole_examples_at_its_rate_and_keeps_the_mean():
    n, rate = 20_000, 0.3
    y = np.asarray(stochastic_depth(jnp.ones((n, 2, 3)), jnp.float32(rate), jax.random.key(0)))
    assert (y == y[:, :1, :1]).all()  # an example is whole or gone
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    # standard deviations of a share and of a mean of n Bernoulli draws
    assert abs((y[:, 0, 0] == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)
    assert abs(y.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / n)


def test_stochastic_depth_grows_linearly_over_the_depth():
    # With every branch adding a constant c > 0, the drops of layer i can be counted.
    model = Transformer(DEPTH, H, 16, stochastic_depth=0.6)
    x = jnp.zeros((3000, 1, D))
    params = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), x[:1])["params"])
    params = jax.tree.map(lambda p: jnp.zeros(p.shape), params)
    biases = jnp.asarray([1.0, 10.0, 100.0])[:, None] * jnp.ones((DEPTH, D))
    params["layers"]["mlp"]["down"]["bias"] = biases
    y = run(model, params, x, train=True, rngs={"dropout": jax.random.key(1)})
    total = np.asarray(y)[:, 0, 0]
    rates = [0.0, 0.3, 0.6]
    kept = np.zeros((len(total), DEPTH), bool)
    for i in reversed(range(DEPTH)):
        part = 10.0**i / (1 - rates[i])
        kept[:, i] = total >= part - 1e-3
        total = total - part * kept[:, i]
    np.testing.assert_allclose(total, 0, atol=1e-3)
    np.testing.assert_allclose(1 - kept.mean(0), rates, atol=5 * 0.5 / np.sqrt(3000))
