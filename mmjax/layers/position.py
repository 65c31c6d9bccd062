"""Position embeddings of image grids and of text."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.parameters import param
from mmjax.sharding import shard


def resize_grid(table: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Bicubic, antialiased resize of a position table [h, w, D] to [*grid, D]."""
    if table.shape[:2] == tuple(grid):
        return table
    return jax.image.resize(table, (*grid, table.shape[-1]), "bicubic", antialias=True)


def sincos2d(
    grid: tuple[int, int], width: int, stored: tuple[int, int] | None = None
) -> np.ndarray:
    """Fixed sinusoidal table [h, w, width] of a grid: sin x, cos x, sin y, cos y.

    Args:
      stored: the grid that the model was trained on. Another grid covers the same image, so its
        coordinates are those of the stored grid, as for a resized learned table.

    Raises:
      ValueError: a width that is not a multiple of 4, or below 8.

    Source: MoCo v3, Chen et al. 2021 (arXiv 2104.02057), appendix; big_vision models/vit.py.
    """
    if width % 4 or width < 8:
        raise ValueError(f"'sincos2d' positions need a width that is a multiple of 4, not {width}.")
    stored = stored or grid
    omega = 10_000.0 ** -np.linspace(0.0, 1.0, width // 4)
    y, x = (((np.arange(n) + 0.5) * (m / n) - 0.5)[:, None] * omega for n, m in zip(grid, stored))
    y = np.broadcast_to(y[:, None], (*grid, width // 4))
    x = np.broadcast_to(x[None, :], (*grid, width // 4))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], -1).astype(np.float32)


class LearnedGrid(nn.Module):
    """A learned position table [h, w, D], resized to the grid that is asked for.

    Attributes:
      stored: (h, w) of the parameter, which the checkpoint therefore knows.
    """

    stored: tuple[int, int]
    width: int

    @nn.compact
    def __call__(self, grid: tuple[int, int]) -> jax.Array:
        table = param(
            self,
            "table",
            nn.initializers.normal(self.width**-0.5),
            (*self.stored, self.width),
            ("height", "width", "embed"),
        )
        return resize_grid(table, grid)


class LearnedSequence(nn.Module):
    """A learned position table [length, D]; a shorter text takes its first rows.

    Raises:
      ValueError: a text longer than the table.
    """

    length: int
    width: int

    @nn.compact
    def __call__(self, positions: int | jax.Array) -> jax.Array:
        """The first so many rows [L, D]; or those of the positions [B, L], as [B, L, D]."""
        table = param(
            self,
            "table",
            nn.initializers.normal(0.01),
            (self.length, self.width),
            ("length", "embed"),
        )
        if not isinstance(positions, int):
            return jnp.take(shard(table, "length", "act_embed"), positions, axis=0)
        if positions > self.length:
            raise ValueError(
                f"Text of {positions} tokens is longer than the model's {self.length}: set "
                "model.text.length, or the length in tokenize(), to the other."
            )
        return jnp.asarray(table[:positions])
