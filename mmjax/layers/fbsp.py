"""A learned bank of complex frequency B-spline wavelets, in place of a Fourier transform."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.parameters import param

EPSILON = 1e-8


@jax.custom_vjp
def evenly_learned(x: jax.Array) -> jax.Array:
    """x; in the backward pass its gradient divided by its largest entry."""
    return x


evenly_learned.defvjp(lambda x: (x, None), lambda _, dx: (dx / (jnp.max(jnp.abs(dx)) + EPSILON),))


class SplineFilters(nn.Module):
    """Filters [features, size, 2], real and imaginary parts, for frames of `size` samples.

    Filter i is sqrt(b) sinc(b t / m)^m exp(-j c t) / sqrt(size) over t in -pi..pi, with its order
    m, bandwidth b and center c learned; at first m = 0, b = 1 and c = i, a Fourier transform. The
    gradients of each of the three are divided by their largest entry.

    Source: Guzhov et al. 2021 (arXiv 2104.11587), section 3.2; AndreyGuzhov/AudioCLIP,
    model/esresnet/fbsp.py, LinearFBSP.
    """

    features: int
    size: int

    @nn.compact
    def __call__(self) -> jax.Array:
        def parameter(name, init):
            x = evenly_learned(param(self, name, init, (self.features,), (None,)))
            return x[:, None]

        def counted(key, shape, dtype):
            return jnp.arange(shape[0], dtype=dtype)

        order = parameter("order", nn.initializers.zeros)
        bandwidth = parameter("bandwidth", nn.initializers.ones)
        center = parameter("center", counted)
        time = jnp.asarray(_times(self.size))[None]
        at = bandwidth * time / (order + EPSILON)
        window = jnp.sin(at) / jnp.where(at == 0, 1, at)
        window = jnp.where(at == 0, 1, window)
        # A negative number to a real power is complex; zero would have no gradient.
        size = jnp.maximum(jnp.square(window), 1e-37) ** (order / 2)
        phase = jnp.where(window < 0, order * np.float32(np.pi), 0.0)
        # Not one angle: the phase would be lost in the rounding of center * time.
        cos, sin = jnp.cos(center * time), -jnp.sin(center * time)
        factor = jnp.sqrt(bandwidth) * size * np.float32(self.size**-0.5)
        real, imaginary = factor * jnp.cos(phase), factor * jnp.sin(phase)
        return jnp.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)


def _times(size: int) -> np.ndarray:
    """-pi..pi in `size` steps, rounded as by torch.linspace: times a center of 1,000 another
    rounding would move a filter by 1e-4."""
    step, half = float(np.float32(2) / np.float32(size - 1)), size // 2
    first, last = -1 + step * np.arange(half), 1 - step * np.arange(size - half)[::-1]
    line = np.concatenate([first, last]).astype(np.float32)
    return np.float32(np.pi) * line + np.float32(EPSILON)
