"""Depthwise convolutions as a sum of shifted products, which XLA's CPU backend fuses into one loop.

Its own grouped convolution is 20 to 70 times as slow (experiments/benchmarks/efficientnet.md).
"""

import jax
import jax.numpy as jnp

Padding = tuple[tuple[int, int], tuple[int, int]]


def same_padding(size: tuple[int, int], sides: tuple[int, int], stride: int) -> Padding:
    """Zeros (before, after) of height and width for an output of size / stride, rounded up.

    Source: TensorFlow's padding "SAME".
    """
    zeros = (max((-(-n // stride) - 1) * stride + side - n, 0) for n, side in zip(size, sides))
    return tuple((n // 2, n - n // 2) for n in zeros)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """x [B, H, W, C], each channel convolved with its kernel [K, L, 1, C] -> [B, H', W', C]."""
    batch, _, _, channels = x.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = kernel.shape[:2]
    height, width = ((n - side) // stride for n, side in zip(x.shape[1:3], (rows, columns)))
    parts = []
    for i in range(rows):
        for j in range(columns):
            end = (batch, i + height * stride + 1, j + width * stride + 1, channels)
            part = jax.lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))
            parts.append(part * kernel[i, j][None, None])
    return sum(parts[1:], parts[0])
