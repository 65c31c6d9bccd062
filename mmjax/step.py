"""The train state, the jitted train and eval steps, exact gradient accumulation, and the EMA."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax.core import meta
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax import batch as batches
from mmjax import guard, sharding
from mmjax.layers import platform

Params = Any
Outputs = Mapping[str, jax.Array]
Loss = Callable[[Outputs, batches.Batch], Mapping[str, jax.Array]]
Gradients = Callable[..., tuple[jax.Array, dict[str, jax.Array], Params]]


@flax.struct.dataclass
class TrainState:
    """All that a run carries from step to step.

    `finite` turns False at the first step whose loss or gradient is not finite and stays so; from
    then on updates do nothing, so that the state is the last good one.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    ema_params: Params | None
    finite: jax.Array

    @property
    def eval_params(self) -> Params:
        """What evaluators and exports use: the moving average if there is one."""
        return self.params if self.ema_params is None else self.ema_params


def _is_box(x: Any) -> bool:
    return isinstance(x, meta.AxisMetadata)


def _unbox(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.value if _is_box(x) else x, tree, is_leaf=_is_box)


def init_function(model: Any, spec: batches.Spec, seed: int) -> Callable[[], Any]:
    """A function without arguments that makes the model's boxed parameters from the seed."""

    def init():
        batch = {k: jnp.zeros((1, *v.shape[1:]), v.dtype) for k, v in spec.items()}
        return model.init({"params": jax.random.key(seed)}, batch)["params"]

    return init


def initial_params(model: Any, spec: batches.Spec, seed: int) -> Params:
    """The model's parameters as the seed makes them, on the default device."""
    return _unbox(jax.jit(init_function(model, spec, seed))())


def abstract_params(model: Any, spec: batches.Spec) -> Params:
    """Shapes and dtypes of the parameters; allocates nothing."""
    return _unbox(jax.eval_shape(init_function(model, spec, 0)))


def laid_out_params(
    model: Any, spec: batches.Spec, mesh: Mesh, allow_uneven: bool = False
) -> Params:
    """`abstract_params` with shardings, from the logical names that its layer gave each.

    Args:
      allow_uneven: an axis that the mesh does not divide stays whole, where else it is refused.

    Raises:
      ValueError: a parameter without names, an unknown name, or an axis that the mesh does not
        divide.
    """
    boxed = jax.eval_shape(init_function(model, spec, 0))

    def lies(path, box):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not _is_box(box):
            if box.shape == ():
                return NamedSharding(mesh, PartitionSpec())
            raise ValueError(f"Parameter {name} {list(box.shape)} names no logical axes.")
        names = box.names
        if allow_uneven:
            names = sharding.divided(mesh, box.value.shape, names)
        sharding.check_divides(mesh, box.value.shape, names, f"Parameter {name}")
        return sharding.named(mesh, *names)

    shardings = jax.tree_util.tree_map_with_path(lies, boxed, is_leaf=_is_box)
    return lay_out(_unbox(boxed), shardings)


def lay_out(abstract: Any, shardings: Any) -> Any:
    """Abstract arrays with the shardings of a tree like theirs."""
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )


def lay_out_state(abstract: TrainState, params: Params, mesh: Mesh) -> TrainState:
    """An abstract state with shardings: what has a parameter's path and shape lies as it does.

    Args:
      abstract: ShapeDtypeStructs of the state.
      params: ShapeDtypeStructs of the parameters, with shardings.
    """
    laid_out, _ = jax.tree_util.tree_flatten_with_path(params)
    by_path = {_path(path): leaf for path, leaf in laid_out}
    replicated = NamedSharding(mesh, PartitionSpec())

    def one(path, leaf):
        keys = _path(path)
        tails = (by_path.get(keys[start:]) for start in range(len(keys)))
        like = next((p for p in tails if p is not None and p.shape == leaf.shape), None)
        lies = replicated if like is None else like.sharding
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies)

    return jax.tree_util.tree_map_with_path(one, abstract)


def _path(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((k,), simple=True) for k in path)


def make_init(
    model: Any,
    spec: batches.Spec,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: bool,
) -> Callable[[], TrainState]:
    """A function without arguments that makes the state of step 0; jit it with out_shardings."""
    init = init_function(model, spec, seed)
    return lambda: first_state(_unbox(init()), optimizer, ema=ema)


