"""The step against plain jax.grad, closed forms, and itself on other meshes."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax import sharding, step
from mmjax.layers.platform import compiling_for
from mmjax.models.clip import contrastive
from mmjax.optim import optimizer as optim
from mmjax.system import System, seed_data
from mmjax.variables import (
    abstract_variables,
    initial_params,
    make_state_function,
    sharded_variables,
)

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def assert_trees_close(got, want, **tolerance):
    """Equal but for `tolerance`; atol is a share of each array's largest value, at least 1e-2."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(got)[0], jax.tree.leaves(want)):
        a, b = np.asarray(a), np.asarray(b)
        scale = max(np.abs(b).max(initial=0), 1e-2)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a / scale, b / scale, err_msg=name, **(tolerance or CLOSE))


def assert_trees_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


# ---- losses written out by hand


def softmax_by_hand(out, batch):
    logits = out["logit_scale"] * out["image_embed"] @ out["text_embed"].T
    diagonal = jnp.diagonal(logits)
    rows = jax.nn.logsumexp(logits, axis=1) - diagonal
    columns = jax.nn.logsumexp(logits, axis=0) - diagonal
    return (rows.mean() + columns.mean()) / 2


def sigmoid_by_hand(out, batch):
    logits = out["logit_scale"] * out["image_embed"] @ out["text_embed"].T + out["logit_bias"]
    signs = 2 * jnp.eye(logits.shape[0]) - 1
    return -jax.nn.log_sigmoid(signs * logits).sum() / logits.shape[0]


def cross_entropy_by_hand(out, batch):
    return -(batch["label_probs"] * jax.nn.log_softmax(out["logits"])).sum() / len(out["logits"])


def coupled(out, batch):
    """No sum over examples, and not linear in the scalar."""
    gram = jnp.tanh(out["image_embed"] @ out["text_embed"].T)
    return jnp.linalg.norm(gram) * gram.sum() * jnp.square(out["logit_scale"]) / 64


class Towers(nn.Module):
    """Two small nonlinear towers, so that a gradient compiles at once; as CLIP in all else."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, batch, *, train=False):
        out = {}
        for name, names in (("image", ("embed", "mlp")), ("text", ("embed", None))):
            x = batch[name].astype(jnp.float32)
            kernel = nn.with_logical_partitioning(nn.initializers.normal(1.0), names)
            x = jnp.tanh(x @ self.param(name, kernel, (x.shape[-1], 4)))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            out[f"{name}_embed"] = x / jnp.sqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)
        for name, value in (("logit_scale", 3.0), ("logit_bias", -1.0)):
            init = nn.with_logical_partitioning(nn.initializers.constant(value), ())
            out[name] = self.param(name, init, ())
        return out


SPEC = {k: jax.ShapeDtypeStruct((1, 6), np.float32) for k in ("image", "text")}


def pairs(seed=0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=(8, 6)), jnp.float32) for k in SPEC}


def towers_params(model=Towers()):
    return initial_params(model, SPEC, 7)


def abstract_params():
    return abstract_variables(Towers(), SPEC)["params"]


def sharded(params, mesh):
    """The parameters of the towers on a mesh."""
    placed = sharded_variables(Towers(), SPEC, mesh)["params"]
    return jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), params, placed)


def numbers(seed=0, weights=None, learning_rate=0.1, weight_decay=0.0, ema_decay=0.0):
    """What a step takes from a config."""
    weights = {"contrastive": 1.0} if weights is None else weights
    rates = (np.float32(x) for x in (learning_rate, weight_decay, ema_decay))
    return step.Numbers(seed_data(seed), *rates, {k: np.float32(w) for k, w in weights.items()})


def gradients_of(model, loss, weights, microbatches=1):
    """(params, batch, seed) -> `Gradients` of the first step."""
    gradients = step.make_gradients(
        model,
        System(model, SPEC, loss),
        frozen=jax.tree.map(lambda _: False, abstract_params()),
        microbatches=microbatches,
    )

    @jax.jit
    def found(params, batch, given):
        state = step.first_state(params, {}, optax.identity(), ema=False)
        return gradients(state, batch, given)[0]

    return lambda params, batch, seed=0: found(params, batch, numbers(seed, weights))


@functools.partial(jax.jit, static_argnums=2)
def plain_gradient(params, batch, hand):
    """(loss, gradients) of a loss by hand, with nothing of `step`."""
    return jax.value_and_grad(lambda p: hand(Towers().apply({"params": p}, batch), batch))(params)


# ---- gradients

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


# ---- the update


def make(model, optimizer, loss=contrastive(), *, frozen=None, **given):
    """(initial state, jitted step, gradients) of a model over SPEC; `given` goes to `numbers`."""
    system = System(model, SPEC, loss)
    frozen = frozen or jax.tree.map(lambda _: False, abstract_params())
    gradients = step.make_gradients(model, system, frozen=frozen)
    init = make_state_function(model, SPEC, optimizer, ema=given.get("ema_decay", 0) > 0)
    update = jax.jit(step.make_train_step(system, gradients, optimizer))
    fixed = numbers(**given)
    return init(seed_data(7)), lambda *args: update(*args, fixed), gradients


def test_sgd_step_and_moving_average_in_closed_form():
    """p ← p − lr g with jax.grad's g; the average is d^n p_0 + (1 − d) Σ d^(n−k) p_k."""
    decay, lr = 0.9, 0.1
    state, update, _ = make(Towers(), optax.sgd(lr), ema_decay=decay)
    assert_trees_identical(state.params, towers_params())
    assert_trees_identical(state.average, state.params)
    path = [state.params]
    for i in range(3):
        _, grads = plain_gradient(path[-1], pairs(i), softmax_by_hand)
        path.append(jax.tree.map(lambda p, g: p - lr * g, path[-1], grads))
        state, _ = update(state, pairs(i))
    assert int(state.step) == 3
    assert_trees_close(state.params, path[-1])
    average = jax.tree.map(
        lambda *p: decay**3 * p[0] + (1 - decay) * sum(decay ** (3 - k) * p[k] for k in (1, 2, 3)),
        *path,
    )
    assert_trees_close(state.average, average)


