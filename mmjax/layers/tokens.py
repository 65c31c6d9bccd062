"""Per-modality input embeddings: images, audio and text as tokens, before any attention."""

import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.layers.linear import Linear
from mmjax.layers.parameters import param
from mmjax.layers.patch_embed import check_divides, patchify
from mmjax.layers.position import LearnedGrid, LearnedSequence
from mmjax.layers.token_embed import look_up


@flax.struct.dataclass
class Tokens:
    """The output of a modality's embedding.

    Fields:
      x: [B, L, D], without positions; position: [L, D].
      mask: [B, L] bool, true on tokens.
      content: the input of each token: values [B, L, P] fp32, or ids [B, L] int32.
    """

    x: jax.Array
    position: jax.Array
    mask: jax.Array
    content: jax.Array


class ImageTokens(nn.Module):
    """batch["image"] [B, H, W, 3] uint8 as patches, pixels scaled to [-1, 1]."""

    width: int
    image_size: tuple[int, int]
    patch_size: int
    dtype: str = "float32"

    def spec(self) -> dict[str, tuple]:
        """Shape and dtype of each array of an example."""
        return {"image": ((*self.image_size, 3), jnp.uint8)}

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(B, tokens) of images [B, H, W, 3]."""
        return shape[0], shape[1] // self.patch_size * (shape[2] // self.patch_size)

    @nn.compact
    def __call__(self, batch: Batch) -> Tokens:
        image = batch["image"].astype(jnp.float32) / 127.5 - 1.0
        return _patches(self, image, self.image_size)


class AudioTokens(nn.Module):
    """batch["audio"] [B, frames, mels], a log-mel spectrogram, as square patches.

    Source: AST, Gong et al. 2021 (arXiv 2104.01778), section 2.1, without overlap.
    """

    width: int
    frames: int
    mels: int
    patch_size: int
    dtype: str = "float32"

    def spec(self) -> dict[str, tuple]:
        """Shape and dtype of each array of an example."""
        return {"audio": ((self.frames, self.mels), jnp.float32)}

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(B, tokens) of spectrograms [B, frames, mels]."""
        return shape[0], shape[1] // self.patch_size * (shape[2] // self.patch_size)

    @nn.compact
    def __call__(self, batch: Batch) -> Tokens:
        return _patches(self, batch["audio"][..., None], (self.frames, self.mels))


class TextTokens(nn.Module):
    """batch["text"] [B, L] int32 and batch["text_mask"] [B, L] bool as token embeddings."""

    width: int
    vocab_size: int
    length: int
    dtype: str = "float32"

    def spec(self) -> dict[str, tuple]:
        """Shape and dtype of each array of an example."""
        return {"text": ((self.length,), jnp.int32), "text_mask": ((self.length,), jnp.bool_)}

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(B, tokens) of texts [B, L]."""
        return shape

    @nn.compact
    def __call__(self, batch: Batch) -> Tokens:
        text = batch["text"]
        shape = (self.vocab_size, self.width)
        init = nn.initializers.normal(0.02)
        table = param(self, "embedding", init, shape, ("vocab", "embed"))
        position = LearnedSequence(self.length, self.width, name="position")(text.shape[1])
        mask = batch.get("text_mask", jnp.ones(text.shape, bool))
        return Tokens(look_up(table, text, self.dtype), position, mask, text)


TOKENS = {"image": ImageTokens, "audio": AudioTokens, "text": TextTokens}


def _patches(embed: nn.Module, image: jax.Array, size: tuple[int, int]) -> Tokens:
    """Patches of image [B, H, W, C]; the position table has the patch grid of `size`."""
    check_divides(size, embed.patch_size)
    content = patchify(image, embed.patch_size)
    batch, *grid, inside = content.shape
    stored = tuple(side // embed.patch_size for side in size)
    position = LearnedGrid(stored, embed.width, name="position")(tuple(grid))
    content = content.reshape(batch, math.prod(grid), inside)
    x = Linear((embed.width,), ("patch", "embed"), dtype=embed.dtype, name="projection")(content)
    position = position.reshape(math.prod(grid), embed.width)
    return Tokens(x, position, jnp.ones(content.shape[:2], bool), content)
