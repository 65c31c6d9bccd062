"""Finiteness checks: on the device at every step, and by name once something is not finite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


class NonFiniteError(ValueError):
    """A NaN or an infinity has reached the loss or the gradients; says where, and what to do."""

    def __init__(
        self, step: int, found: str | None, workdir: str | Path, checkpoint: str | None = None
    ):
        """Args:
        step: the step whose update was not finite, as metrics.jsonl counts: the first is 1.
        found: what `first_nonfinite` returned.
        workdir: the run's folder.
        checkpoint: path of the last good checkpoint, or None if there is none.
        """
        where = found or "the loss or the gradient norm (not finite only in the jitted step)"
        kept = (
            f"the last good checkpoint is {checkpoint}" if checkpoint else "nothing was saved yet"
        )
        super().__init__(
            f"Step {step} is not finite, first in {where}; {kept}: resume from there with a lower "
            "config.optim.learning_rate, a longer warm-up or a smaller grad_clip_norm, or look at "
            f"this step's batch: python -m mmjax.replay --workdir={workdir} --step={step}"
        )
        self.step, self.found, self.checkpoint = step, found, checkpoint


def is_finite(*scalars: jax.Array) -> jax.Array:
    """Whether all scalars are finite, a bool scalar on the device: cheap enough for every step.

    A gradient norm stands for all gradients: one NaN or infinity in them makes it non-finite.
    """
    flags = [jnp.isfinite(jnp.asarray(x)) for x in scalars]
    return jnp.all(jnp.stack(flags))


def first_nonfinite(trees: Mapping[str, Any]) -> str | None:
    """Name the first tensor with a NaN or an infinity.

    Args:
      trees: title -> tree of arrays, in the order of the search: loss, outputs, gradients,
        parameters. Leaves that are not floating point are skipped.

    Returns:
      Such as `gradients: image/encoder/mlp/kernel [2, 3] (1 NaN, 0 infinite of 6)`, or None.
    """
    for title, tree in trees.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            leaf = jnp.asarray(leaf)
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                continue
            nans, infinities = (int(n) for n in _count(leaf))
            if nans or infinities:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                where = f"{title}: {name}" if name else title
                return (
                    f"{where} {list(leaf.shape)} ({nans} NaN, {infinities} infinite of {leaf.size})"
                )
    return None


@jax.jit
def _count(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(jnp.isnan(x)), jnp.sum(jnp.isinf(x))
