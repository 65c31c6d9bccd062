"""A video tower of an image-text model: an image tower on every frame, and pooling over time."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.norm import LayerNorm
from mmjax.layers.pooling import AttentionPool
from mmjax.layers.position import LearnedSequence
from mmjax.layers.transformer import Transformer
from mmjax.models.vit import ViT

POOLS = ("mean", "transformer", "attention")


class Frames(nn.Module):
    """batch["image"] [B, M, H, W, 3], ["image_mask"] [B, M] -> image_features [B, width].

    The frames of a video are the images of an example: see `frames_as_images`. Frames that are not
    valid have no influence.

    Attributes:
      frames: M.
      image: fields of the `ViT`.
      pool: over time: "mean" (no parameters), "transformer" (a transformer with positions whose
        output is added to the frames' features, then the mean) or "attention" (with a learned
        query, see `AttentionPool`).
      depth, heads, mlp_dim: of the transformer; of the attention heads and mlp_dim.
      frozen: the image tower is frozen and runs in evaluation mode; what is above it is trained.

    Raises:
      ValueError: another pool.

    Source: Luo et al. 2021 (arXiv 2104.08860, CLIP4Clip), section 3.3: "meanP" and "seqTransf".
    """

    frames: int
    image: Mapping[str, Any]
    pool: str = "mean"
    depth: int = 4
    heads: int = 8
    mlp_dim: int = 2048
    frozen: bool = False
    dtype: str = "float32"

    def image_tower(self, **kwargs: Any) -> ViT:
        """The tower of a frame."""
        fields = {"dtype": self.dtype, **self.image}
        return ViT(**check_kwargs(ViT, fields, "config.model.image.image"), **kwargs)

    @property
    def train_size(self) -> tuple[int, int, int]:
        """(frames, height, width) of the videos."""
        return (self.frames, *self.image_tower(parent=None).train_size)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        if self.pool not in POOLS:
            raise ValueError(f"config.model.image.pool is '{self.pool}'; use one of {POOLS}.")
        image = batch["image"]
        mask = batch.get("image_mask", jnp.ones(image.shape[:2], bool))
        flat = {"image": rearrange(image, "b m h w c -> (b m) h w c")}
        found = self.image_tower(name="image")(flat, train=train and not self.frozen)
        x = rearrange(found["image_features"], "(b m) d -> b m d", m=image.shape[1])
        if self.frozen:
            x = jax.lax.stop_gradient(x)
        if self.pool == "attention":
            x = LayerNorm(dtype=self.dtype, name="norm")(x)
            pool = AttentionPool(self.heads, self.mlp_dim, dtype=self.dtype, name="pool")
            return {"image_features": pool(x, mask).astype(jnp.float32)}
        if self.pool == "transformer":
            place = LearnedSequence(self.frames, x.shape[-1], name="position")(x.shape[1])
            y = Transformer(
                depth=self.depth,
                heads=self.heads,
                mlp_dim=self.mlp_dim,
                dtype=self.dtype,
                name="temporal",
            )((x + place[None]).astype(x.dtype), mask, train=train)
            x = x + y.astype(x.dtype)
        count = jnp.maximum(mask.sum(1, dtype=jnp.float32), 1.0)[:, None]
        x = x.astype(jnp.float32)
        return {"image_features": jnp.sum(x, axis=1, where=mask[..., None]) / count}