@pytest.mark.parametrize(
    ("start", "sign", "frozen", "path"),
    [
        (4.5, -1.0, False, [4.6, 4.605, 4.605]),  # up to the limit, and no further
        (5.0, -1.0, False, [4.605, 4.605, 4.605]),  # as from a file: back at the first update
        (5.0, 1.0, False, [4.605, 4.505, 4.405]),  # from there on it descends
        (5.0, -1.0, True, [5.0, 5.0, 5.0]),
    ],
)
def test_no_update_takes_a_parameter_above_its_limit(start, sign, frozen, path):
    """SGD on ± the scale itself: steps of 0.1, clipped after each as by torch's clamp_."""

    def loss(outputs, batch, context):
        return {"contrastive": sign * outputs["logit_scale"]}

    system = System(Towers(), SPEC, loss, limits={"logit_scale": 4.605})
    masks = jax.tree.map(lambda _: False, abstract_params()) | {"logit_scale": frozen}
    gradients = step.make_gradients(system.model, system, frozen=masks)
    update = jax.jit(step.make_train_step(system, gradients, optax.sgd(0.1)))
    params = towers_params() | {"logit_scale": jnp.float32(start)}
    state, found = step.first_state(params, {}, optax.sgd(0.1), ema=False), []
    for _ in path:
        state, _ = update(state, pairs(), numbers())
        found.append(float(state.params["logit_scale"]))
    np.testing.assert_allclose(found, path, rtol=1e-6)


@pytest.mark.parametrize("evaluate", [True, False])
def test_the_average_is_evaluated_where_there_is_one_and_the_config_says_so(evaluate):
    config = toy.config("vit", ema={"decay": 0.9, "evaluate": evaluate})
    run = toy.build(config)
    state = toy.drawn(run)
    assert run.eval_variables(state) == {"params": state.average if evaluate else state.params}
    assert run.eval_variables(state.replace(average=None)) == {"params": state.params}


def test_randomness_comes_from_seed_and_step_alone():
    def losses(seed):
        state, update, _ = make(Towers(dropout=0.5), optax.sgd(0.0), seed=seed)
        found = []
        for _ in range(2):
            state, scalars = update(state, pairs())
            found.append(float(scalars["loss"]))
        return found

    first = losses(seed=1)
    assert first == losses(seed=1)
    assert first[0] != first[1]  # another step, another draw
    assert first[0] != losses(seed=2)[0]


