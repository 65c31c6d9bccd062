"""Keep a classifier from learning what a biased part of its input tells by itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def learned_mixin(
    logits: Float[ArrayLike, "b c"],
    bias_logits: Float[ArrayLike, "b c"],
    gate: Float[ArrayLike, " b"],
) -> Float[Array, "b c"]:
    """Log-probabilities of the product of a model and of a bias that it may lean on as it likes.

    log_softmax(log p + gate · log b): what the bias explains is not left for the model to learn;
    after training the model is used without it. No gradient flows into the bias.

    Args:
      logits: [B, C]; bias_logits: [B, C], of a model that sees the biased part alone.
      gate: [B], 0 or above: how far the bias is trusted for each example.

    Source: Clark et al. 2019 (arXiv 1909.03683), section 3.2.
    """
    bias = jax.nn.log_softmax(jax.lax.stop_gradient(bias_logits), axis=-1)
    return jax.nn.log_softmax(jax.nn.log_softmax(logits, axis=-1) + gate[:, None] * bias, axis=-1)


def mixin_entropy(
    bias_logits: Float[ArrayLike, "b c"], gate: Float[ArrayLike, " b"]
) -> Float[Array, " b"]:
    """[B]: entropy in nats of softmax(gate · log b), which a gate of 0 would make as large as it
    can be; as a loss it keeps the gate open.

    Source: Clark et al. 2019 (arXiv 1909.03683), section 3.2, the penalty of learned-mixin +H.
    """
    bias = jax.nn.log_softmax(jax.lax.stop_gradient(bias_logits), axis=-1)
    log_p = jax.nn.log_softmax(gate[:, None] * bias, axis=-1)
    return -(jnp.exp(log_p) * log_p).sum(-1)
