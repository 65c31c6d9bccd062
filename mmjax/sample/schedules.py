"""Noise schedules: x_t = alpha(t) x0 + sigma(t) noise, with alpha² + sigma² = 1.

Times are in the unit that a model sees, from 0 to `steps`: integers below it for the discrete
schedules, any number for the continuous ones.

`hackable-diffusion` 1.0.1 (PyPI) has schedules and samplers too, but needs Python 3.12 and
kauldron, and has no learned variance, no DPM-Solver++ and no key per row: so these are our own.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from mmjax.config import nearest

MAX_BETA = 0.999


def _linear(steps: int) -> np.ndarray:
    """Ho et al. 2020 (arXiv 2006.11239), section 4, there for 1,000 steps."""
    scale = 1000 / steps
    return np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, steps), MAX_BETA)


def _scaled_linear(steps: int) -> np.ndarray:
    """Linear in the square root: CompVis/latent-diffusion, configs of its text-to-image models."""
    return np.linspace(0.00085**0.5, 0.012**0.5, steps) ** 2


def _squared_cosine(steps: int) -> np.ndarray:
    """Nichol and Dhariwal 2021 (arXiv 2102.09672), eq. 17."""
    remaining = np.cos((np.linspace(0, 1, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - remaining[1:] / remaining[:-1], MAX_BETA)


def _continuous_linear(u, xp):
    """log(alpha² / sigma²) at u in 0..1. Kingma et al. 2021 (arXiv 2107.00630), appendix F."""
    return -xp.log(xp.expm1(1e-4 + 10 * u**2))


def _continuous_cosine(u, xp):
    """As above, within ±20. Ho and Salimans 2022 (arXiv 2207.12598), section 2."""
    low, high = np.arctan(np.exp(-10.0)), np.arctan(np.exp(10.0))
    return -2 * xp.log(xp.tan(low + u * (high - low)))


BETAS = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squared_cosine": _squared_cosine,
}
LOG_SNR: dict[str, Callable] = {
    "continuous_linear": _continuous_linear,
    "continuous_cosine": _continuous_cosine,
}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A noise schedule by name.

    Attributes:
      steps: of a discrete schedule; of a continuous one, the time at its noisiest end.

    Raises:
      ValueError: an unknown name, or fewer than 2 steps.
    """

    name: str = "linear"
    steps: int = 1000

    def __post_init__(self):
        known = {**BETAS, **LOG_SNR}
        if self.name not in known:
            raise ValueError(
                f"The noise schedule is '{self.name}'; use one of {', '.join(known)}."
                + nearest(self.name, known)
            )
        if self.steps < 2:
            raise ValueError(f"A noise schedule has {self.steps} steps: it needs at least 2.")

    @property
    def is_discrete(self) -> bool:
        """Whether times are integers."""
        return self.name in BETAS

    @property
    def betas(self) -> np.ndarray:
        """[steps] float64, the variance added by each step of a discrete schedule."""
        return BETAS[self.name](self.steps)

    def log_snr(self, times: np.ndarray) -> np.ndarray:
        """log(alpha² / sigma²) at these times, float64 on the host.

        Between the integers of a discrete schedule it is interpolated.
        """
        times = np.asarray(times, np.float64)
        if not self.is_discrete:
            return LOG_SNR[self.name](times / self.steps, np)
        remaining = np.cumprod(1 - self.betas)
        return np.interp(times, np.arange(self.steps), np.log(remaining / (1 - remaining)))

    def levels(self, times: Num[Array, " b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """(alpha, sigma) at these times, fp32; differentiable programs use this one."""
        if self.is_discrete:
            alpha, sigma = (
                x.astype(np.float32) for x in split(self.log_snr(np.arange(self.steps)))
            )
            at = times.astype(jnp.int32)
            return jnp.asarray(alpha)[at], jnp.asarray(sigma)[at]
        log_snr = LOG_SNR[self.name](times.astype(jnp.float32) / self.steps, jnp)
        return jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))

    def draw(self, uniform: Float[Array, " b"]) -> Float[Array, " b"]:
        """Training times from uniform numbers in 0..1."""
        times = uniform * self.steps
        return jnp.minimum(jnp.floor(times), self.steps - 1) if self.is_discrete else times


def split(log_snr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(alpha, sigma) of log(alpha² / sigma²), on the host."""
    return (1 + np.exp(-log_snr)) ** -0.5, (1 + np.exp(log_snr)) ** -0.5
