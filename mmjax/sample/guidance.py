"""Classifier-free guidance."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Predict = Callable[[Float[Array, "b ..."], Float[Array, " b"]], Float[Array, "b ..."]]


def guided(predict: Predict, scale: float) -> Predict:
    """uncond + scale (cond - uncond), from one prediction of twice as many rows.

    A learned variance is that of the conditional prediction.

    Args:
      predict: of [2B, ...], with the condition on its first B rows and without it on the others.
      scale: 0: as if there was no condition; 1: no guidance.

    Source: Ho and Salimans 2022 (arXiv 2207.12598), eq. 6, with scale = 1 + w.
    """

    def both(x: Float[Array, "b ..."], time: Float[Array, " b"]) -> Float[Array, "b ..."]:
        given = predict(jnp.concatenate([x, x]), jnp.concatenate([time, time]))
        condition, nothing = jnp.split(given, 2)
        mean, variance = jnp.split(condition, [x.shape[-1]], axis=-1)
        nothing = nothing[..., : x.shape[-1]]
        return jnp.concatenate([nothing + scale * (mean - nothing), variance], axis=-1)

    return both
