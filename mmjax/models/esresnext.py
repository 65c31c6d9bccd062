"""ESResNeXt: a residual network on a learned spectrogram of a waveform, as in AudioCLIP."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.batch import Batch
from mmjax.layers.batch_norm import BatchNorm
from mmjax.layers.fbsp import SplineFilters
from mmjax.layers.linear import Linear
from mmjax.layers.mbconv import Convolution
from mmjax.sharding import shard

BANDS = 3  # parts of the spectrum, the channels of the network's input
# The kernels of the attention after each stage, and after the pooling: (frequency, time).
KERNELS = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))


class ESResNeXt(nn.Module):
    """batch["waveform"] [B, T] in -1..1 -> audio_features [B, features].

    Also gives `filter_norm`, a scalar that training keeps small: the mean squared difference of the
    norms of the filters from 1. Waveforms of any length work; those of AudioCLIP have 44.1 kHz.
    Rows without audio (`audio_present` false) do not count in the statistics of the batch norms.

    Attributes:
      fft: size of the filters, of which there are fft / 2 + 1; window, hop: of the frames, samples.
      width: channels after the stem.
      layers: blocks of each stage; groups, group_width: of their convolutions, as in ResNeXt for
        64 channels.
      attends: stages are multiplied by an attention, a map of their input.
      features: size of the final linear map.

    Source: Guzhov et al. 2021 (arXiv 2104.11587); AudioCLIP, Guzhov et al. 2021 (arXiv 2106.13043),
    section 3.1.2; AndreyGuzhov/AudioCLIP, model/esresnet.
    """

    features: int
    samples: int = 220_500
    fft: int = 2048
    window: int = 1654
    hop: int = 561
    width: int = 64
    layers: tuple[int, ...] = (3, 4, 6, 3)
    groups: int = 32
    group_width: int = 4
    attends: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        waveform = shard(batch["waveform"], "batch", None)
        filters = SplineFilters(self.fft // 2 + 1, self.fft, name="filters")()
        x = self._decibels(waveform, filters)
        mode = {"train": train, "valid": batch.get("audio_present")}

        x = Convolution(self.width, 7, 2, dtype=self.dtype, name="stem_conv")(x)
        x = jax.nn.relu(BatchNorm(dtype=self.dtype, name="stem_norm")(x, **mode))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, depth in enumerate(self.layers):
            before = x
            for place in range(depth):
                x = GroupedBottleneck(
                    self.width << stage,
                    2 if stage and place == 0 else 1,
                    self.groups,
                    self.group_width,
                    self.dtype,
                    name=f"stage{stage}_block{place}",
                )(x, **mode)
            x = self._attended(x, before, stage, mode)
            x = shard(x, "batch", "height", "width", "channels")
        pooled = x.mean((1, 2), keepdims=True)
        pooled = self._attended(pooled, x, len(self.layers), mode)[:, 0, 0]
        names = ("embed", "joint")
        features = Linear((self.features,), names, dtype=self.dtype, name="head")(pooled)
        norms = jnp.sqrt(jnp.square(filters).sum((1, 2)))
        return {
            "audio_features": features.astype(jnp.float32),
            "filter_norm": jnp.square(norms - 1).mean(),
        }

    def _decibels(self, waveform: jax.Array, filters: jax.Array) -> jax.Array:
        """[B, T] -> [B, frequencies, frames, bands], power in decibels."""
        # 16-bit integers -32768..32767 mapped to -1..1 are not symmetric around 0.
        waveform = (waveform.astype(jnp.float32) * 32768 + 32768) * (2 / 65535) - 1
        frames = _frames(waveform, self.window, self.hop)
        if self.fft > self.window:  # frames are in the middle of the filters
            start = (self.fft - self.window) // 2
            filters = filters[:, start : start + self.window]
        both = jnp.einsum("bfw,nwc->bnfc", frames, filters, precision="highest")
        power = jnp.square(both).sum(-1)
        count = power.shape[1] // BANDS
        power = rearrange(power[:, : BANDS * count], "b (c n) f -> b n f c", c=BANDS)
        return 10 * jnp.log10(jnp.where(power > 0, power, 1e-18))

    def _attended(self, x: jax.Array, before: jax.Array, place: int, mode: dict) -> jax.Array:
        if not self.attends:
            return x
        attention = StageAttention(x.shape[-1], KERNELS[place], self.dtype, name=f"attend{place}")
        return x * attention(before, x.shape[1:3], **mode)


class GroupedBottleneck(nn.Module):
    """[B, H, W, C] -> [B, H / stride, W / stride, 4 · channels].

    Source: ResNeXt, Xie et al. 2017 (arXiv 1611.05431), figure 3(c); torchvision's Bottleneck.
    """

    channels: int
    stride: int
    groups: int
    group_width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None
    ) -> jax.Array:
        def normed(y, channels, name, kernel=1, stride=1, groups=1):
            options = {"dtype": self.dtype, "groups": groups, "name": f"conv_{name}"}
            y = Convolution(channels, kernel, stride, **options)(y)
            norm = BatchNorm(dtype=self.dtype, name=f"norm_{name}")
            return norm(y, train=train, valid=valid)

        inner, outer = self.channels * self.group_width // 64 * self.groups, 4 * self.channels
        y = jax.nn.relu(normed(x, inner, "in"))
        y = jax.nn.relu(normed(y, inner, "mid", 3, self.stride, self.groups))
        y = normed(y, outer, "out")
        if self.stride > 1 or x.shape[-1] != outer:
            x = normed(x, outer, "skip", 1, self.stride)
        return jax.nn.relu(x + y)


class StageAttention(nn.Module):
    """x [B, H, W, C], pooled to a size -> weights [B, *size, channels] in 0..1.

    Source: Guzhov et al. 2020, ESResNet (arXiv 2004.07301), section 3; model/esresnet/attention.py.
    """

    channels: int
    kernel: tuple[int, int]
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        size: tuple[int, int],
        *,
        train: bool = False,
        valid: jax.Array | None = None,
    ) -> jax.Array:
        x = adaptive_max_pool(x, size)
        options = {"depthwise": True, "use_bias": True, "dtype": self.dtype, "name": "depth"}
        x = Convolution(x.shape[-1], self.kernel, **options)(x)
        x = Linear((self.channels,), (None, "channels"), dtype=self.dtype, name="point")(x)
        norm = BatchNorm(dtype=self.dtype, name="norm")
        return jax.nn.sigmoid(norm(x, train=train, valid=valid))


def adaptive_max_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[B, H, W, C] -> [B, *size, C]: the maxima of windows that cover the image.

    Window i of n begins at floor(i H / n) and ends before ceil((i + 1) H / n), as in torch.
    """
    for axis, new in zip((1, 2), size):
        old = x.shape[axis]
        starts = np.arange(new) * old // new
        ends = -(-np.arange(1, new + 1) * old // new)
        index = np.minimum(starts[:, None] + np.arange((ends - starts).max()), ends[:, None] - 1)
        x = jnp.take(x, index, axis=axis).max(axis + 1)
    return x


def _frames(waveform: jax.Array, size: int, hop: int) -> jax.Array:
    """[B, T] -> [B, F, size]: frames with a window, zeros at both ends so that all are whole."""
    samples = waveform.shape[1]
    count = 1 + math.ceil(max(0, samples - size) / hop)
    missing = (count - 1) * hop + size - samples
    waveform = jnp.pad(waveform, ((0, 0), (missing // 2, missing - missing // 2)))
    index = np.arange(count)[:, None] * hop + np.arange(size)
    return waveform[:, index] * jnp.asarray(blackman_harris(size))[None, None]


def blackman_harris(size: int) -> np.ndarray:
    """The periodic window of four terms [size]. Source: Harris 1978, table 1."""
    angle = 2 * np.pi * np.arange(size) / size
    terms = (0.35875, -0.48829, 0.14128, -0.01168)
    return sum(a * np.cos(i * angle) for i, a in enumerate(terms)).astype(np.float32)