def test_frozen_parameters_do_not_move_by_a_bit():
    config = {
        "learning_rate": 0.1,
        "schedule": "constant",
        "freeze": ("image", "logit_scale"),
        "weight_decay": 0.3,
        "weight_decay_include": ("image", "text"),
    }
    abstract = abstract_params()
    optimizer, _ = optim.make_optimizer(config, abstract, total_steps=10)
    frozen = optim.frozen_mask(config, abstract)
    loss = contrastive(kind="sigmoid")
    state, update, _ = make(Towers(), optimizer, loss, frozen=frozen, weight_decay=0.3)
    start = state.params
    _, want = plain_gradient(start, pairs(), sigmoid_by_hand)
    state, scalars = update(state, pairs())
    # The norm that is logged is that of the free gradients.
    norm = jnp.sqrt(jnp.square(want["text"]).sum() + want["logit_bias"] ** 2)
    np.testing.assert_allclose(scalars["grad_norm"], norm, rtol=1e-5)
    state, _ = update(state, pairs(1))
    for name in ("image", "logit_scale"):
        assert_trees_identical(state.params[name], start[name])
    for name in ("text", "logit_bias"):
        assert np.all(np.asarray(state.params[name]) != np.asarray(start[name]))


# ---- not finite


@pytest.fixture(params=["cpu", "tpu"])
def guarded(request):
    """By a branch on CPUs, by a select on TPUs."""
    with compiling_for(request.param):
        yield


def test_a_select_updates_as_a_branch_does():
    states, branches = [], []
    for platform in ("cpu", "tpu"):
        with compiling_for(platform):
            config = {"learning_rate": 0.1, "schedule": "constant"}
            adamw, _ = optim.make_optimizer(config, abstract_params(), 10)
            state, update, _ = make(Towers(), adamw, ema_decay=0.9)
            branches.append(str(jax.make_jaxpr(update)(state, pairs())).count("cond["))
            states.append(update(state, pairs())[0])
    assert branches[0] == branches[1] + 1  # the loss has some of its own
    assert_trees_close(*states)
    assert int(states[1].step) == 1


def test_a_nan_batch_leaves_the_state_and_is_named(guarded):
    def loss(out, batch, context):
        terms = contrastive()(out, batch, context)
        return (
            {"a_finite_one": out["logit_scale"]}
            | terms
            | {"contrastive": terms["contrastive"] * batch["weight"].mean()}
        )

    config = {"learning_rate": 0.1, "schedule": "constant"}
    adamw, _ = optim.make_optimizer(config, abstract_params(), 10)
    state, update, gradients = make(Towers(), adamw, loss, ema_decay=0.9)
    good = pairs() | {"weight": jnp.ones(8)}
    bad = good | {"weight": jnp.ones(8).at[3].set(jnp.nan)}
    before, _ = update(state, good)
    assert bool(before.finite)

    state, scalars = update(before, bad)
    assert np.isnan(scalars["loss"])
    assert not bool(state.finite)
    assert_trees_identical(state.replace(finite=before.finite), before)
    state, _ = update(state, good)  # sticky: the good batch changes nothing
    assert not bool(state.finite)
    assert_trees_identical(state.replace(finite=before.finite), before)

    def found(batch, **params):
        broken = state.replace(params=state.params | params)
        return step.diagnose(gradients, broken, batch, numbers())

    assert found(good) is None
    assert found(bad) == "loss: contrastive [] (1 NaN, 0 infinite of 1)"
    image = state.params["image"]
    assert found(bad, image=image.at[1, 2].set(jnp.inf)) == (
        "parameters: image [6, 4] (0 NaN, 1 infinite of 24)"
    )
    assert found(bad | {"text": bad["text"].at[5].set(jnp.nan)}).startswith(
        "outputs: text_embed [8, 4] (4 NaN"
    )


def test_a_gradient_that_is_not_finite_is_caught_where_the_loss_is(guarded):
    """The gradient of sqrt at 0 is infinite, and its value is 0."""

    def loss(out, batch, context):
        return {"contrastive": jnp.sqrt(jnp.square(out["logit_bias"] + 1.0)) + out["logit_scale"]}

    state, update, gradients = make(Towers(), optax.sgd(0.1), loss)
    after, scalars = update(state, pairs())
    assert np.isfinite(scalars["loss"])
    assert not bool(after.finite)
    assert_trees_identical(after.params, state.params)
    said = step.diagnose(gradients, after, pairs(), numbers())
    assert said.startswith("gradients: logit_bias [] (1 NaN")


# ---- on meshes


