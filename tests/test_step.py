"""The update against closed forms, and what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from towers import (
    SPEC,
    Towers,
    abstract_params,
    assert_trees_close,
    numbers,
    pairs,
    plain_gradient,
    sigmoid_by_hand,
    softmax_by_hand,
    towers_params,
)
from train_states import assert_identical

from mmjax import step
from mmjax.layers.platform import compiling_for
from mmjax.models.clip import contrastive
from mmjax.optim import optimizer as optim
from mmjax.system import System, seed_data
from mmjax.variables import make_state_function

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
    assert_identical(state.params, towers_params())
    assert_identical(state.average, state.params)
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


def test_a_limit_may_also_be_a_minimum():
    def loss(outputs, batch, context):
        return {"contrastive": outputs["logit_scale"]}

    system = System(Towers(), SPEC, loss, limits={"logit_scale": (0.5, 2.0)})
    masks = jax.tree.map(lambda _: False, abstract_params())
    gradients = step.make_gradients(system.model, system, frozen=masks)
    update = jax.jit(step.make_train_step(system, gradients, optax.sgd(0.1)))
    params, found = towers_params(), []
    for start in (0.55, 0.7, 3.0):
        params = params | {"logit_scale": jnp.float32(start)}
        state, _ = update(
            step.first_state(params, {}, optax.sgd(0.1), ema=False), pairs(), numbers()
        )
        found.append(float(state.params["logit_scale"]))
    np.testing.assert_allclose(found, [0.5, 0.6, 2.0], rtol=1e-6)


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
        assert_identical(state.params[name], start[name])
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
    assert_identical(state.replace(finite=before.finite), before)
    state, _ = update(state, good)  # sticky: the good batch changes nothing
    assert not bool(state.finite)
    assert_identical(state.replace(finite=before.finite), before)

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
    assert_identical(after.params, state.params)
    said = step.diagnose(gradients, after, pairs(), numbers())
    assert said.startswith("gradients: logit_bias [] (1 NaN")
