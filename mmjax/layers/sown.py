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
) -> tuple[Any, jax.Array, jax.Array]:
    """Weights of the blocks' cross-attention `[layers, B, H, L, S]`, and the gradient of a score
    with respect to them.

    Args:
      apply: `model.apply`.
      score: outputs -> a scalar, such as the sum of a logit over the batch, and anything else.

    Returns:
      what the score gives besides the scalar; the weights; the gradient.

    Raises:
      ValueError: a model with no stack of cross-attention, or with several.
    """

    def sown(offsets):
        given = {**variables, "offsets": traverse_util.unflatten_dict(offsets)}
        outputs, kept = apply(given, batch, mutable=["intermediates"])
        flat = traverse_util.flatten_dict(kept["intermediates"])
        found = {k: x for k, x in flat.items() if "cross" in k and k[-1] == "attention_weights"}
        scalar, more = score(outputs)
        return scalar, (more, {k: x[0] for k, x in found.items()})

    shapes = jax.eval_shape(lambda: sown({})[1][1])
    if len(shapes) != 1:
        raise ValueError(
            f"This model has {len(shapes)} stacks of cross-attention, and their gradient needs one."
        )
    zeros = {k: jnp.zeros(x.shape, x.dtype) for k, x in shapes.items()}
    grads, (more, weights) = jax.grad(sown, has_aux=True)(zeros)
    (path,) = shapes
    return more, weights[path], grads[path]
