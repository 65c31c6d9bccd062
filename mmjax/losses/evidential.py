"""Evidential classification: a Dirichlet distribution over the probabilities of the classes.

A network's logits z give the evidence exp(z) of each class, and alpha = 1 + exp(z) the Dirichlet.
softplus(z) = log(alpha) are therefore logits of its mean, alpha / sum(alpha).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

MAX_LOGIT = 30.0  # exp of more would leave float32's precision: evidence of 1e13 is certainty


def concentration(logits: Float[ArrayLike, "b c"]) -> Float[Array, "b c"]:
    """alpha = 1 + exp(logits), float32."""
    return 1.0 + jnp.exp(jnp.minimum(jnp.asarray(logits).astype(jnp.float32), MAX_LOGIT))


def evidential_loss(
    logits: Float[ArrayLike, "b c"], target: Float[ArrayLike, "b c"], regularizer: ArrayLike
) -> Float[Array, " b"]:
    """The expected squared error under the Dirichlet, and what pulls misleading evidence to zero.

    With S = sum alpha and p = alpha / S, per example

        sum_j (y_j - p_j)^2 + p_j (1 - p_j) / (S + 1)  +  regularizer * KL(Dir(a) || Dir(1)),

    a = y + (1 - y) * alpha, in which the evidence of the true class is removed.

    Args:
      target: y, one-hot; regularizer: lambda_t, in the paper min(1, epoch / 10).

    Source: Sensoy et al. 2018 (arXiv 1806.01768), equations 5 and section 4.
    """
    alpha = concentration(logits)
    y = jnp.asarray(target).astype(jnp.float32)
    total = alpha.sum(-1, keepdims=True)
    p = alpha / total
    error = jnp.square(y - p) + p * (1.0 - p) / (total + 1.0)
    misleading = y + (1.0 - y) * alpha
    weight = jnp.asarray(regularizer).astype(jnp.float32)
    return error.sum(-1) + weight * _divergence_of_uniform(misleading)


def _divergence_of_uniform(alpha: jax.Array) -> jax.Array:
    """KL(Dir(alpha) || Dir(1, ..., 1)), [B, C] -> [B].

    With lnΓ(x) = x ln x - x + g(x) and ψ(x) = ln x + h(x) the large terms cancel by algebra, where
    in float32 their difference would be rounding from alpha of about 1e4 on.
    """
    total = alpha.sum(-1, keepdims=True)
    constant = _g(total)[:, 0] - jax.scipy.special.gammaln(jnp.float32(alpha.shape[-1]))
    terms = jnp.log(total / alpha) - _g(alpha) + (alpha - 1.0) * (_h(alpha) - _h(total))
    return constant + terms.sum(-1)


STIRLING = 8.0  # from here on the series below are exact to float32


def _g(x: jax.Array) -> jax.Array:
    """lnΓ(x) - x ln x + x, of x >= 1."""
    small, inverse = jnp.minimum(x, STIRLING), 1 / jnp.maximum(x, STIRLING)
    series = 0.5 * jnp.log(2 * math.pi * inverse) + inverse / 12 - inverse**3 / 360
    return jnp.where(
        x < STIRLING, jax.scipy.special.gammaln(small) - small * jnp.log(small) + small, series
    )


def _h(x: jax.Array) -> jax.Array:
    """ψ(x) - ln x, of x >= 1."""
    small, inverse = jnp.minimum(x, STIRLING), 1 / jnp.maximum(x, STIRLING)
    series = -inverse / 2 - inverse**2 / 12 + inverse**4 / 120
    return jnp.where(x < STIRLING, jax.scipy.special.digamma(small) - jnp.log(small), series)
