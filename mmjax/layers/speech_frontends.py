"""From a log-mel spectrogram, and from video of lips, to features at the video's frame rate.

Padding has no influence: frames whose mask is false are zeros in front of every map over time, and
norms are per frame.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.layers.linear import Linear, add_bias
from mmjax.layers.mbconv import Convolution
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.sharding import shard

STRIDE = 4  # frames of audio for one of the video: 100 Hz and 25 Hz
# Mean and standard deviation of gray lip images in 0..1: Martinez et al. 2020 (arXiv 2001.08702),
# mpc001/Lipreading_using_Temporal_Convolutional_Networks, `dataloaders.py`.
_MEAN, _STD = 0.421, 0.165


def zero_masked(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x [B, T, ...] with zeros where mask [B, T] is false."""
    return jnp.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, jnp.zeros((), x.dtype))


class AudioFrontEnd(nn.Module):
    """Two convolutions over time with stride 2: [B, 4 T, M] -> [B, T, width], and the mask [B, T].

    Source: the stem of Whisper (Radford et al. 2022, arXiv 2212.04356, section 2.2), with stride 2
    in both convolutions.
    """

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, audio: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = audio.astype(activation_dtype(self.dtype))
        for i in range(2):
            x = TimeConvolution(self.width, self.dtype, name=f"conv_{i}")(zero_masked(x, mask))
            mask = mask[:, ::2]
            x = shard(jax.nn.gelu(x), "batch", "length", "act_embed")
        return x, mask


class TimeConvolution(nn.Module):
    """A convolution over time, kernel 3 and stride 2: [B, T, C] -> [B, ceil(T / 2), width]."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, init = (3, x.shape[-1], self.width), nn.initializers.he_normal()
        kernel = param(self, "kernel", init, shape, (None, None, "embed"))
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(2,),
            padding=((1, 1),),
            dimension_numbers=("NTC", "TIO", "NTC"),
        ).astype(activation_dtype(self.dtype))
        bias = param(self, "bias", nn.initializers.zeros, (self.width,), ("embed",))
        return add_bias(y, bias)


class VideoFrontEnd(nn.Module):
    """A 3-D convolution, residual blocks per frame, mean: [B, T, H, W, 3] uint8 -> [B, T, width].

    The stem has 5 x 7 x 7 kernels, stride 1 x 2 x 2, and max pooling of 3 x 3, stride 2, on gray
    frames. Norms are group norms per frame: batch norm, as published, would couple the rows of a
    batch, so that microbatches would not be exact.

    Attributes:
      channels: of the stages; the first is also the stem's, and each further one halves the
        resolution. (64, 128, 256, 512) with two blocks is ResNet-18.
      blocks: residual blocks per stage.
      groups: of the norms; it divides all channels.

    Raises:
      ValueError: channels that `groups` does not divide.

    Source: Stafylakis and Tzimiropoulos 2017 (arXiv 1703.04105), section 3.1; Petridis et al. 2018
    (arXiv 1802.06424), section 3.
    """

    width: int
    channels: Sequence[int] = (64, 128, 256, 512)
    blocks: int = 2
    groups: int = 8
    dtype: str = "float32"

    @nn.compact
    def __call__(self, video: jax.Array, mask: jax.Array) -> jax.Array:
        wrong = [c for c in self.channels if c % self.groups]
        if wrong or not self.channels:
            raise ValueError(
                f"video.channels are {tuple(self.channels)}: give multiples of {self.groups}, the "
                "groups of the norms."
            )
        gray = (gray_levels(video) - _MEAN) / _STD
        x = zero_masked(gray, mask).astype(activation_dtype(self.dtype))
        x = Stem(self.channels[0], self.dtype, name="stem")(x)
        frames = x.shape[1]
        x = rearrange(x, "b t h w c -> (b t) h w c")  # from here on each frame for itself
        x = jax.nn.relu(GroupNorm(self.groups, self.dtype, name="norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, channels in enumerate(self.channels):
            for i in range(self.blocks):
                stride = 2 if stage and not i else 1
                settings = (channels, stride, self.groups, self.dtype)
                x = Residual(*settings, name=f"stage_{stage}_{i}")(x)
        x = rearrange(x, "(b t) h w c -> b t (h w) c", t=frames).mean(2)
        x = Linear((self.width,), (None, "embed"), dtype=self.dtype, name="projection")(x)
        return shard(x, "batch", "length", "act_embed")


def gray_levels(video: jax.Array) -> jax.Array:
    """[..., 3] uint8 -> [...] float32 in 0..1: the luma of ITU-R BT.601."""
    weights = jnp.asarray([0.299, 0.587, 0.114], jnp.float32) / 255
    return jnp.tensordot(video.astype(jnp.float32), weights, 1, precision="highest")


class Stem(nn.Module):
    """A convolution of 5 x 7 x 7, stride 1 x 2 x 2: [B, T, H, W] -> [B, T, H/2, W/2, channels].

    The five frames are channels of a 2-D convolution, which is the same map and several times as
    fast on CPU.
    """

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, init = (5, 7, 7, self.channels), nn.initializers.he_normal(in_axis=(0, 1, 2))
        kernel = param(self, "kernel", init, shape, (None, None, None, "channels"))
        frames = x.shape[1]
        padded = jnp.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)))
        around = jnp.stack([padded[:, i : i + frames] for i in range(5)], axis=-1)
        y = jax.lax.conv_general_dilated(
            rearrange(around, "b t h w five -> (b t) h w five").astype(self.dtype),
            rearrange(kernel, "five h w c -> h w five c").astype(self.dtype),
            window_strides=(2, 2),
            padding=((3, 3), (3, 3)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = rearrange(y, "(b t) h w c -> b t h w c", t=frames)
        return y.astype(activation_dtype(self.dtype))


class GroupNorm(nn.Module):
    """Normalization of each image over its pixels and a group's channels, statistics in fp32.

    Source: Wu and He 2018 (arXiv 1803.08494), equation 7.
    """

    groups: int
    dtype: str = "float32"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        wide = rearrange(x.astype(jnp.float32), "n h w (g c) -> n (h w) g c", g=self.groups)
        mean = wide.mean((1, 3), keepdims=True)
        centered = wide - mean
        rstd = jax.lax.rsqrt(jnp.square(centered).mean((1, 3), keepdims=True) + self.epsilon)
        y = (centered * rstd).reshape(x.shape)
        scale = param(self, "scale", nn.initializers.ones, (channels,), ("channels",))
        bias = param(self, "bias", nn.initializers.zeros, (channels,), ("channels",))
        y = y * scale[None, None, None] + bias[None, None, None]
        return y.astype(activation_dtype(self.dtype))


class Residual(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: [N, H, W, C] -> [N, H/stride, W/stride, channels].

    Source: He et al. 2015 (arXiv 1512.03385), section 3.
    """

    channels: int
    stride: int
    groups: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def convolution(x, kernel, stride, name):
            half, own = kernel // 2, {"dtype": self.dtype}
            conv = Convolution(self.channels, kernel, stride, (half, half), **own, name=name)
            return GroupNorm(self.groups, self.dtype, name=f"norm_{name}")(conv(x))

        y = jax.nn.relu(convolution(x, 3, self.stride, "conv_0"))
        y = convolution(y, 3, 1, "conv_1")
        if self.stride > 1 or x.shape[-1] != self.channels:
            x = convolution(x, 1, self.stride, "shortcut")
        return jax.nn.relu(x + y)
