"""A head on the features of a frozen tower."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.linear import Linear
from mmjax.layers.parameters import param
from mmjax.layers.token_embed import look_up


class FeatureHead(nn.Module):
    """Features [B, D] of a frozen tower, and token ids [B, L], to [B, width] float32.

    Features are normalized to mean 0 and variance 1 each (layer norm without parameters), since a
    tower's own scale is arbitrary; then a linear map, plus a layer with GELU that is zero at first.

    Attributes:
      inner: width of that layer; 0: without it, the map is linear.
      dropout: of the normalized features.
      vocab_size: of the tokens; 0: tokens are not used. Otherwise a sum of embeddings is added, a
        bag of words: what a sentence encoder's vector blurs, which words a caption has exactly.
    """

    width: int
    inner: int = 512
    dropout: float = 0.0
    vocab_size: int = 0

    @nn.compact
    def __call__(
        self,
        features: jax.Array,
        tokens: jax.Array | None = None,
        mask: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        x = features.astype(jnp.float32)
        x = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        fan_in, names = nn.initializers.normal(x.shape[-1] ** -0.5), ("embed", "joint")
        y = Linear((self.width,), names, False, kernel_init=fan_in, name="linear")(x)
        if self.inner:
            zeros = nn.initializers.zeros
            up = Linear((self.inner,), names, kernel_init=fan_in, name="up")
            down = Linear((self.width,), names, False, kernel_init=zeros, name="down")
            y = y + down(nn.gelu(up(x), approximate=False))
        if not self.vocab_size:
            return y
        shape, init = (self.vocab_size, self.width), nn.initializers.normal(0.02)
        words = look_up(param(self, "words", init, shape, ("vocab", "embed")), tokens, "float32")
        rates = jnp.where(mask, 1.0, 0.0)
        words = nn.Dropout(self.dropout, broadcast_dims=(2,))(words, deterministic=not train)
        total = jnp.einsum("blw,bl->bw", words, rates)
        scale = self.width**0.5 * jax.lax.rsqrt(jnp.maximum(rates.sum(-1, keepdims=True), 1.0))
        return y + total * scale
