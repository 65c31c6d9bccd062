"""Guards of a run: the first non-finite tensor by name, and early stopping."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MODES = ("min", "max")


class NonFiniteError(ValueError):
    """A NaN or an infinity has reached the loss or the gradients; says where, and what to do."""

    def __init__(
        self, step: int, found: str | None, workdir: str | Path, checkpoint: str | None = None
    ):
        """Args:
        step: the step whose update was not finite, as metrics.jsonl counts: the first is 1.
        found: what `first_nonfinite` returned, or None where nothing was found any more.
        workdir: the run's folder.
        checkpoint: path of the last good checkpoint, or None where there is none.
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
        parameters. Leaves that are not floating are passed over.

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


class EarlyStopping:
    """Stop once a metric has not improved for `patience` evaluations.

    Args:
      metric: its name in the results, such as "unseen/recall@1"; empty never stops.
      patience: evaluations without an improvement until the stop; at least 1.
      mode: 'max' if a larger value is better, 'min' if a smaller one is.
      min_delta: an improvement is larger than this.
    """

    def __init__(self, metric: str, patience: int, mode: str = "max", min_delta: float = 0.0):
        if mode not in MODES:
            raise ValueError(f"config.early_stopping.mode is '{mode}': use 'min' or 'max'.")
        if patience < 1 or min_delta < 0:
            raise ValueError(
                f"config.early_stopping has patience {patience} and min_delta {min_delta}: use a "
                "patience of at least 1 and a min_delta of at least 0."
            )
        self.metric, self.patience, self.mode, self.min_delta = metric, patience, mode, min_delta
        self.best: float | None = None
        self.waited = 0

    @property
    def stopped(self) -> bool:
        """Whether the patience is used up."""
        return self.waited >= self.patience

    def update(self, results: Mapping[str, float]) -> None:
        """Take the results of one more evaluation; NaN is no improvement.

        Raises:
          ValueError: the results lack the metric.
        """
        if not self.metric:
            return
        if self.metric not in results:
            raise ValueError(
                f"config.early_stopping.metric is '{self.metric}'; config.validation gives "
                f"{sorted(results)}."
            )
        value = float(results[self.metric])
        gain = math.inf
        if self.best is not None:
            gain = value - self.best if self.mode == "max" else self.best - value
        if not math.isnan(value) and gain > self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def state(self) -> dict[str, float | int | None]:
        """What a checkpoint must keep."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: Mapping[str, float | int | None]) -> None:
        """Go on from what `state()` gave."""
        best = state["best"]
        self.best = None if best is None else float(np.asarray(best))
        self.waited = int(np.asarray(state["waited"]))
