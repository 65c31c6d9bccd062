"""Heads that detect objects: each token of an image predicts one box and its similarity to queries.

Boxes of heads are (center x, center y, width, height), all other boxes (x0, y0, x1, y1); both are
fractions of the image's sides.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.layers.activations import activation
from mmjax.layers.linear import Linear

EPSILON = 1e-6  # added to norms, as in the original
MASKED = float(np.finfo(np.float32).min)  # logit of a padding query
BIAS_EPSILON = 1e-4  # keeps the logits of 0 and 1 finite


class MLPHead(nn.Module):
    """Two GELU layers as wide as the input, and a linear map that begins at 0: [..., D] -> [..., N]
    in fp32."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, act = x.shape[-1], activation("gelu")
        x = Linear((width,), ("embed", "mlp"), dtype=self.dtype, name="first")(x)
        x = Linear((width,), ("mlp", "embed"), dtype=self.dtype, before=act, name="second")(x)
        zeros = nn.initializers.zeros
        names = ("embed", None)
        last = Linear((self.features,), names, kernel_init=zeros, before=act, name="last")
        return last(x.astype(jnp.float32))


class QueryClassHead(nn.Module):
    """Cosine similarity of tokens and queries, with a learned shift and scale per token.

    Attributes:
      embed_dim: of the queries.
      prior_prob: of a detection; the initial bias of the logits.

    Source: OWL-ViT, Minderer et al. 2022 (arXiv 2205.06230), section 3.1; scenic,
    projects/owl_vit/layers.py, ClassPredictor.
    """

    embed_dim: int
    prior_prob: float = 0.01

    @nn.compact
    def __call__(
        self, x: jax.Array, queries: jax.Array | None = None, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """x [B, P, D] -> its class embeddings [B, P, E], not normalized, and, for queries
        [B, Q, E], logits [B, P, Q]; those where `mask` [B, Q] is false are `MASKED`."""
        normal = nn.initializers.normal(1e-6)
        x = x.astype(jnp.float32)
        embed = Linear((self.embed_dim,), ("embed", "joint"), kernel_init=normal, name="embed")(x)
        prior = math.log(self.prior_prob) - math.log1p(-self.prior_prob)
        shift = Linear(
            (1,), ("embed", None), bias_init=nn.initializers.constant(prior), name="shift"
        )(x)
        scale = jax.nn.elu(Linear((1,), ("embed", None), name="scale")(x)) + 1
        if queries is None:
            return embed, None
        logits = similarity(embed, queries)
        logits = (logits + shift) * scale
        return embed, logits if mask is None else jnp.where(mask[:, None], logits, MASKED)


def similarity(tokens: Float[Array, "b p e"], queries: Float[Array, "b q e"]) -> jax.Array:
    """Cosine similarities [B, P, Q], up to the original's epsilon."""

    def normed(x):
        return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + EPSILON)

    return jnp.einsum("bpe,bqe->bpq", normed(tokens), normed(queries))


def grid_bias(rows: int, columns: int) -> np.ndarray:
    """Logits of the initial boxes [rows * columns, 4] of patches, as (center, size).

    The size is that of a patch, and the center its bottom right corner: the original counts the
    patches from 1 (scenic, projects/owl_vit/utils.py, compute_box_bias).
    """
    y, x = np.meshgrid(np.arange(1, rows + 1), np.arange(1, columns + 1), indexing="ij")
    center = np.stack([x / columns, y / rows], axis=-1).reshape(-1, 2)
    size = np.broadcast_to([1 / columns, 1 / rows], center.shape)
    boxes = np.concatenate([center, size], axis=-1).astype(np.float32)
    epsilon = np.float32(BIAS_EPSILON)
    return np.log(boxes + epsilon) - np.log1p(-boxes + epsilon)


def corners(boxes: Float[Array, "*b 4"]) -> jax.Array:
    """(center x, center y, width, height) -> (x0, y0, x1, y1)."""
    center, size = jnp.split(boxes, 2, axis=-1)
    return jnp.concatenate([center - size / 2, center + size / 2], axis=-1)
