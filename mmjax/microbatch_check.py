"""Which outputs of a model may be computed in microbatches, by their shapes and by numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core


def check_outputs(
    outputs_of: Callable[..., dict[str, jax.Array]], params: Any, batch: Any, rng: Any, parts: int
) -> None:
    """Refuse outputs that cannot be reassembled from those of microbatches.

    An output must be per example, `[B, ...]` with the same `...` whatever B is, or a scalar that
    depends on parameters alone and so is equal in every part.

    Args:
      outputs_of: (params, batch, rng) -> outputs.
      batch: the whole batch.
      parts: the number of microbatches.

    Raises:
      ValueError: names the output.
    """
    params, batch, rng = jax.eval_shape(lambda *args: args, params, batch, rng)
    rows = len(next(iter(batch.values())))
    part = {
        k: jax.ShapeDtypeStruct((rows // parts, *x.shape[1:]), x.dtype) for k, x in batch.items()
    }
    whole = jax.eval_shape(outputs_of, params, batch, rng)
    closed, found = jax.make_jaxpr(outputs_of, return_shape=True)(params, part, rng)
    count = len(jax.tree.leaves(params))
    dependent = _depends(
        closed.jaxpr, [False] * count + [True] * (len(closed.jaxpr.invars) - count)
    )
    nested = [name for name, x in found.items() if not hasattr(x, "shape")]
    if nested:
        raise ValueError(
            f"The output '{nested[0]}' is not an array: with config.microbatches > 1 the outputs "
            "of a model are a flat dict of arrays."
        )
    for name, depends in zip(sorted(found), dependent, strict=True):  # flattened by name
        here, there = found[name].shape, whole[name].shape
        if here == there == ():
            if depends:
                raise ValueError(
                    f"With config.microbatches > 1 the scalar output '{name}' would differ from "
                    "part to part, as it depends on the examples: return it per example ([B]) and "
                    "average it in the loss, or set config.microbatches to 1."
                )
        elif not here or (rows // parts, *here[1:]) != here or (rows, *here[1:]) != there:
            raise ValueError(
                f"With config.microbatches > 1 the output '{name}' {list(there)} cannot be "
                f"reassembled from its parts {list(here)}: an output is [B, ...] for B examples, "
                "or a scalar; change it, or set config.microbatches to 1."
            )


def check_rows(
    outputs_of: Callable[..., dict[str, jax.Array]], params: Any, batch: Any, tolerance: float
) -> None:
    """Refuse a forward pass in which a row depends on others, which no shape shows.

    The rows are computed by themselves and together with as many others, with random parameters,
    as initial ones may be zero where rows are mixed.

    Args:
      outputs_of: (params, batch) -> outputs, without dropout.
      params: shapes and dtypes, perhaps with shardings.
      batch: a few rows, after `System.corrupt`; the others are these in reverse, with the first
        one changed to zeros, so that a single row has another one beside it.
      tolerance: of a difference, relative to the largest value of an output.

    Raises:
      ValueError: names the output that differs most.
    """

    def differences(batch):
        drawn = _random(params, jax.random.key(0))
        whole, alone = (dict(outputs_of(drawn, x)) for x in (_with_others(batch), batch))
        found = {}
        for name, x in alone.items():
            if x.ndim and jnp.issubdtype(x.dtype, jnp.floating):
                gap = jnp.abs(whole[name][: len(x)].astype(jnp.float32) - x.astype(jnp.float32))
                found[name] = gap.max() / jnp.maximum(jnp.abs(x).max(), 1e-6)
        return found

    found = jax.device_get(jax.jit(differences)(batch))
    worst = max(found, key=found.get, default=None)
    if worst is not None and not found[worst] <= tolerance:
        raise ValueError(
            f"With config.microbatches > 1 each part is computed by itself, but the output "
            f"'{worst}' of a row changes by {found[worst]:.0%} of its largest value with the other "
            "rows of its batch: set config.microbatches to 1, and say why in the system's "
            "couples_rows."
        )


def _with_others(batch: Any) -> Any:
    others = {k: x[::-1].at[0].set(jnp.zeros_like(x[0])) for k, x in batch.items()}
    return {k: jnp.concatenate([x, others[k]]) for k, x in batch.items()}


def _random(shapes: Any, key: jax.Array) -> Any:
    """Normal numbers of deviation 0.1 in place of all floats: around one if they are named `scale`
    or `variance`, which is above 0, else around zero."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    made = []
    for i, (path, x) in enumerate(leaves):
        value = jnp.zeros(x.shape, x.dtype)
        if jnp.issubdtype(x.dtype, jnp.floating):
            name = jax.tree_util.keystr(path[-1:], simple=True)
            center = float(name in ("scale", "variance"))
            value = center + 0.1 * jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        made.append(value)
    return tree.unflatten(made)


def _depends(jaxpr: core.Jaxpr, given: list[bool]) -> list[bool]:
    """Which outputs depend on the inputs marked True; a loop's depend on all of its inputs."""
    marked = {v for v, mark in zip(jaxpr.invars, given) if mark}

    def mark_of(v):
        return not isinstance(v, core.Literal) and v in marked

    for equation in jaxpr.eqns:
        marks = [mark_of(v) for v in equation.invars]
        inner = _called(equation, len(marks))
        if inner is None:
            outputs = [any(marks)] * len(equation.outvars)
        else:
            outputs = _depends(inner, marks)
        marked |= {v for v, mark in zip(equation.outvars, outputs) if mark}
    return [mark_of(v) for v in jaxpr.outvars]


def _called(equation: Any, inputs: int) -> Any:
    """The jaxpr of a call whose arguments are the equation's own (jit, remat, custom rules)."""
    for name in ("jaxpr", "call_jaxpr"):
        inner = equation.params.get(name)
        if inner is not None and equation.primitive.name not in ("scan", "while", "cond"):
            inner = getattr(inner, "jaxpr", inner)
            if len(inner.invars) == inputs and len(inner.outvars) == len(equation.outvars):
                return inner
    return None
