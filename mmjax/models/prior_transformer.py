"""The transformer of a diffusion prior: from a text to the embedding of an image of it."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.transformer import Transformer
from mmjax.layers.unet_blocks import TimeEmbedding
from mmjax.models.build import build
from mmjax.sharding import shard
from mmjax.system import BUFFERS, System


class Prior(nn.Module):
    """The fields of a transformer from a text to the embedding of an image of it.

    Attributes:
      embed_dim: of the embeddings of text and image; text_width: of the text's tokens; length: how
        many there are.
      width, depth, heads: of the transformer; mlp_dim: None: four times the width.
    """

    embed_dim: int
    text_width: int
    length: int
    width: int
    depth: int
    heads: int
    mlp_dim: int | None = None
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"


class PriorTransformer(Prior):
    """The clean image embedding, of a CLIP, from a noisy one and a text.

    A causal transformer over the text's tokens, its embedding, the timestep, the noisy embedding
    and a learned query, whose output predicts the clean embedding.

    batch: noisy_embed [B, E], in units of the standard deviation; time [B]; text_tokens [B, L, C];
    text_mask [B, L] bool; text_embed [B, E]. It gives clean_embed [B, E] in the same units, and
    predicted_embed [B, E] in those of embeddings.

    In place of noisy_embed it may have image_embed [B, E], with noise [B, E] and its level, alpha
    and sigma [B]; then it also gives target_embed [B, E], which clean_embed should be.

    Attributes: those of `Prior` (embed_dim: E; text_width: C; length: L).

    The buffers `mean` and `deviation` [E] are those of image embeddings, 0 and E^-1/2 by default,
    the deviation of unit vectors of all directions.

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2.2; PriorTransformer of diffusers 0.42,
    whose sequence is that of Karlo.
    """

    @property
    def sequence(self) -> int:
        """Positions of the transformer: the tokens and four more."""
        return self.length + 4

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        rows, normal = len(batch["time"]), nn.initializers.normal
        size = (self.embed_dim,)
        mean = self.variable(BUFFERS, "mean", lambda: jnp.zeros(size)).value[None]
        unit = self.embed_dim**-0.5
        deviation = self.variable(BUFFERS, "deviation", lambda: jnp.full(size, unit)).value[None]
        outputs, noisy = {}, batch.get("noisy_embed")
        if noisy is None:
            outputs["target_embed"] = (batch["image_embed"] - mean) / deviation
            alpha, sigma = batch["alpha"][:, None], batch["sigma"][:, None]
            noisy = alpha * outputs["target_embed"] + sigma * batch["noise"]

        def embed(x: jax.Array, name: str) -> jax.Array:
            init = normal(x.shape[-1] ** -0.5)
            names = (None, "embed")
            y = Linear((self.width,), names, dtype=self.dtype, kernel_init=init, name=name)(x)
            return y if y.ndim == 3 else y[:, None]

        time = TimeEmbedding(self.width, self.width, dtype=self.dtype, name="time")
        query = param(self, "query", normal(0.02), (self.width,), ("embed",))
        x = jnp.concatenate(
            [
                embed(batch["text_tokens"], "token_proj"),
                embed(batch["text_embed"], "text_proj"),
                time(batch["time"])[:, None],
                embed(noisy, "image_proj"),
                jnp.broadcast_to(query.astype(activation_dtype(self.dtype)), (rows, 1, self.width)),
            ],
            axis=1,
        )
        shape, names = (self.sequence, self.width), (None, "embed")
        position = param(self, "position", normal(0.02), shape, names)
        x = shard(x + position.astype(x.dtype)[None], "batch", "length", "act_embed")
        mask = jnp.pad(batch["text_mask"], ((0, 0), (0, 4)), constant_values=True)
        x = Transformer(
            self.depth,
            self.heads,
            self.mlp_dim or 4 * self.width,
            causal=True,
            dropout=self.dropout,
            remat=self.remat,
            epsilon=1e-5,
            dtype=self.dtype,
            name="transformer",
        )(x, mask, train=train)
        x = LayerNorm(1e-5, self.dtype, name="norm")(x[:, -1])
        init = normal(self.width**-0.5)
        head = Linear((self.embed_dim,), ("embed", None), kernel_init=init, name="head")
        clean = head(x.astype(jnp.float32))
        return outputs | {"clean_embed": clean, "predicted_embed": mean + deviation * clean}


def inputs(model: PriorTransformer) -> Spec:
    """The arrays that the transformer reads, for a batch of one."""
    arrays = {
        "noisy_embed": ((model.embed_dim,), jnp.float32),
        "time": ((), jnp.float32),
        "text_tokens": ((model.length, model.text_width), jnp.float32),
        "text_mask": ((model.length,), jnp.bool_),
        "text_embed": ((model.embed_dim,), jnp.float32),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}


def make_system(config: Mapping[str, Any]) -> System:
    """A published prior alone: it is trained with its CLIP, as a `diffusion_prior`.

    Raises:
      ValueError: an unknown setting.
    """
    model = build(PriorTransformer, config["model"])
    return System(model=model, spec=inputs(model), loss=None)
