"""The train state and the update of one batch, with exact gradient accumulation and the EMA."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import einops
import flax
import jax
import jax.numpy as jnp
import optax

from mmjax.batch import Batch
from mmjax.config import nearest
from mmjax.finite import first_nonfinite, is_finite
from mmjax.layers import platform
from mmjax.microbatch_check import check_outputs
from mmjax.system import (
    Context,
    Memory,
    Outputs,
    Params,
    System,
    Weighted,
    average,
    training_keys,
    variables,
)


@flax.struct.dataclass
class TrainState:
    """The state that training carries from step to step.

    Attributes:
      average: moving average of the parameters; None without `config.ema.decay`.
      finite: turns False at the first step whose loss or gradient is not finite and stays so; from
        then on updates do nothing, so that the state is the last good one.
      memory: queues, codebooks, batch statistics; {} for most systems. Sharded, checkpointed and
        checksummed as parameters are.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    average: Params | None
    finite: jax.Array
    memory: Memory


class Numbers(NamedTuple):
    """What a step takes from the config as numbers, at this step: arguments of the compiled step,
    so that another seed, learning rate or schedule compiles nothing.

    Attributes:
      seed: uint32, from `seed_data`; with the step, the only source of randomness.
      learning_rate, weight_decay: fp32, of the optimizer.
      ema_decay: fp32, of the moving average of the parameters; unused where there is none.
      loss_weights: term -> fp32; the loss is the weighted sum of these terms.
    """

    seed: jax.typing.ArrayLike
    learning_rate: jax.typing.ArrayLike
    weight_decay: jax.typing.ArrayLike
    ema_decay: jax.typing.ArrayLike
    loss_weights: Mapping[str, jax.typing.ArrayLike]


class Gradients(flax.struct.PyTreeNode):
    """Results of one batch: the weighted loss, its terms (and whether any row has each), gradients,
    outputs of the whole batch, and the collections that the forward pass wrote."""

    total: jax.Array
    terms: dict[str, jax.Array]
    has: dict[str, jax.Array]
    grads: Params
    outputs: Outputs
    written: Memory


