"""VideoMAE's decoder: pixels of all tubelets from the tokens of those that are not masked."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.transformer import Transformer
from mmjax.layers.tubelet_embed import alternating_sinusoids
from mmjax.sharding import shard


class VideoDecoder(nn.Module):
    """Tokens [B, K, D] of some tubelets -> pixels [B, N, P] of all; a mask token is where none is.

    Attributes:
      tubelets, pixels: N and P, the numbers in a tubelet.
      qkv_bias, key_bias: see `Transformer`.

    Source: Tong et al. 2022 (arXiv 2203.12602), section 3.3; transformers 5.23,
    VideoMAEForPreTraining.
    """

    tubelets: int
    pixels: int
    width: int = 384
    depth: int = 4
    heads: int = 6
    mlp_dim: int = 1536
    activation: str = "gelu"
    epsilon: float = 1e-12
    qkv_bias: bool = True
    key_bias: bool = False
    remat: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b k d"],
        visible: Int[Array, "b k"],
        valid: Bool[Array, "b n"] | None,
        train: bool = False,
    ) -> Float[Array, "b n p"]:
        """Pixels, in fp32.

        Args:
          visible: the tubelet of each token, in ascending order; valid: which are attended to.
        """
        stream, init = activation_dtype(self.dtype), nn.initializers.normal(0.02)
        x = Linear(
            (self.width,), ("embed", None), use_bias=False, dtype=self.dtype, name="from_encoder"
        )(tokens)
        mask_token = param(self, "mask_token", init, (self.width,), ("embed",))
        seen = (visible[:, :, None] == jnp.arange(self.tubelets)[None, None]).any(axis=1)
        place = jnp.maximum(jnp.cumsum(seen, axis=1, dtype=jnp.int32) - 1, 0)
        x = jnp.take_along_axis(x, place[..., None], axis=1)
        x = jnp.where(seen[..., None], x, mask_token.astype(x.dtype)[None, None])
        positions = jnp.asarray(alternating_sinusoids(self.tubelets, self.width))
        x = (x + positions.astype(x.dtype)[None]).astype(stream)
        x = Transformer(
            self.depth,
            self.heads,
            self.mlp_dim,
            activation=self.activation,
            remat=self.remat,
            epsilon=self.epsilon,
            dtype=self.dtype,
            qkv_bias=self.qkv_bias,
            key_bias=self.key_bias,
            name="transformer",
        )(shard(x, "batch", "length", "act_embed"), valid, train=train)
        x = LayerNorm(1e-5, name="norm")(x)
        return Linear((self.pixels,), ("embed", "patch"), name="head")(x)
