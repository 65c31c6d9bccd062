"""Losses of denoising diffusion, per example."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

GAMMA = 5.0  # of min-SNR weighting, as in the paper
PIXEL = 1 / 255  # half the distance of two of the 256 values in -1 ... 1


def _mean(x: Float[Array, "b ..."]) -> Float[Array, " b"]:
    return x.reshape(len(x), -1).mean(1)


def squared_error(
    prediction: Float[Array, "b ..."], target: Float[Array, "b ..."]
) -> Float[Array, " b"]:
    """The mean squared error of each example, fp32. Source: Ho et al. 2020, eq. 14."""
    return _mean(jnp.square(prediction.astype(jnp.float32) - target.astype(jnp.float32)))


def min_snr_weight(
    target: str, alpha: Float[Array, " b"], sigma: Float[Array, " b"], gamma: float = GAMMA
) -> Float[Array, " b"]:
    """Weights of the squared error that limit that of the clean sample to gamma.

    Args:
      target: what the model predicts, "epsilon", "x0" or "v".

    Source: Hang et al. 2023 (arXiv 2303.09556), section 3.4.
    """
    # Not by the SNR itself, which is infinite without noise.
    snr, noise = jnp.square(alpha), jnp.square(sigma)
    if target == "epsilon":
        return jnp.minimum(1.0, gamma * noise / snr)
    if target == "v":
        return jnp.minimum(snr, gamma * noise)
    return jnp.minimum(snr / noise, gamma)


def variational_bound(
    x0: Float[Array, "b ..."],
    x: Float[Array, "b ..."],
    predicted_x0: Float[Array, "b ..."],
    fraction: Float[Array, "b ..."],
    betas: Float[Array, " t"],
    time: Float[Array, " b"],
) -> Float[Array, " b"]:
    """The term of a discrete process's variational bound at `time`, bits per dimension.

    KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)); at time 0 -log p(x0 | x_1), where x0 is one of
    256 values in -1 ... 1. Its mean over the times, times their number, is the bound without the
    prior's part. No gradient flows to the predicted x0, so that only the variance learns from it.

    Args:
      fraction: the model's output for the variance, -1 to 1 for the posterior's to beta.
      betas: of all times.

    Source: Nichol and Dhariwal 2021 (arXiv 2102.09672), section 3.1 and eq. 15 and 16.
    """
    at = time.astype(jnp.int32)
    remaining = jnp.cumprod(1 - betas)
    before = jnp.concatenate([jnp.ones(1), remaining[:-1]])
    posterior = betas * (1 - before) / (1 - remaining)
    # The posterior's variance is 0 at time 0: that of time 1 takes its place.
    low = jnp.log(jnp.concatenate([posterior[1:2], posterior[1:]]))
    from_x0 = jnp.sqrt(before) * betas / (1 - remaining)
    from_x = jnp.sqrt(1 - betas) * (1 - before) / (1 - remaining)

    def rows(table):
        return table[at].reshape(-1, *(1,) * (x.ndim - 1))

    part = (fraction.astype(jnp.float32) + 1) / 2
    log_variance = part * rows(jnp.log(betas)) + (1 - part) * rows(low)
    predicted_x0 = jax.lax.stop_gradient(predicted_x0)
    mean = rows(from_x0) * predicted_x0 + rows(from_x) * x
    true_mean = rows(from_x0) * x0 + rows(from_x) * x
    kl = _normal_kl(true_mean, rows(low), mean, log_variance)
    likelihood = _discretized_log_likelihood(x0, mean, 0.5 * log_variance)
    return jnp.where(at == 0, _mean(-likelihood), _mean(kl)) / math.log(2)


def _normal_kl(mean1, log_variance1, mean2, log_variance2):
    """KL of two normal distributions, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1
        + jnp.exp(log_variance1 - log_variance2)
        + jnp.square(mean1 - mean2) * jnp.exp(-log_variance2)
    )


def _discretized_log_likelihood(x, mean, log_scale):
    """log p of the interval around x that rounds to it; the outermost are open. In nats.

    Source: Ho et al. 2020, eq. 13.
    """
    scale = jnp.exp(-log_scale)
    above = jax.scipy.stats.norm.cdf((x - mean + PIXEL) * scale)
    below = jax.scipy.stats.norm.cdf((x - mean - PIXEL) * scale)
    above = jnp.where(x > 1 - PIXEL, 1.0, above)
    below = jnp.where(x < -1 + PIXEL, 0.0, below)
    return jnp.log(jnp.maximum(above - below, 1e-12))