def first_state(
    params: Params, memory: Memory, optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """The state of step 0 with these parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        average=jax.tree.map(jnp.copy, params) if ema else None,
        finite=jnp.ones((), bool),
        memory=memory,
    )


def weighted_sum(
    terms: Mapping[str, jax.Array], weights: Mapping[str, jax.typing.ArrayLike]
) -> jax.Array:
    """The loss: the terms named in `config.loss_weights`, times their weights.

    Raises:
      ValueError: no weights, or one for a term that the system's loss does not return.
    """
    missing = sorted(set(weights) - set(terms))
    if missing or not weights:
        raise ValueError(
            f"config.loss_weights names {missing or 'nothing'}; this system's loss returns "
            f"{sorted(terms)}: give at least one of those a weight."
            + (nearest(missing[0], terms) if missing else "")
        )
    return sum(weight * terms[name] for name, weight in weights.items())


def make_train_step(
    system: System,
    gradients: Callable[..., tuple[Gradients, Context, Batch]],
    optimizer: optax.GradientTransformation,
) -> Callable[[TrainState, Batch, Numbers], tuple[TrainState, dict[str, jax.Array]]]:
    """The update of one batch, to be jitted: (state, batch, numbers) -> (state, scalars).

    Args:
      gradients: from `make_gradients`.
      optimizer: its update may take `learning_rate` and `weight_decay`, those of `Numbers`.
    """
    descend = optax.with_extra_args_support(optimizer).update

    def limited(params: Params, before: Params) -> Params:
        """The parameters after an update within `system.limits`; a frozen one keeps its value."""
        for name, limit in system.limits.items():
            new, old = params[name], before[name]
            low, high = limit if isinstance(limit, tuple) else (-jnp.inf, limit)
            value = jnp.where(new == old, old, jnp.clip(new, low, high))
            params = {**params, name: value}
        return params

    def train_step(state: TrainState, batch: Batch, numbers: Numbers):
        found, context, corrupted = gradients(state, batch, numbers)
        with jax.named_scope("optimizer"):
            grad_norm = optax.tree.norm(found.grads)
        memory = {**state.memory, **found.written}
        if system.remember is not None:
            memory = {**memory, **system.remember(memory, found.outputs, corrupted, context)}
            check_memory(state.memory, memory)
        changed = memory if system.remember is not None else found.written
        sums = [x.sum() for x in jax.tree.leaves(changed) if jnp.issubdtype(x.dtype, jnp.floating)]
        finite = state.finite & is_finite(found.total, grad_norm, *sums)

        @jax.named_scope("optimizer")
        def update(state):
            updates, opt_state = descend(
                found.grads,
                state.opt_state,
                state.params,
                learning_rate=numbers.learning_rate,
                weight_decay=numbers.weight_decay,
            )
            params = limited(optax.apply_updates(state.params, updates), state.params)
            mean = state.average
            if mean is not None:
                keep = 1 - numbers.ema_decay
                # In this form the average of a constant stays bit-identical.
                mean = jax.tree.map(lambda e, p: e + keep * (p - e), mean, params)
            return TrainState(state.step + 1, params, opt_state, mean, finite, memory)

        kept = state.replace(finite=finite)
        if platform.current().guard_by_select:
            # A select fuses into the update and keeps layouts; a branch converts its operands to
            # row-major order and back.
            state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), update(state), kept)
        else:
            # A branch: a select would write a second copy of the whole state.
            state = jax.lax.cond(finite, update, lambda _: kept, state)
        # NaN, for the log, where no row has the term.
        terms = {k: jnp.where(found.has[k], x, jnp.nan) for k, x in found.terms.items()}
        return state, {"loss": found.total, "grad_norm": grad_norm, **terms}

    return train_step


def make_gradients(
    learner: Any,
    system: System,
    *,
    frozen: Params,
    microbatches: int = 1,
    teacher: bool = False,
) -> Callable[[TrainState, Batch, Numbers], tuple[Gradients, Context, Batch]]:
    """(state, batch, numbers) -> gradients, the context, and the corrupted batch.

    Args:
      learner: what is trained: `system.model`, perhaps with LoRA's additions.
      frozen: a tree like the parameters, True where one is frozen: its gradient is zeros and costs
        nothing.
      microbatches: the number of parts that the forward and backward passes run in; the gradient
        is that of the full batch, also for losses that couple examples.
      teacher: also run the averaged parameters, for `Context.teacher`.

    With microbatches: first the outputs of every part without gradients, then the loss of all
    outputs and its gradient with respect to them, then each part's backward pass from its slice of
    that gradient (GradCache, Gao et al. 2021, §3.2). Memory is that of one part plus all outputs.
    Only float outputs are differentiated.

    Raises:
      ValueError: microbatches of a system that couples rows; when traced, an output that is
        neither per example nor a scalar equal in every part.
    """
    reason = system.couples_rows
    if not reason and system.mutable:
        reason = f"its forward pass writes {', '.join(system.mutable)}"
    if microbatches > 1 and reason:
        raise ValueError(
            f"config.microbatches is {microbatches}, but the forward pass of this system mixes the "
            f"rows of a batch ({reason}): set it to 1."
        )
    is_frozen, tree = jax.tree.flatten(frozen)

    def learned(params):
        return [p for p, f in zip(tree.flatten_up_to(params), is_frozen) if not f]

    def replace(params, learned):
        new = iter(learned)
        return tree.unflatten(
            [p if f else next(new) for p, f in zip(tree.flatten_up_to(params), is_frozen)]
        )

    def forward(params, memory, batch, rng):
        """Outputs, and the collections written."""
        given = variables(params, memory)
        if not system.mutable:
            return dict(learner.apply(given, batch, train=True, rngs={"dropout": rng})), {}
        outputs, written = learner.apply(
            given, batch, train=True, rngs={"dropout": rng}, mutable=list(system.mutable)
        )
        return dict(outputs), dict(written)

    @jax.named_scope("loss")
    def total_loss(outputs, batch, context, weights):
        """The weighted loss, each term's mean, and whether any row has it."""
        means = {}
        for k, term in system.loss(outputs, batch, context).items():
            value = term.value if isinstance(term, Weighted) else term
            if value.ndim > 1:
                raise ValueError(
                    f"The loss term '{k}' is {list(value.shape)}: give one value per example, [B], "
                    "or a scalar."
                )
            means[k] = average(term)
        terms, has = ({k: pair[i] for k, pair in means.items()} for i in (0, 1))
        return weighted_sum(terms, weights), (terms, has)

    def whole(params, batch, context, rng, weights):
        def f(part):
            outputs, written = forward(replace(params, part), context.memory, batch, rng)
            total, terms = total_loss(outputs, batch, context, weights)
            return total, (terms, outputs, written)

        (total, rest), grads = jax.value_and_grad(f, has_aux=True)(learned(params))
        terms, outputs, written = rest
        grads = replace(jax.tree.map(jnp.zeros_like, params), grads)
        return Gradients(total, *terms, grads, outputs, written)

    def in_parts(params, batch, context, rng, weights):
        def outputs_of(params, part, part_rng):
            return forward(params, context.memory, part, part_rng)[0]

        check_outputs(outputs_of, params, batch, rng, microbatches)
        parts = jax.tree.map(lambda x: _split(x, microbatches), batch)
        rngs = jax.vmap(lambda i: jax.random.fold_in(rng, i))(jnp.arange(microbatches))
        _, stacked = jax.lax.scan(lambda _, x: (None, outputs_of(params, *x)), None, (parts, rngs))
        floats = {k: x for k, x in stacked.items() if jnp.issubdtype(x.dtype, jnp.floating)}

        def loss_of(floats):
            outputs = jax.tree.map(_merge, {**stacked, **floats})
            total, terms = total_loss(outputs, batch, context, weights)
            return total, (terms, outputs)

        (total, (terms, outputs)), cotangents = jax.value_and_grad(loss_of, has_aux=True)(floats)
        # A scalar output is equal in every part and the loss reads the first; spread its gradient
        # over the parts, each of which recomputes it.
        cotangents = jax.tree.map(
            lambda c: jnp.broadcast_to(c.mean(0, keepdims=True), c.shape) if c.ndim == 1 else c,
            cotangents,
        )

        def backward(grads, x):
            part, part_rng, cotangent = x

            def floats_of(p):
                outputs = outputs_of(replace(params, p), part, part_rng)
                return {k: outputs[k] for k in floats}

            _, vjp = jax.vjp(floats_of, learned(params))
            return jax.tree.map(jnp.add, grads, vjp(cotangent)[0]), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        grads, _ = jax.lax.scan(backward, learned(zeros), (parts, rngs, cotangents))
        return Gradients(total, *terms, replace(zeros, grads), outputs, {})

    def teacher_outputs(state, batch):
        """Outputs of the averaged parameters, without dropout."""

        def one(part):
            return dict(learner.apply(variables(state.average, state.memory), part))

        if microbatches == 1:
            found = one(batch)
        else:
            parts = jax.tree.map(lambda x: _split(x, microbatches), batch)
            _, found = jax.lax.scan(lambda _, part: (None, one(part)), None, parts)
            found = jax.tree.map(_merge, found)
        return jax.lax.stop_gradient(found)

    def gradients(state: TrainState, batch: Batch, numbers: Numbers):
        rows = len(next(iter(batch.values())))
        rng, row_rngs = training_keys(numbers.seed, state.step, rows)
        context = Context(state.step, row_rngs, None, state.memory)
        if system.corrupt is not None:
            batch = system.corrupt(batch, context)
        if teacher:
            context = context._replace(teacher=teacher_outputs(state, batch))
        function = whole if microbatches == 1 else in_parts
        found = function(state.params, batch, context, rng, numbers.loss_weights)
        return found, context, batch

    return gradients


def _split(x: jax.Array, parts: int) -> jax.Array:
    """[B, ...] -> [parts, B / parts, ...], every parts-th row: rows stay on their devices."""
    return einops.rearrange(x, "(b parts) ... -> parts b ...", parts=parts)


def _merge(x: jax.Array) -> jax.Array:
    """The inverse of `_split`; of a scalar output, the first part's."""
    return x[0] if x.ndim == 1 else einops.rearrange(x, "parts b ... -> (b parts) ...")


def check_memory(before: Memory, after: Memory) -> None:
    """Refuse a `remember` that changes the structure of the memory.

    Raises:
      ValueError: names the first entry that was added, removed, or has another shape or dtype.
    """

    def leaves(tree):
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): (x.shape, x.dtype)
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }

    old, new = leaves(before), leaves(after)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ValueError(
                f"The system's `remember` returns {new.get(name, 'nothing')} for memory '{name}', "
                f"which is initially {old.get(name, 'nothing')}: keep names, shapes and dtypes."
            )


def diagnose(
    gradients: Callable[..., tuple[Gradients, Context, Batch]],
    state: TrainState,
    batch: Batch,
    numbers: Numbers,
) -> str | None:
    """Name the first non-finite tensor in the step that was not applied to `state`."""
    found = jax.jit(lambda *given: gradients(*given)[0])(state, batch, numbers)
    return first_nonfinite(
        {
            "parameters": state.params,
            "memory": state.memory,
            "outputs": dict(found.outputs),
            "loss": found.terms,
            "weighted loss": found.total,
            "gradients": found.grads,
        }
    )
