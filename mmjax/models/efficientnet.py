"""EfficientNet: a convolutional image tower, as in ALIGN, or a classifier, as EfficientNet-Lite."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.activations import activation
from mmjax.layers.batch_norm import FrozenBatchNorm
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.mbconv import Convolution, MBConv
from mmjax.layers.pixels import normalize
from mmjax.layers.sizes import TrainSize
from mmjax.models.build import build
from mmjax.models.vit import classifier
from mmjax.sharding import shard
from mmjax.system import System


def stage(channels: int, depth: int, kernel: int, stride: int, expand: int) -> tuple[int, ...]:
    """A stage of an `EfficientNet`: `depth` blocks, of which the first has the stride."""
    return channels, depth, kernel, stride, expand


def round_channels(channels: int, width: float, unit: int = 8) -> int:
    """Channels times the width coefficient, rounded to a multiple of the unit, at most 10% down.

    Source: the reference implementation of EfficientNet, efficientnet_builder.py, round_filters.
    """
    wide = channels * width
    near = max(unit, int(wide + unit / 2) // unit * unit)
    return near + unit if near < 0.9 * wide else near


class Lite(NamedTuple):
    """Width and depth coefficients of an EfficientNet-Lite, and the side of its images."""

    width: float
    depth: float
    size: int


# tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py.
LITES = {
    "lite0": Lite(1.0, 1.0, 224),
    "lite1": Lite(1.0, 1.1, 240),
    "lite2": Lite(1.1, 1.2, 260),
    "lite3": Lite(1.2, 1.4, 280),
    "lite4": Lite(1.4, 1.8, 300),
}
_STAGES = ((16, 1, 3, 1, 1), (24, 2, 3, 2, 6), (40, 2, 5, 2, 6), (80, 3, 3, 2, 6))
_STAGES += ((112, 3, 5, 1, 6), (192, 4, 5, 2, 6), (320, 1, 3, 1, 6))


def lite_fields(variant: str) -> dict[str, Any]:
    """The fields of an `EfficientNet` that make it one of `LITES`, without head for classes.

    Stem and last convolution are as wide in all of them, and the first and the last stage as deep.
    """
    width, depth, size = LITES[variant]
    names, inner = ("channels", "depth", "kernel", "stride", "expand"), range(1, len(_STAGES) - 1)
    stages = [dict(zip(names, values)) for values in _STAGES]
    for i, fields in enumerate(stages):
        fields["channels"] = round_channels(fields["channels"], width)
        fields["depth"] = math.ceil(fields["depth"] * depth) if i in inner else fields["depth"]
    return {
        "stem": 32,
        "stages": stages,
        "image_size": size,
        "image_mean": (127 / 255,) * 3,
        "image_std": (128 / 255,) * 3,
        "squeeze": 0.0,
        "padding": "same",
        "activation": "relu6",
        "head": 1280,
    }


class EfficientNet(TrainSize, nn.Module):
    """batch["image"] [B, H, W, 3] -> image_features [B, D], and logits [B, num_classes].

    The features are the mean over the last feature map, and D is its number of channels. Any image
    size works.

    Attributes:
      image_size: (H, W) of training.
      image_mean, image_std: of the pixels in [0, 1], per channel.
      stem: channels after the first convolution.
      stages: the fields of `stage`, for each stage.
      squeeze: width of squeeze-and-excitation, as a fraction of the block's input; 0: none.
      padding: of convolutions of stride 2: "even", as TensorFlow's for inputs of even sizes,
        whatever the size; or "same", as TensorFlow's for each size.
      centred: with "even", indices of the blocks that pad as many zeros before as after.
      head: channels of a last 1x1 convolution; None: no such convolution.
      pool: "mean", or "none", which gives the feature map, image_tokens [B, h · w, D], instead.
      num_classes: size of a classifier of the features; None: no classifier.

    Raises:
      ValueError: an unknown padding.

    Source: Tan and Le 2019 (arXiv 1905.11946); without head as in ALIGN (Jia et al. 2021, arXiv
    2102.05918) and transformers' AlignVisionModel; EfficientNet-Lite: tensorflow/tpu,
    models/official/efficientnet/lite.
    """

    stem: int
    stages: Sequence[Mapping[str, int]]
    image_size: int | tuple[int, int]
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    squeeze: float = 0.25
    padding: str = "even"
    centred: tuple[int, ...] = ()
    activation: str = "silu"
    head: int | None = None
    num_classes: int | None = None
    norm_epsilon: float = 1e-3
    pool: str = "mean"
    dtype: str = "float32"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last feature map of an image of `train_size`."""
        sides, up = self.train_size, self.padding == "same"
        for step in (2, *(fields["stride"] for fields in self.stages)):
            sides = tuple((side + (step - 1) * up) // step for side in sides)
        return sides

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        del train  # nothing is random
        if self.padding not in ("even", "same"):
            raise ValueError(
                f"padding of an EfficientNet is '{self.padding}'; use 'even' or 'same'."
            )
        if self.pool not in ("mean", "none"):
            raise ValueError(f"pool of an EfficientNet is '{self.pool}'; use 'mean' or 'none'.")
        act = activation(self.activation)
        image = shard(batch["image"], "batch", "height", "width", "channels")
        x = normalize(image, self.image_mean, self.image_std)
        x = Convolution(self.stem, 3, 2, self._padding(3, 2), dtype=self.dtype, name="stem")(x)
        x = act(FrozenBatchNorm(self.norm_epsilon, self.dtype, name="norm_stem")(x))
        count = 0
        for fields in self.stages:
            channels, depth, kernel, stride, expand = stage(
                **check_kwargs(stage, fields, "config.model.image.stages")
            )
            for place in range(depth):
                step = stride if place == 0 else 1
                x = MBConv(
                    channels,
                    kernel,
                    step,
                    expand,
                    squeezed=max(1, int(x.shape[-1] * self.squeeze)) if self.squeeze else 0,
                    residual=place > 0,
                    padding=self._padding(kernel, step, count in self.centred),
                    activation=self.activation,
                    epsilon=self.norm_epsilon,
                    dtype=self.dtype,
                    name=f"block{count}",
                )(x)
                x = shard(x, "batch", "height", "width", "channels")
                count += 1
        if self.head is not None:
            names = (None, "channels")
            x = Linear((self.head,), names, False, self.dtype, name="top")(x)
            x = act(FrozenBatchNorm(self.norm_epsilon, self.dtype, name="norm_top")(x))
        if self.pool == "none":
            return {"image_tokens": rearrange(x, "b h w c -> b (h w) c")}
        outputs = {"image_features": x.astype(jnp.float32).mean((1, 2))}
        if self.num_classes is not None:
            outputs["logits"] = class_head(self.num_classes)(outputs["image_features"])
        return outputs

    def _padding(self, kernel: int, stride: int, centred: bool = False) -> tuple[int, int] | str:
        """See `Convolution`."""
        if self.padding == "same":
            return "same"
        half = kernel // 2
        return (half if stride == 1 or centred else half - 1), half


def make_model(config: Mapping[str, Any]) -> EfficientNet:
    """The classifier that `config.model` describes. See `build`."""
    return build(EfficientNet, config)


def make_system(config: Mapping[str, Any]) -> System:
    """An EfficientNet classifier, whose batch norms stay as loaded; see `vit.classifier`.

    Raises:
      ValueError: an unknown setting.
    """
    return classifier(make_model(config["model"]), config["loss"])
