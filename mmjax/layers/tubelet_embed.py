"""Tubelets: video cut into blocks of frames and pixels, one token each, with their positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.layers.linear import Linear
from mmjax.layers.parameters import param


def check_tubelets(frames: int, size: tuple[int, int], tubelet: tuple[int, int, int]) -> None:
    """Raise ValueError where frames, height and width are no multiples of the tubelet's."""
    if any(n % side for n, side in zip((frames, *size), tubelet)):
        raise ValueError(
            f"A video of {frames} frames of {size[0]}x{size[1]} pixels is not a multiple of the "
            f"tubelet {tubelet}: choose other frames or sizes."
        )


class TubeletEmbed(nn.Module):
    """A linear map of each tubelet: [B, T, H, W, 3] -> [B, T/t, H/p, W/q, width].

    Attributes:
      tubelet: (t, p, q): frames, height and width.

    Raises:
      ValueError: a video that is not a multiple of the tubelet.

    Source: Arnab et al. 2021 (arXiv 2103.15691, ViViT), section 3.2, "tubelet embedding".
    """

    tubelet: tuple[int, int, int]
    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        check_tubelets(video.shape[1], video.shape[2:4], self.tubelet)
        t, p, q = self.tubelet
        x = rearrange(video, "b (t s) (h p) (w q) c -> b t h w (s p q c)", s=t, p=p, q=q)
        return Linear((self.width,), ("patch", "embed"), dtype=self.dtype, name="projection")(x)


class TubeletPositions(nn.Module):
    """A learned position of each tubelet, [*grid, width]; `grid` is (T/t, H/p, W/q)."""

    grid: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        init = nn.initializers.normal(0.02)
        names = (*(None for _ in self.grid), "embed")
        return jnp.asarray(param(self, "table", init, (*self.grid, self.width), names))


def alternating_sinusoids(length: int, width: int) -> np.ndarray:
    """Fixed positions [length, width]: a sine and a cosine of each frequency by turns.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5; MCG-NJU/VideoMAE,
    modeling_finetune.py, get_sinusoid_encoding_table.
    """
    even = np.arange(width) // 2 * 2
    angles = np.arange(length)[:, None] / np.power(10_000.0, even / width)
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
