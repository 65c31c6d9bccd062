"""The tokenizer of CCT: convolutions, each with ReLU and max pooling, instead of patches."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.mbconv import Convolution
from mmjax.layers.patch_embed import check_divides
from mmjax.layers.precision import activation_dtype


class ConvTokenizer(nn.Module):
    """[B, H, W, 3] -> tokens [B, H/patch, W/patch, width], that overlap.

    Convolutions without bias, of 64 channels but for the last, each followed by ReLU and 3x3 max
    pooling of stride 2. A kernel of 3 has stride 1, so that a layer halves the image, and one of 7
    stride 2, so that it takes a quarter; `patch` gives the number of layers.

    Raises:
      ValueError: an even kernel, a patch that no number of layers gives, or that does not divide
        the image.

    Source: Hassani et al. 2021 (arXiv 2104.05704), section 3.3; SHI-Labs/Compact-Transformers,
    utils/tokenizer.py and the strides of cct.py.
    """

    patch: int
    width: int
    kernel: int = 3
    dtype: str = "float32"

    @property
    def layers(self) -> int:
        """Number of convolutions."""
        step = 2 * self.stride
        count = 1
        while step**count < self.patch:
            count += 1
        if self.kernel % 2 == 0 or step**count != self.patch:
            raise ValueError(
                f"A 'conv_pool' stem with a kernel of {self.kernel} makes tokens of {step}, "
                f"{step**2}, ... pixels a side, not {self.patch}: change patch_size, or set "
                "stem_kernel to another odd number."
            )
        return count

    @property
    def stride(self) -> int:
        """Of each convolution."""
        return max(1, self.kernel // 2 - 1)

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        layers = self.layers
        check_divides(image.shape[1:3], self.patch)
        x = image.astype(activation_dtype(self.dtype))
        for i in range(layers):
            channels = self.width if i == layers - 1 else 64
            kind = {"stride": self.stride, "dtype": self.dtype, "name": f"conv{i}"}
            x = max_pool(jax.nn.relu(Convolution(channels, self.kernel, **kind)(x)))
        return x


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3x3 values at every second place: [B, H, W, C] >= 0 -> [B, H/2, W/2, C].

    Of shifted arrays, rows before columns: XLA's gradient of a pooling is slow on CPU.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        wide = jnp.pad(x, pad)
        parts = [jax.lax.slice_in_dim(wide, i, i + size, 2, axis) for i in range(3)]
        x = jnp.maximum(jnp.maximum(parts[0], parts[1]), parts[2])
    return x
