"""Convolutions over frames, height and width of video, without influence of padding frames."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.layers.linear import add_bias
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype


def zero_padding(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x [B, T, H, W, C] with zeros in the frames where mask [B, T] is false."""
    return jnp.where(mask[:, :, None, None, None], x, jnp.zeros((), x.dtype))


class Convolution3D(nn.Module):
    """A convolution [B, T, H, W, C] -> [B, ceil(T/s), ceil(H/s), ceil(W/s), channels].

    The frames of a kernel are channels of a 2-D convolution, which is the same map and on CPU many
    times as fast.

    Attributes:
      kernel, stride: over (frames, height, width). Zeros are added so that a stride of 1 keeps the
        size; with an even kernel, one more after than before.
    """

    channels: int
    kernel: tuple[int, int, int] = (3, 3, 3)
    stride: tuple[int, int, int] = (1, 1, 1)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel, x.shape[-1], self.channels)
        init = nn.initializers.he_normal(in_axis=(0, 1, 2, 3))
        kernel = param(self, "kernel", init, shape, (None, None, None, None, "channels"))
        (time, *sides), (step, *steps) = self.kernel, self.stride
        count = -(-x.shape[1] // step)
        padded = jnp.pad(x, ((0, 0), ((time - 1) // 2, time // 2), *((0, 0),) * 3))
        last = step * (count - 1) + 1
        around = jnp.stack([padded[:, i : i + last : step] for i in range(time)], axis=-2)
        y = jax.lax.conv_general_dilated(
            rearrange(around, "b t h w s c -> (b t) h w (s c)").astype(self.dtype),
            rearrange(kernel, "s h w c d -> h w (s c) d").astype(self.dtype),
            window_strides=steps,
            padding=[((k - 1) // 2, k // 2) for k in sides],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).astype(activation_dtype(self.dtype))
        y = rearrange(y, "(b t) h w d -> b t h w d", t=count)
        bias = param(self, "bias", nn.initializers.zeros, (self.channels,), ("channels",))
        return add_bias(y, bias)
