"""A video tokenizer: 3-D convolutions, a quantizer, and convolutions back to the pixels.

Source: van den Oord et al. 2017 (arXiv 1711.00937); on video VideoGPT, Yan et al. 2021 (arXiv
2104.10157), section 3.1. Norms are over the channels of each position: with batch norm, as
published, the rows of a batch would depend on each other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, reduce

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.convolution3d import Convolution3D, zero_padding
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.precision import activation_dtype
from mmjax.layers.quantizer import Quantizer, updated, usage
from mmjax.layers.sizes import height_width
from mmjax.models.build import build
from mmjax.system import CODEBOOK, Context, Memory, Outputs, System, Terms, Weighted


class VideoVQ(nn.Module):
    """batch["video"] [B, T, H, W, 3] uint8, ["video_mask"] [B, T] -> codes and reconstruction.

    Gives `video_codes` [B, T/t, H/p, W/p] int32 with `video_code_mask` [B, T/t] bool (a code is
    valid if one of its frames is), `latents` [B, T/t, H/p, W/p, code_width] before the quantizer,
    `commitment` [B], the mean over its valid codes, and `reconstruction` [B, T, H, W, 3] float32,
    pixels in [-1, 1]. Frames that are not valid have no influence.

    Attributes:
      frames, size: T, and (H, W).
      channels: of the stages; each halves height and width, so that p is 2 ** len(channels).
      temporal: stages, the last ones, that also halve the number of frames.
      blocks: residual blocks after the stages, and before the pixels.
      codes, code_width: size of the codebook and of its vectors.

    Raises:
      ValueError: sizes that the stages do not divide.
    """

    frames: int
    size: int | tuple[int, int]
    channels: Sequence[int] = (64, 128)
    temporal: int = 1
    blocks: int = 2
    codes: int = 1024
    code_width: int = 64
    dtype: str = "float32"

    @property
    def train_size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return height_width(self.size)

    @property
    def reduction(self) -> tuple[int, int]:
        """Frames, and pixels of a side, that a code stands for."""
        return 2**self.temporal, 2 ** len(self.channels)

    def check(self) -> None:
        """Raise ValueError for sizes that the stages do not divide."""
        time, side = self.reduction
        if not 0 <= self.temporal <= len(self.channels):
            raise ValueError(
                f"config.model.temporal is {self.temporal}: of {len(self.channels)} stages 0 to "
                f"{len(self.channels)} can halve the number of frames."
            )
        if self.frames % time or any(s % side for s in self.train_size):
            raise ValueError(
                f"config.model has {self.frames} frames of {self.train_size} pixels: a code stands "
                f"for {time} frames and {side} x {side} pixels, so give multiples."
            )

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        del train  # nothing is random
        self.check()
        video = batch["video"]
        mask = batch.get("video_mask", jnp.ones(video.shape[:2], bool))
        x = (video.astype(jnp.float32) / 127.5 - 1).astype(activation_dtype(self.dtype))
        strides = self._strides()
        for stage, (channels, stride) in enumerate(zip(self.channels, strides)):
            kernel = (2 * stride[0] if stride[0] > 1 else 3, 4, 4)
            x = self._convolution(channels, kernel, stride, f"down{stage}")(zero_padding(x, mask))
            mask = reduce(mask, "b (t s) -> b t", "max", s=stride[0])
            x = jax.nn.relu(x)
        x = self._blocks(x, mask, "encoder")
        x = self._norm("encoder_norm")(x)
        latents = self._linear(self.code_width, "to_codes")(x).astype(jnp.float32)
        given = Quantizer(self.codes, self.code_width, name="quantizer")(latents)
        x = self._linear(self.channels[-1], "from_codes")(given.vectors)
        x = self._blocks(x, mask, "decoder")
        x = self._norm("decoder_norm")(x)
        for stage, (t, h, w) in reversed(list(enumerate(strides))):
            channels = self.channels[stage - 1] if stage else 3
            x = self._linear(channels * t * h * w, f"up{stage}")(x)
            x = rearrange(x, "b t h w (s p q c) -> b (t s) (h p) (w q) c", s=t, p=h, q=w)
            x = jax.nn.relu(x) if stage else x
        weight = mask.astype(jnp.float32)[:, :, None, None]
        area = given.codes.shape[2] * given.codes.shape[3]
        commitment = (given.commitment * weight).sum((1, 2, 3))
        return {
            "video_codes": given.codes,
            "video_code_mask": mask,
            "latents": latents,
            "commitment": commitment / jnp.maximum(mask.sum(1) * area, 1).astype(jnp.float32),
            "reconstruction": x.astype(jnp.float32),
        }

    def _strides(self) -> list[tuple[int, int, int]]:
        first = len(self.channels) - self.temporal
        return [(2 if stage >= first else 1, 2, 2) for stage in range(len(self.channels))]

    def _blocks(self, x: jax.Array, mask: jax.Array, name: str) -> jax.Array:
        """Residual blocks of a 3 x 3 x 3 convolution and a map, each after a norm and ReLU."""
        width = x.shape[-1]
        for i in range(self.blocks):
            y = jax.nn.relu(
                LayerNorm(dtype=self.dtype, axis="channels", name=f"{name}{i}_norm0")(x)
            )
            y = self._convolution(width, (3, 3, 3), (1, 1, 1), f"{name}{i}_convolution")(
                zero_padding(y, mask)
            )
            y = jax.nn.relu(
                LayerNorm(dtype=self.dtype, axis="channels", name=f"{name}{i}_norm1")(y)
            )
            x = x + self._linear(width, f"{name}{i}_linear")(y)
        return x

    def _convolution(self, channels, kernel, stride, name) -> Convolution3D:
        return Convolution3D(channels, kernel, stride, self.dtype, name=name)

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(dtype=activation_dtype(self.dtype), axis="channels", name=name)

    def _linear(self, channels: int, name: str) -> Linear:
        return Linear((channels,), (None, "channels"), dtype=self.dtype, name=name)


def make_model(config: Mapping[str, Any]) -> VideoVQ:
    """The tokenizer that `config.model` describes. See `build`.

    Raises:
      ValueError: an unknown setting, or sizes that do not fit.
    """
    model = build(VideoVQ, config)
    model.check()
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """A video tokenizer; for the settings of `config.loss` see `objectives`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    loss, remember = objectives(model, **check_kwargs(objectives, config["loss"], "config.loss"))
    spec = {
        "video": jax.ShapeDtypeStruct((1, model.frames, *model.train_size, 3), jnp.uint8),
        "video_mask": jax.ShapeDtypeStruct((1, model.frames), jnp.bool_),
    }
    return System(model=model, spec=spec, loss=loss, remember=remember)


