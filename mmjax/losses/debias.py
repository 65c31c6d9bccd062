"""Debiasing: keep a classifier from relying on a biased part of its input."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def learned_mixin(
    logits: Float[ArrayLike, "b c"],
    bias_logits: Float[ArrayLike, "b c"],
    gate: Float[ArrayLike, " b"],
) -> Float[Array, "b c"]:
    """Log-probabilities of the product of a model p and a bias model b, weighted by a gate.

    log_softmax(log p + gate · log b): the model does not have to learn what the bias explains, and
    is used without the bias after training. No gradient flows into the bias.

    Args:
      logits: [B, C]; bias_logits: [B, C], of a model of the biased part only.
      gate: [B], 0 or above: the weight of the bias for each example.

    Source: Clark et al. 2019 (arXiv 1909.03683), section 3.2.
    """
    bias = jax.nn.log_softmax(jax.lax.stop_gradient(bias_logits), axis=-1)
    return jax.nn.log_softmax(jax.nn.log_softmax(logits, axis=-1) + gate[:, None] * bias, axis=-1)


def mixin_entropy(
    bias_logits: Float[ArrayLike, "b c"], gate: Float[ArrayLike, " b"]
) -> Float[Array, " b"]:
    """[B]: entropy in nats of softmax(gate · log b), maximal at gate 0; as a loss term it keeps the
    gate from closing.

    Source: Clark et al. 2019 (arXiv 1909.03683), section 3.2, the penalty of learned-mixin +H.
    """
    bias = jax.nn.log_softmax(jax.lax.stop_gradient(bias_logits), axis=-1)
    log_p = jax.nn.log_softmax(gate[:, None] * bias, axis=-1)
    return -(jnp.exp(log_p) * log_p).sum(-1)