EMA = {"decay": 0.9}
OPTIM = {"grad_clip_norm": 1.0, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def on_one_device():
    """(state after 3 steps, their scalars, batches), on one device."""
    run = toy.build(toy.config(depth=1, optim=OPTIM, ema=EMA, seed=5))
    batches = [toy.batch(run.config, seed=i) for i in range(3)]
    state, history = toy.take_steps(run, toy.drawn(run), batches)
    return jax.tree.map(np.asarray, state), history, batches


def test_a_seed_gives_the_same_parameters_on_every_mesh():
    config = toy.config("vit", depth=1, seed=5)
    one = toy.init(toy.build(config)).params
    for mesh in ("data=8", "data=2,fsdp=2,tensor=2"):
        assert_trees_identical(toy.init(toy.build(config, toy.MESHES[mesh])).params, one)


@pytest.mark.parametrize("mesh", toy.MESHES)
def test_three_steps_on_any_mesh_are_those_of_one_device(mesh, on_one_device):
    end, history, batches = on_one_device
    run = toy.build(toy.config(depth=1, optim=OPTIM, ema=EMA, seed=5), toy.MESHES[mesh])
    state, scalars = toy.take_steps(run, toy.drawn(run), batches)
    for got, want in zip(scalars, history):
        assert got.keys() == want.keys()
        for k in want:
            np.testing.assert_allclose(got[k], want[k], rtol=1e-5, atol=1e-6, err_msg=k)
    assert_trees_close(state.params, end.params, rtol=1e-5, atol=1e-5)
    assert_trees_close(state.average, end.average, rtol=1e-5, atol=1e-5)
    for leaf, want in zip(jax.tree.leaves(state), jax.tree.leaves(run.state)):
        assert leaf.sharding.is_equivalent_to(want.sharding, leaf.ndim)


@pytest.mark.parametrize("freeze", [(), ("image/transformer/.*",)])
def test_state_is_split_like_its_parameters(freeze):
    config = toy.config(optim={"freeze": freeze}, ema=EMA)
    run = toy.build(config, toy.MESHES["data=2,fsdp=2,tensor=2"])
    up = run.params["text"]["transformer"]["layers"]["mlp"]["up"]
    assert up["kernel"].shape == (2, 16, 32)  # layers, embed (fsdp), mlp (tensor)
    frozen = optim.frozen_mask(config.optim, run.params)
    moments = {"mu": 0, "nu": 0}
    lies = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(run.params)[0]:
        lies[jax.tree_util.keystr(path)] = leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(run.state)[0]:
        name = jax.tree_util.keystr(path)
        owner = [k for k in lies if name.endswith(k)]
        if owner:
            assert leaf.shape == lies[owner[0]].shape
            assert leaf.sharding == lies[owner[0]].sharding
            for moment in moments:
                moments[moment] += f".{moment}[" in name
        else:
            assert leaf.sharding.is_fully_replicated
    free = len(jax.tree.leaves(run.params)) - sum(jax.tree.leaves(frozen))
    assert moments == {"mu": free, "nu": free}

    if freeze:
        return
    state = run.init()
    for tree in (state.params, state.average):
        kernel = tree["text"]["transformer"]["layers"]["mlp"]["up"]["kernel"]
        assert {s.data.shape for s in kernel.addressable_shards} == {(2, 8, 16)}
    big = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (2, 16, 32)]
    assert len(big) == 4  # mu and nu of image and text
    assert {s.data.shape for x in big for s in x.addressable_shards} == {(2, 8, 16)}


def test_mesh_that_does_not_divide_a_parameter_or_the_batch():
    with pytest.raises(ValueError, match=r"Parameter .* has 2 along 'heads'.*multiple of 8"):
        toy.build(toy.config(), {"data": 1, "fsdp": 1, "tensor": 8})
    with pytest.raises(ValueError, match=r"config.batch_size is 12.*splits in 8: use 8 or 16"):
        toy.build(toy.config(batch_size=12), {"data": 8, "fsdp": 1, "tensor": 1})
    with pytest.raises(ValueError, match=r"batch_size is 8, .*3 microbatches .*: use 6 or 9"):
        toy.build(toy.config(microbatches=3))


def test_a_parameter_without_names_is_refused():
    class Bare(nn.Module):
        @nn.compact
        def __call__(self, batch, *, train=False):
            return {"x": self.param("w", nn.initializers.ones, (3,))}

    with pytest.raises(ValueError, match=r"Parameter w \[3\] has no logical axes"):
        sharded_variables(Bare(), SPEC, sharding.make_mesh())
