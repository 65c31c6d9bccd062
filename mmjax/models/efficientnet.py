"""EfficientNet: a convolutional image tower, as in ALIGN."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.batch_norm import FrozenBatchNorm
from mmjax.layers.mbconv import Convolution, MBConv
from mmjax.layers.pixels import normalize
from mmjax.layers.sizes import height_width
from mmjax.sharding import shard


def stage(channels: int, depth: int, kernel: int, stride: int, expand: int) -> tuple[int, ...]:
    """A stage of an `EfficientNet`: `depth` blocks, of which the first has the stride."""
    return channels, depth, kernel, stride, expand


class EfficientNet(nn.Module):
    """batch["image"] [B, H, W, 3] -> image_features [B, D], the mean over the last feature map.

    D is the number of channels of the last stage. Any image size works.

    Attributes:
      image_size: (H, W) of training.
      image_mean, image_std: of the pixels in [0, 1], per channel.
      stem: channels after the first convolution.
      stages: the fields of `stage`, for each stage.
      squeeze: width of squeeze-and-excitation, as a fraction of the block's input.
      centred: indices of the blocks that pad symmetrically (see `MBConv`).

    Source: Tan and Le 2019 (arXiv 1905.11946), without its last 1x1 convolution, as in ALIGN
    (Jia et al. 2021, arXiv 2102.05918) and transformers' AlignVisionModel.
    """

    stem: int
    stages: Sequence[Mapping[str, int]]
    image_size: int | tuple[int, int]
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    squeeze: float = 0.25
    centred: tuple[int, ...] = ()
    norm_epsilon: float = 1e-3
    dtype: str = "float32"

    @property
    def train_size(self) -> tuple[int, int]:
        """(height, width) of the images in training."""
        return height_width(self.image_size)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        del train  # nothing is random
        image = shard(batch["image"], "batch", "height", "width", "channels")
        x = normalize(image, self.image_mean, self.image_std)
        x = Convolution(self.stem, 3, 2, (0, 1), dtype=self.dtype, name="stem")(x)
        x = jax.nn.silu(FrozenBatchNorm(self.norm_epsilon, self.dtype, name="norm_stem")(x))
        count = 0
        for fields in self.stages:
            channels, depth, kernel, stride, expand = stage(
                **check_kwargs(stage, fields, "config.model.image.stages")
            )
            for place in range(depth):
                x = MBConv(
                    channels,
                    kernel,
                    stride if place == 0 else 1,
                    expand,
                    squeezed=max(1, int(x.shape[-1] * self.squeeze)),
                    residual=place > 0,
                    centred=count in self.centred,
                    epsilon=self.norm_epsilon,
                    dtype=self.dtype,
                    name=f"block{count}",
                )(x)
                x = shard(x, "batch", "height", "width", "channels")
                count += 1
        return {"image_features": x.astype(jnp.float32).mean((1, 2))}
