"""CLIP's residual network: a convolutional image tower with attention pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch
from mmjax.layers.attention import attend
from mmjax.layers.batch_norm import BatchNorm
from mmjax.layers.linear import Linear
from mmjax.layers.mbconv import Convolution
from mmjax.layers.parameters import param
from mmjax.layers.pixels import normalize
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import TrainSize
from mmjax.sharding import shard

EXPANSION = 4  # channels after a bottleneck, over those within


class ModifiedResNet(TrainSize, nn.Module):
    """batch["image"] [B, H, W, 3] -> image_features [B, features].

    Differs from a ResNet in a stem of three convolutions, average pooling before convolutions that
    would have a stride, and attention pooling. Image sizes are those of training. Rows without an
    image (`image_present` false) do not count in the statistics of the batch norms.

    Attributes:
      layers: blocks of each of the four stages; width: channels after the stem.
      heads: of the attention pooling, of width 32 · width.
      features: channels after it.
      image_size: (H, W), multiples of 32.
      image_mean, image_std: of the pixels in [0, 1], per channel.

    Raises:
      ValueError: an image size that is not a multiple of 32, or images of another one.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 2.4; openai/CLIP, model.py.
    """

    layers: tuple[int, ...]
    width: int
    heads: int
    features: int
    image_size: int | tuple[int, int] = (224, 224)
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        image = shard(batch["image"], "batch", "height", "width", "channels")
        if image.shape[1:3] != self.train_size or any(side % 32 for side in self.train_size):
            raise ValueError(
                f"config.model.image.image_size is {self.train_size} and the images are "
                f"{image.shape[1:3]}: a ResNet with attention pooling takes images of one size, a "
                "multiple of 32; resize them, or change the size."
            )
        x = normalize(image, self.image_mean, self.image_std)
        mode = {"train": train, "valid": batch.get("image_present")}
        for i in range(3):
            channels = self.width if i == 2 else self.width // 2
            stride = 2 if i == 0 else 1
            x = Convolution(channels, 3, stride, dtype=self.dtype, name=f"stem_conv{i}")(x)
            x = jax.nn.relu(BatchNorm(dtype=self.dtype, name=f"stem_norm{i}")(x, **mode))
        x = average_pool(x)
        for stage, depth in enumerate(self.layers):
            for place in range(depth):
                x = PooledBottleneck(
                    self.width << stage,
                    2 if stage and place == 0 else 1,
                    self.dtype,
                    name=f"stage{stage}_block{place}",
                )(x, **mode)
                x = shard(x, "batch", "height", "width", "channels")
        pool = MeanQueryPool(self.heads, self.features, self.dtype, name="pool")
        return {"image_features": pool(rearrange(x, "b h w c -> b (h w) c")).astype(jnp.float32)}


class PooledBottleneck(nn.Module):
    """[B, H, W, C] -> [B, H / stride, W / stride, 4 · channels], by average pooling.

    Source: He et al. 2015 (arXiv 1512.03385), figure 5, as changed in openai/CLIP, model.py.
    """

    channels: int
    stride: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None
    ) -> jax.Array:
        def normed(y, channels, kernel, name):
            y = Convolution(channels, kernel, dtype=self.dtype, name=f"conv_{name}")(y)
            norm = BatchNorm(dtype=self.dtype, name=f"norm_{name}")
            return norm(y, train=train, valid=valid)

        outer = EXPANSION * self.channels
        y = jax.nn.relu(normed(x, self.channels, 1, "in"))
        y = jax.nn.relu(normed(y, self.channels, 3, "mid"))
        if self.stride > 1:
            x, y = average_pool(x), average_pool(y)
        y = normed(y, outer, 1, "out")
        if self.stride > 1 or x.shape[-1] != outer:
            x = normed(x, outer, 1, "skip")
        return jax.nn.relu(x + y)


class MeanQueryPool(nn.Module):
    """Attention of the mean of the tokens to it and to all of them: [B, L, D] -> [B, features].

    Each has a learned position. Source: openai/CLIP, model.py, AttentionPool2d.
    """

    heads: int
    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, init = x.shape[-1], nn.initializers.normal(x.shape[-1] ** -0.5)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)
        names = ("length", "embed")
        position = param(self, "position", init, (x.shape[1], width), names)
        x = x + position.astype(x.dtype)[None]
        shape, heads = (self.heads, width // self.heads), ("heads", "head_dim")

        def linear(y, features, names, name):
            return Linear(features, names, dtype=self.dtype, kernel_init=init, name=name)(y)

        query = linear(x[:, :1], shape, ("embed", *heads), "query")
        both = linear(x, (2, *shape), ("embed", "qkv", *heads), "key_value")
        key, value = (both[:, :, i].swapaxes(1, 2) for i in range(2))
        pooled, _ = attend(query[:, :, :, None], key, value, dtype=activation_dtype(self.dtype))
        pooled = pooled[:, 0, :, 0]
        return linear(pooled, (self.features,), (*heads, "joint"), "out")


def average_pool(x: jax.Array) -> jax.Array:
    """The mean of each 2 x 2 pixels: [B, H, W, C] -> [B, H // 2, W // 2, C]."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