def first_state(
    params: Params, optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """The state of step 0 with these parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        finite=jnp.ones((), bool),
    )


def weighted_sum(terms: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
    """The loss: the terms that `config.loss_weights` names, times their weights.

    Raises:
      ValueError: no weights, or one for a term that the system's loss does not return.
    """
    absent = sorted(set(weights) - set(terms))
    if absent or not weights:
        raise ValueError(
            f"config.loss_weights names {absent or 'nothing'}; this system's loss returns "
            f"{sorted(terms)}: weigh at least one of those."
        )
    return sum(weight * terms[name] for name, weight in weights.items())


def make_train_step(
    gradients: Gradients,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, batches.Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The update of one batch, to be jitted: (state, batch) -> (state, scalars).

    Args:
      gradients: from `make_gradients`.
      optimizer: the optax transformation.
      seed: with the step, the only source of randomness.
      ema_decay: of the moving average of the parameters; 0 keeps none.
    """

    def train_step(state: TrainState, batch: batches.Batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        total, terms, grads = gradients(state.params, batch, rng)
        grad_norm = optax.tree.norm(grads)
        finite = state.finite & guard.is_finite(total, grad_norm)

        def update(state):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            ema = state.ema_params
            if ema_decay:
                # So written, the average of what stays as it is stays as it is, to the bit.
                ema = jax.tree.map(lambda e, p: e + (1 - ema_decay) * (p - e), ema, params)
            return TrainState(state.step + 1, params, opt_state, ema, finite)

        kept = state.replace(finite=finite)
        if platform.current().guard_by_select:
            # A select: it fuses into the update, and arrays stay as they lie. What goes through a
            # branch is put row by row first, and back after.
            state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), update(state), kept)
        else:
            # A branch: a select would write a second copy of the whole state.
            state = jax.lax.cond(finite, update, lambda _: kept, state)
        return state, {"loss": total, "grad_norm": grad_norm, **terms}

    return train_step


def make_gradients(
    model: Any,
    loss: Loss,
    *,
    loss_weights: Mapping[str, float],
    frozen: Params,
    microbatches: int = 1,
) -> Gradients:
    """(params, batch, rng) -> (loss, terms, gradients), whole or in microbatches.

    Args:
      model, loss: the system's.
      loss_weights: term -> weight.
      frozen: a tree like the parameters, True where nothing is learnt: their gradients are zeros
        that cost nothing.
      microbatches: the forward and backward passes run in so many parts; the gradient is that of
        the full batch, also for losses that couple its examples.

    In microbatches: first every part's outputs without gradients, then the loss of them all and
    its gradient for the outputs, then each part's backward pass from its slice of that gradient
    (GradCache, Gao et al. 2021, §3.2). Memory is that of one part plus all outputs.
    """

    is_frozen, tree = jax.tree.flatten(frozen)

    def learnt(params):
        return [p for p, f in zip(tree.flatten_up_to(params), is_frozen) if not f]

    def replace(params, learnt):
        new = iter(learnt)
        return tree.unflatten(
            [p if f else next(new) for p, f in zip(tree.flatten_up_to(params), is_frozen)]
        )

    def forward(params, batch, rng):
        return model.apply({"params": params}, batch, train=True, rngs={"dropout": rng})

    def total_loss(outputs, batch):
        terms = dict(loss(outputs, batch))
        return weighted_sum(terms, loss_weights), terms

    def whole(params, batch, rng):
        def f(learnt):
            return total_loss(forward(replace(params, learnt), batch, rng), batch)

        (total, terms), grads = jax.value_and_grad(f, has_aux=True)(learnt(params))
        return total, terms, replace(jax.tree.map(jnp.zeros_like, params), grads)

    def in_parts(params, batch, rng):
        parts = jax.tree.map(lambda x: _split(x, microbatches), batch)
        rngs = jax.vmap(lambda i: jax.random.fold_in(rng, i))(jnp.arange(microbatches))
        _, outputs = jax.lax.scan(lambda _, x: (None, forward(params, *x)), None, (parts, rngs))
        (total, terms), cotangents = jax.value_and_grad(
            lambda outputs: total_loss(jax.tree.map(_merge, outputs), batch), has_aux=True
        )(outputs)
        # A scalar output is the same in every part and the loss reads the first one's; spread its
        # gradient over the parts, each of which recomputes it.
        cotangents = jax.tree.map(
            lambda c: jnp.broadcast_to(c.mean(0, keepdims=True), c.shape) if c.ndim == 1 else c,
            cotangents,
        )

        def backward(grads, x):
            part, part_rng, cotangent = x
            _, vjp = jax.vjp(lambda p: forward(replace(params, p), part, part_rng), learnt(params))
            return jax.tree.map(jnp.add, grads, vjp(cotangent)[0]), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        grads, _ = jax.lax.scan(backward, learnt(zeros), (parts, rngs, cotangents))
        return total, terms, replace(zeros, grads)

    return whole if microbatches == 1 else in_parts


def _split(x: jax.Array, parts: int) -> jax.Array:
    """[B, ...] -> [parts, B / parts, ...], every parts-th row: a sharded B stays where it is."""
    return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)


def _merge(x: jax.Array) -> jax.Array:
    """The inverse of `_split`; of a scalar output, the first part's."""
    if x.ndim == 1:
        return x[0]
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def make_eval_step(model: Any, mesh: Mesh) -> Callable[[Params, batches.Batch], Outputs]:
    """The jitted forward pass without randomness; its outputs are on every device, whole."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        lambda params, batch: model.apply({"params": params}, batch), out_shardings=whole
    )


def diagnose(
    model: Any, gradients: Gradients, state: TrainState, batch: batches.Batch, seed: int
) -> str | None:
    """The first tensor that is not finite in the step that `state` could not take, by name."""
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    outputs = jax.jit(
        lambda p, b: model.apply({"params": p}, b, train=True, rngs={"dropout": rng})
    )(state.params, batch)
    _, terms, grads = jax.jit(gradients)(state.params, batch, rng)
    return guard.first_nonfinite(
        {
            "parameters": state.params,
            "outputs": dict(outputs),
            "loss": terms,
            "gradients": grads,
        }
    )
