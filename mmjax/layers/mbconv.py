"""Inverted bottleneck convolutions (MBConv), as in EfficientNet."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers import platform
from mmjax.layers.activations import activation
from mmjax.layers.batch_norm import FrozenBatchNorm
from mmjax.layers.depthwise import depthwise, same_padding
from mmjax.layers.linear import Linear, add_bias
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import height_width


class Convolution(nn.Module):
    """A convolution [B, H, W, C] -> [B, H', W', channels].

    Attributes:
      kernel: one side, or (height, width).
      padding: zeros (before, after), the same for height and width; None: as many on all sides as
        keep the size with a stride of 1; "same": as TensorFlow, for an output of H / stride rounded
        up, one more after than before where their number is odd.
      depthwise: each channel is convolved separately.
      groups: parts that the channels are split into, each convolved separately.
      names: logical axes of the kernel [height, width, inputs, channels].
    """

    channels: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: tuple[int, int] | str | None = None
    depthwise: bool = False
    use_bias: bool = False
    dtype: str = "float32"
    groups: int = 1
    names: tuple[str | None, ...] = (None, None, None, "channels")
    kernel_init: Callable = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups = self.channels if self.depthwise else self.groups
        sides = height_width(self.kernel)
        if self.padding == "same":
            padding = same_padding(x.shape[1:3], sides, self.stride)
        elif self.padding is None:
            padding = tuple((side // 2, side // 2) for side in sides)
        else:
            padding = (self.padding, self.padding)
        shape = (*sides, x.shape[-1] // groups, self.channels)
        kernel = param(self, "kernel", self.kernel_init, shape, self.names)
        stream = activation_dtype(self.dtype)
        if platform.current().depthwise_by_shifts and groups == x.shape[-1] == self.channels:
            y = depthwise(x.astype(stream), kernel.astype(stream), self.stride, padding)
        else:
            y = jax.lax.conv_general_dilated(
                x.astype(self.dtype),
                kernel.astype(self.dtype),
                window_strides=(self.stride, self.stride),
                padding=padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            ).astype(stream)
        if not self.use_bias:
            return y
        bias = param(self, "bias", nn.initializers.zeros, (self.channels,), self.names[-1:])
        return add_bias(y, bias)


class MBConv(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection.

    [B, H, W, C] -> [B, H', W', D].

    Attributes:
      expand: expansion ratio of the width; residual: add the input.
      squeezed: width of the squeeze-and-excitation; 0: none.
      padding: of the depthwise convolution, see `Convolution`.
      activation: see `layers/activations.py`.

    Source: EfficientNet, Tan and Le 2019 (arXiv 1905.11946), table 1; MobileNetV2, Sandler et al.
    2018 (arXiv 1801.04381), section 3; squeeze-and-excitation, Hu et al. 2018 (arXiv 1709.01507).
    """

    channels: int
    kernel: int
    stride: int
    expand: int
    squeezed: int
    residual: bool
    padding: tuple[int, int] | str
    activation: str = "silu"
    epsilon: float = 1e-3
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, names = self.expand * x.shape[-1], (None, "channels")
        act = activation(self.activation)

        def pointwise(y, channels, name, use_bias=False):
            return Linear((channels,), names, use_bias, self.dtype, name=name)(y)

        def norm(y, name):
            return FrozenBatchNorm(self.epsilon, self.dtype, name=name)(y)

        y = x
        if self.expand != 1:
            y = act(norm(pointwise(y, width, "expand"), "norm_expand"))
        y = Convolution(
            width,
            self.kernel,
            self.stride,
            self.padding,
            True,
            dtype=self.dtype,
            name="depthwise",
        )(y)
        y = act(norm(y, "norm_depthwise"))
        if self.squeezed:
            weight = y.astype(jnp.float32).mean((1, 2), keepdims=True).astype(y.dtype)
            weight = act(pointwise(weight, self.squeezed, "squeeze", True))
            y = y * jax.nn.sigmoid(pointwise(weight, width, "excite", True))
        y = norm(pointwise(y, self.channels, "project"), "norm_project")
        return x + y if self.residual else y