def objectives(
    model: VideoVQ, decay: float = 0.99, revive: float = 0.1
) -> tuple[Callable[[Outputs, Batch, Context], Terms], Callable[..., Memory]]:
    """The loss, and `System.remember`.

    The loss gives `reconstruction` (mean square error of the pixels in [-1, 1] of valid frames),
    `commitment`, and of the batch `codes_used` and `perplexity`; see `quantizer.usage`.

    Args:
      decay, revive: see `quantizer.updated`.
    """

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        mask = batch["video_mask"]
        target = batch["video"].astype(jnp.float32) / 127.5 - 1
        error = jnp.square(outputs["reconstruction"] - target).mean((2, 3, 4))
        frames = mask.sum(1, dtype=jnp.float32)
        error = jnp.sum(error, 1, where=mask) / jnp.maximum(frames, 1.0)
        codes = outputs["video_codes"]
        return {
            "reconstruction": Weighted(error, frames),
            "commitment": Weighted(outputs["commitment"], frames),
            **usage(codes, model.codes, _valid(outputs)),
        }

    def remember(memory: Memory, outputs: Outputs, batch: Batch, context: Context) -> Memory:
        del batch
        book = memory[CODEBOOK]["quantizer"]
        given = outputs["latents"], outputs["video_codes"], _valid(outputs), context.rng[0]
        return {CODEBOOK: {"quantizer": updated(book, *given, decay=decay, revive=revive)}}

    return loss, remember


def _valid(outputs: Outputs) -> jax.Array:
    """[B, T, H, W] bool: the codes that stand for a valid frame."""
    mask = outputs["video_code_mask"][:, :, None, None]
    return jnp.broadcast_to(mask, outputs["video_codes"].shape)
