"""What a denoising model predicts, and what that says of the clean sample and the noise."""

import jax.numpy as jnp
from jaxtyping import Array, Float

TARGETS = ("epsilon", "x0", "v")


def check_target(target: str) -> None:
    """Raise ValueError for an unknown parameterization."""
    if target not in TARGETS:
        raise ValueError(f"The prediction target is '{target}'; use one of {', '.join(TARGETS)}.")


def target_of(
    target: str,
    x0: Float[Array, "..."],
    noise: Float[Array, "..."],
    alpha: Float[Array, "..."],
    sigma: Float[Array, "..."],
) -> Float[Array, "..."]:
    """What a model of this parameterization should predict.

    Args:
      target: "epsilon", the noise; "x0", the clean sample; "v", alpha noise - sigma x0 (Salimans
        and Ho 2022, arXiv 2202.00512, appendix D).
      alpha, sigma: broadcast to x0, of x = alpha x0 + sigma noise.
    """
    check_target(target)
    if target == "v":
        return alpha * noise - sigma * x0
    return noise if target == "epsilon" else x0


def clean_and_noise(
    target: str,
    output: Float[Array, "..."],
    x: Float[Array, "..."],
    alpha: Float[Array, "..."],
    sigma: Float[Array, "..."],
    clip: float | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(x0, noise) from a model's prediction at x = alpha x0 + sigma noise, where sigma > 0.

    Args:
      clip: x0 is limited to -clip ... clip, and the noise is what then remains.
    """
    check_target(target)
    if target == "epsilon":
        x0, noise = (x - sigma * output) / alpha, output
    elif target == "v":
        x0, noise = alpha * x - sigma * output, sigma * x + alpha * output
    else:
        x0, noise = output, (x - alpha * output) / sigma
    if clip is not None:
        x0 = jnp.clip(x0, -clip, clip)
        noise = (x - alpha * x0) / sigma
    return x0, noise
