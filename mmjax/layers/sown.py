"""Attention weights that a model sows while `intermediates` is mutable."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util


def sown_weights(intermediates: Mapping[str, Any]) -> np.ndarray | None:
    """The image tower's attention weights `[layers, B, heads, L, L]`; None if none were sown."""
    # The tower is a submodule, or the model itself.
    tower = intermediates.get("image", intermediates.get("transformer", {}))
    weights = [
        leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tower)[0]
        if "attention_weights" in jax.tree_util.keystr(path) and leaf.ndim == 5
    ]
    return np.asarray(weights[0]) if weights else None


def cross_gradients(
    apply: Callable[..., tuple[Mapping[str, jax.Array], Any]],
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    score: Callable[[Mapping[str, jax.Array]], tuple[jax.Array, Any]],
) -> tuple[Any, dict[str, jax.Array], dict[str, jax.Array]]:
    """Weights of each stack of cross-attention `[layers, B, H, L, S]`, by its path, and the
    gradient of a score with respect to them.

    Args:
      apply: `model.apply`.
      score: outputs -> a scalar, such as the sum of a logit over the batch, and anything else.

    Returns:
      what the score gives besides the scalar; the weights; the gradients.
    """

    def sown(offsets):
        given = {**variables, "offsets": traverse_util.unflatten_dict(offsets, sep="/")}
        outputs, kept = apply(given, batch, mutable=["intermediates"])
        flat = traverse_util.flatten_dict(kept["intermediates"], sep="/")
        found = {
            k: x[0] for k, x in flat.items() if k.endswith("cross/attention/attention_weights")
        }
        scalar, more = score(outputs)
        return scalar, (more, found)

    shapes = jax.eval_shape(lambda: sown({})[1][1])
    zeros = {k: jnp.zeros(x.shape, x.dtype) for k, x in shapes.items()}
    gradients, (more, weights) = jax.grad(sown, has_aux=True)(zeros)
    return more, weights, gradients
