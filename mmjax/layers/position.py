"""Position embeddings of image grids, of text and of audio."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.layers.parameters import param
from mmjax.layers.patch_rows import Cells
from mmjax.sharding import shard

RESIZES = ("antialias", "bicubic", "corners", "linear")


def resize_grid(table: jax.Array, grid: tuple[int, int], method: str = "antialias") -> jax.Array:
    """A position table [h, w, D] resized to [*grid, D].

    Args:
      method: "antialias" (bicubic, Keys' a = -0.5, a wider kernel for downsampling: jax.image,
        Pillow, DINOv2 with registers), "bicubic" (a = -0.75, four neighbors, edges repeated:
        torch's interpolate, used by `transformers`), "corners" (bilinear with aligned corners:
        scipy's zoom of order 1, used by big_vision) or "linear" (bilinear, a wider kernel for
        downsampling: SigLIP 2 NaFlex).

    Raises:
      ValueError: another method.
    """
    if method not in RESIZES:
        raise ValueError(f"position_resize is '{method}'; use one of {', '.join(RESIZES)}.")
    if table.shape[:2] == tuple(grid):
        return table
    if method in ("antialias", "linear"):
        kernel = "bicubic" if method == "antialias" else "linear"
        return jax.image.resize(table, (*grid, table.shape[-1]), kernel, antialias=True)
    rows, columns = (_weights(old, new, method) for old, new in zip(table.shape, grid))
    return jnp.einsum("Hh,Ww,hwd->HWd", rows, columns, table, precision="highest")


def resize_grids(table: jax.Array, sizes: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """A position table [h, w, D] resized to a grid of its own for each row: [B, *grid, D].

    Bilinear with aligned corners, as "corners" of `resize_grid`, and one program for all sizes.

    Args:
      sizes: [B, 2] int32, rows and columns of each; its table is at the top left of `grid`, and the
        rest has no meaning.
    """
    rows = _corner_weights(table.shape[0], sizes[:, 0], grid[0])
    columns = _corner_weights(table.shape[1], sizes[:, 1], grid[1])
    table = jnp.einsum("bHh,hwd->bHwd", rows, table, precision="highest")
    return jnp.einsum("bWw,bHwd->bHWd", columns, table, precision="highest")


def resize_at(table: jax.Array, cells: Cells) -> jax.Array:
    """A position table [h, w, D] resized to the grid of each image, at each patch: [B, N, D].

    As "linear" of `resize_grid`, and one program for all grids.
    Source: transformers, modeling_siglip2.py, resize_positional_embeddings.
    """
    rows, columns = (
        _linear_weights(old, cells.place[..., i], cells.grid[..., i])
        for i, old in enumerate(table.shape[:2])
    )
    weights = jnp.einsum("bnh,bnw->bnhw", rows, columns)
    weights, table = (
        rearrange(weights, "b n h w -> b n (h w)"),
        rearrange(table, "h w d -> (h w) d"),
    )
    return jnp.einsum("bnp,pd->bnd", weights, table, precision="highest")


def _linear_weights(old: int, at: jax.Array, new: jax.Array) -> jax.Array:
    """[B, N, old]: weights of the old rows for row `at` [B, N] of `new` [B, N]."""
    scale = old / new.astype(jnp.float32)
    center = (at.astype(jnp.float32) + 0.5) * scale
    far = jnp.abs(jnp.arange(old, dtype=jnp.float32)[None, None] + 0.5 - center[:, :, None])
    weights = jnp.maximum(1 - far / jnp.maximum(scale, 1.0)[:, :, None], 0.0)
    return weights / weights.sum(-1, keepdims=True)


def _corner_weights(old: int, sizes: jax.Array, longest: int) -> jax.Array:
    """[B, longest, old]: as `_weights` for "corners", to `sizes` [B] rows."""
    step = (old - 1) / jnp.maximum(sizes - 1, 1).astype(jnp.float32)
    at = jnp.arange(longest, dtype=jnp.float32)[None] * step[:, None]
    near = jnp.abs(at[:, :, None] - jnp.arange(old, dtype=jnp.float32)[None, None])
    return jnp.maximum(1 - near, 0)


def _weights(old: int, new: int, method: str) -> np.ndarray:
    """[new, old]: interpolation weights of the old rows for each new row."""
    if method == "corners":
        at = np.arange(new) * ((old - 1) / max(new - 1, 1))
        weights = np.maximum(1 - np.abs(at[:, None] - np.arange(old)), 0)
        return weights.astype(np.float32)
    return cubic_weights((np.arange(new) + 0.5) * (old / new) - 0.5, old)


def cubic_weights(at: np.ndarray, old: int) -> np.ndarray:
    """[new, old]: weights of the old samples in a bicubic interpolation at the places `at` [new].

    Keys' kernel with a = -0.75 over four neighbors, edges repeated, as in torch's interpolate.
    """
    near = np.floor(at).astype(int)[:, None] + np.arange(-1, 3)
    x, a = np.abs(at[:, None] - near), -0.75
    inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
    outer = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    weights = np.zeros((len(at), old), np.float32)
    rows = np.broadcast_to(np.arange(len(at))[:, None], near.shape)
    np.add.at(weights, (rows, near.clip(0, old - 1)), np.where(x <= 1, inner, outer))
    return weights


def sincos2d(
    grid: tuple[int, int],
    width: int,
    stored: tuple[int, int] | None = None,
    endpoint: bool = True,
) -> np.ndarray:
    """Fixed sinusoidal table [h, w, width] of a grid: sin x, cos x, sin y, cos y.

    Args:
      stored: the grid that the model was trained on. Another grid covers the same image, so it is
        scaled to the coordinates of the stored grid, like a resized learned table.
      endpoint: the frequencies end at 1e-4; otherwise one step before, as in MAE and DiT.

    Raises:
      ValueError: a width that is not a multiple of 4, or below 8.

    Source: MoCo v3, Chen et al. 2021 (arXiv 2104.02057), appendix; big_vision models/vit.py.
    """
    if width % 4 or width < 8:
        raise ValueError(f"'sincos2d' positions need a width that is a multiple of 4, not {width}.")
    stored = stored or grid
    omega = 10_000.0 ** -np.linspace(0.0, 1.0, width // 4, endpoint=endpoint)
    y, x = (((np.arange(n) + 0.5) * (m / n) - 0.5)[:, None] * omega for n, m in zip(grid, stored))
    y = np.broadcast_to(y[:, None], (*grid, width // 4))
    x = np.broadcast_to(x[None, :], (*grid, width // 4))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], -1).astype(np.float32)


def sincos1d(length: int, width: int) -> np.ndarray:
    """Fixed positions of a sequence [length, width], sines and cosines in turn.

    Raises:
      ValueError: an odd width.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    """
    if width % 2:
        raise ValueError(f"'sincos1d' positions need an even width, not {width}.")
    omega = 10_000.0 ** -(np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * omega
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)


def sinusoids(length: int, width: int) -> np.ndarray:
    """Fixed positions of a sequence [length, width]: the sines, then the cosines.

    Raises:
      ValueError: an odd width, or one below 4.

    Source: openai/whisper, model.py, sinusoids; Vaswani et al. 2017 (arXiv 1706.03762), section
    3.5, whose frequencies end one step later.
    """
    if width % 2 or width < 4:
        raise ValueError(f"Sinusoidal positions need an even width of at least 4, not {width}.")
    omega = 10_000.0 ** -np.linspace(0.0, 1.0, width // 2)
    angles = np.arange(length)[:, None] * omega
    return np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32)


class LearnedGrid(nn.Module):
    """A learned position table [h, w, D], resized to the requested grid.

    Attributes:
      stored: (h, w) of the parameter.
      resize: see `resize_grid`.
      std: initial standard deviation; None: width^-1/2.

    Raises:
      ValueError: `sizes` with another `resize` than "corners", or cells with another than
        "linear".
    """

    stored: tuple[int, int]
    width: int
    resize: str = "antialias"
    std: float | None = None

    @nn.compact
    def __call__(self, grid: tuple[int, int] | Cells, sizes: jax.Array | None = None) -> jax.Array:
        """[*grid, D]; with `sizes`, a table per row, [B, *grid, D]: see `resize_grids`. For the
        cells of rows of patches [B, N, D]: see `resize_at`."""
        table = param(
            self,
            "table",
            nn.initializers.normal(self.std or self.width**-0.5),
            (*self.stored, self.width),
            ("height", "width", "embed"),
        )
        if isinstance(grid, Cells):
            if self.resize != "linear":
                raise ValueError(
                    f"Positions of rows of patches are resized by 'linear', not '{self.resize}'."
                )
            return resize_at(table, grid)
        if sizes is None:
            return resize_grid(table, grid, self.resize)
        if self.resize != "corners":
            raise ValueError(f"Positions are resized per image by 'corners', not '{self.resize}'.")
        return resize_grids(table, sizes, grid)


class LearnedSequence(nn.Module):
    """A learned position table [length, D]; a shorter text uses its first rows.

    Raises:
      ValueError: a text longer than the table.
    """

    length: int
    width: int

    @nn.compact
    def __call__(self, positions: int | jax.Array) -> jax.Array:
        """For an int L the first L rows [L, D]; for positions [B, L] their rows [B, L, D]."""
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
                "model.text.length and the length in tokenize() to the same value."
            )
        return jnp.asarray(table[:positions])
