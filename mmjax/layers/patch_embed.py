"""Patch embeddings: from pixels to tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers import platform
from mmjax.layers.linear import Linear, linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype


def check_divides(size: tuple[int, int], patch: int) -> None:
    """Raise ValueError where `size` (height, width) is not a multiple of the patch size."""
    if size[0] % patch or size[1] % patch:
        raise ValueError(
            f"Image size {size[0]}x{size[1]} is not a multiple of patch_size {patch}: resize the "
            "images or change the patch size."
        )


def patchify(image: jax.Array, patch: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/patch, W/patch, patch*patch*C], pixels in (row, column, channel) order.

    Raises:
      ValueError: a height or width that is not a multiple of the patch.
    """
    batch, height, width, channels = image.shape
    check_divides((height, width), patch)
    grid = (height // patch, width // patch)
    image = image.reshape(batch, grid[0], patch, grid[1], patch * channels)
    return image.transpose(0, 1, 3, 2, 4).reshape(batch, *grid, patch * patch * channels)


class PatchEmbed(nn.Module):
    """A linear map of each patch: [B, H, W, 3] -> [B, H/patch, W/patch, width].

    Of rows of patches, [B, N, patch*patch*3] as `patchify` gives them -> [B, N, width].

    The kernel is [patch*patch*3, width]: a convolution with stride = size is this matmul, which
    is faster on every platform.
    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), eq. 1.
    """

    patch: int
    width: int
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        return Linear(
            (self.width,), ("patch", "embed"), self.use_bias, self.dtype, name="projection"
        )(patchify(image, self.patch) if image.ndim == 4 else image)


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2, then a 1x1: [B, H, W, 3] -> [B, H/patch, W/patch, width].

    Channels double from stage to stage up to `width`, each stage followed by a norm and ReLU.
    Source: Xiao et al. 2021, "Early convolutions help transformers see better" (arXiv 2106.14881,
    section 4); layer norm instead of batch norm, which would need running averages.

    Raises:
      ValueError: a patch size that is not a power of two, or a width that cannot be halved once
        per stage.
    """

    patch: int
    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        stages = self.patch.bit_length() - 1
        if self.patch < 2 or self.patch != 2**stages or self.width % 2 ** (stages - 1):
            raise ValueError(
                f"A 'conv' stem halves the image, so patch_size {self.patch} must be a power of "
                f"two and width {self.width} a multiple of {max(1, self.patch // 2)}."
            )
        check_divides(image.shape[1:3], self.patch)
        x = image
        for stage in range(stages):
            channels = self.width // 2 ** (stages - 1 - stage)
            x = Conv3x3(channels, self.dtype, name=f"conv{stage}")(x)
            x = LayerNorm(dtype=activation_dtype(self.dtype), axis="channels", name=f"norm{stage}")(
                x
            )
            x = jax.nn.relu(x)
        return Linear((self.width,), ("channels", "embed"), dtype=self.dtype, name="projection")(x)


class Conv3x3(nn.Module):
    """A 3x3 convolution of stride 2 without bias: [B, H, W, C] -> [B, H/2, W/2, channels]."""

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, 3, x.shape[-1], self.channels)
        kernel = param(
            self, "kernel", nn.initializers.he_normal(), shape, (None, None, None, "channels")
        )
        return conv3x3(x, kernel, self.dtype)


def conv3x3(x: jax.Array, kernel: jax.Array, dtype="float32") -> jax.Array:
    """Zero-padded convolution of stride 2: [B, H, W, C] with [3, 3, C, D] -> [B, H/2, W/2, D].

    On CPU it is an im2col and one matmul: XLA's own convolution takes 2.6 times as long there,
    forward and backward, and has no fast bf16.
    """
    if not platform.current().convolution_as_product:
        return jax.lax.conv_general_dilated(
            x.astype(dtype),
            kernel.astype(dtype),
            window_strides=(2, 2),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    window = [x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return linear(jnp.concatenate(window, axis=-1), matrix, dtype=dtype)


def drop_patches(tokens: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Keep a random subset of round((1 - rate) L) tokens of each example, in order.

    tokens [B, L, D] -> [B, K, D]. Source: FLIP, Li et al. 2023 (arXiv 2212.00794), section 3.
    """
    batch, length, _ = tokens.shape
    keep = max(1, round((1 - rate) * length))
    noise = jax.random.uniform(key, (batch, length))
    index = jnp.sort(jax.lax.top_k(noise, keep)[1], axis=-1)
    return jnp.take_along_axis(tokens, index[:, :, None], axis=1)
