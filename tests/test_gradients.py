"""Gradients, whole and in microbatches, against plain jax.grad."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from towers import (
    Towers,
    assert_trees_close,
    coupled,
    cross_entropy_by_hand,
    gradients_of,
    numbers,
    pairs,
    plain_gradient,
    sharded,
    sigmoid_by_hand,
    softmax_by_hand,
    towers_params,
)

from mmjax import sharding, step
from mmjax.models.clip import contrastive

CASES = {
    "softmax": (contrastive(), softmax_by_hand),
    "softmax chunked": (contrastive(implementation="chunked", chunk_size=3), softmax_by_hand),
    "sigmoid": (contrastive(kind="sigmoid"), sigmoid_by_hand),
    "coupled": (lambda out, batch, context: {"contrastive": coupled(out, batch)}, coupled),
}


@pytest.mark.parametrize(
    ("case", "parts"), [*((case, parts) for case in CASES for parts in (1, 4)), ("softmax", 2)]
)
def test_gradients_are_those_of_the_plain_function(case, parts):
    """Whole and in parts: value and gradient of the full batch."""
    loss, hand = CASES[case]
    params, batch = towers_params(), pairs()
    want_loss, want = plain_gradient(params, batch, hand)
    gradients = gradients_of(Towers(), loss, {"contrastive": 1.0}, parts)
    found = gradients(params, batch)
    np.testing.assert_allclose(found.total, want_loss, rtol=1e-5)
    np.testing.assert_allclose(found.terms["contrastive"], want_loss, rtol=1e-5)
    assert_trees_close(found.grads, want, rtol=1e-5, atol=1e-5)


def both_kinds(out, batch, context):
    """Softmax and sigmoid at once: one compilation of the real towers for the two."""
    kinds = ("softmax", "sigmoid")
    terms = {k: contrastive(kind=k)(out, batch, context)["contrastive"] for k in kinds}
    return terms | {"logit_scale": out["logit_scale"]}


REAL = {
    "clip": (
        {"logit_bias_init": -1.0},
        both_kinds,
        {"softmax": 1.0, "sigmoid": 0.5},
        lambda out, batch: softmax_by_hand(out, batch) + 0.5 * sigmoid_by_hand(out, batch),
    ),
    "vit": ({}, None, {"classification": 1.0}, cross_entropy_by_hand),
}


@pytest.mark.parametrize("system", REAL)
def test_gradients_of_the_real_models_in_parts(system):
    model, loss, weights, hand = REAL[system]
    run = toy.build(toy.config(system, depth=1, model=model))
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    # No zeros in them: with a head of zeros the gradient of all before it would be zero.
    params = jax.tree.map(lambda p: 0.2 * jax.random.normal(next(keys), p.shape), run.params)
    batch = jax.tree.map(jnp.asarray, toy.batch(run.config))

    def plain(params, batch):
        return hand(run.model.apply({"params": params}, batch, train=True), batch)

    want_loss, want = jax.jit(jax.value_and_grad(plain))(params, batch)
    gradients = step.make_gradients(
        run.model,
        dataclasses.replace(run.system, loss=loss or run.system.loss),
        frozen=jax.tree.map(lambda _: False, params),
        microbatches=4 if system == "clip" else 2,
    )
    state = step.first_state(params, {}, optax.identity(), ema=False)
    found, _, _ = jax.jit(gradients)(state, batch, numbers(0, weights))
    np.testing.assert_allclose(found.total, want_loss, rtol=1e-5)
    assert_trees_close(found.grads, want, rtol=1e-5, atol=1e-5)


def test_microbatches_draw_the_same_dropout_in_both_passes():
    """Against each part written out, its outputs put in place, and one jax.grad over it all."""
    model, params, batch, parts = Towers(dropout=0.5), towers_params(), pairs(), 2
    rng = jax.random.fold_in(jax.random.key(3), 0)  # of seed 3, step 0

    def written_out(params):
        out = {}
        for i in range(parts):
            part = {k: v[i::parts] for k, v in batch.items()}
            rngs = {"dropout": jax.random.fold_in(rng, i)}
            for k, v in model.apply({"params": params}, part, train=True, rngs=rngs).items():
                if v.ndim:
                    v = out.get(k, jnp.zeros((8, *v.shape[1:]))).at[i::parts].set(v)
                out[k] = v
        return softmax_by_hand(out, batch)

    gradients = gradients_of(model, contrastive(), {"contrastive": 1.0}, parts)
    want_loss, want = jax.jit(jax.value_and_grad(written_out))(params)
    found = gradients(params, batch, 3)
    np.testing.assert_allclose(found.total, want_loss, rtol=1e-5)
    assert_trees_close(found.grads, want, rtol=1e-5, atol=1e-5)
    other = gradients(params, batch, 4)
    assert abs(other.total - found.total) > 1e-4  # the dropout is there at all


def test_microbatches_on_a_mesh_equal_the_whole_batch():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    params, batch = towers_params(), pairs()
    one = gradients_of(Towers(), contrastive(), {"contrastive": 1.0})
    want = one(params, batch)
    parts = gradients_of(Towers(), contrastive(), {"contrastive": 1.0}, microbatches=2)
    with jax.set_mesh(mesh):
        args = sharded(params, mesh), jax.device_put(batch, sharding.batch_sharding(mesh))
        assert args[0]["image"].addressable_shards[0].data.shape == (3, 2)
        got = parts(*args)
    np.testing.assert_allclose(got.total, want.total, rtol=1e-5)
    assert_trees_close(got.grads, want.grads, rtol=1e-5, atol=1e-5)


@settings(max_examples=10)
@given(
    rows=st.integers(1, 4), parts=st.integers(1, 4), more=st.lists(st.integers(1, 3), max_size=2)
)
def test_split_takes_every_nth_row_and_merge_undoes_it(rows, parts, more):
    x = np.arange(rows * parts * np.prod(more, dtype=int)).reshape(rows * parts, *more)
    split = step._split(jnp.asarray(x), parts)
    for i in range(parts):
        np.testing.assert_array_equal(split[i], x[i::parts])
    np.testing.assert_array_equal(step._merge(split), x)


def test_merge_of_a_scalar_output_is_the_first_parts():
    assert step._merge(jnp.asarray([3.0, 4.0])) == 3.0


# ---- weighted_sum


def test_weighted_sum():
    terms = {"a": jnp.float32(2.0), "b": jnp.float32(3.0), "seen": jnp.float32(9.0)}
    assert step.weighted_sum(terms, {"a": 0.5, "b": 2.0}) == 7.0
    with pytest.raises(ValueError, match=r"names \['c'\].*\['a', 'b', 'seen'\]"):
        step.weighted_sum(terms, {"a": 1.0, "c": 1.0})
    with pytest.raises(ValueError, match="names nothing"):
        step.weighted_sum(terms, {})
