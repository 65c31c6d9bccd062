"""Two small towers for tests of the step: losses by hand, gradients with and without `step`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax import step
from mmjax.system import System, seed_data
from mmjax.variables import abstract_variables, initial_params, sharded_variables

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def assert_trees_close(got, want, **tolerance):
    """Equal but for `tolerance`; atol is a share of each array's largest value, at least 1e-2."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(got)[0], jax.tree.leaves(want)):
        a, b = np.asarray(a), np.asarray(b)
        scale = max(np.abs(b).max(initial=0), 1e-2)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a / scale, b / scale, err_msg=name, **(tolerance or CLOSE))


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
