"""The multilayer perceptron of a transformer block."""

import flax.linen as nn
import jax

from mmjax.layers.activations import activation
from mmjax.layers.linear import Linear
from mmjax.sharding import shard


class MLP(nn.Module):
    """Two linear maps with an activation between: [B, L, D] -> [B, L, D].

    Attributes:
      gated: the activation of a third map multiplies the hidden units; with "silu" this is SwiGLU
        (Shazeer 2020, arXiv 2002.05202).
      branches: residual branches of the whole stack, for the initial scale of the last kernel.
      std: initial standard deviation of both kernels, instead.
    """

    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: str = "float32"
    train: bool = False
    branches: int = 2
    gated: bool = False
    use_bias: bool = True
    std: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        normal = nn.initializers.normal

        def hidden(name):
            h = Linear(
                (self.mlp_dim,),
                ("embed", "mlp"),
                self.use_bias,
                self.dtype,
                normal(self.std or (2 * width) ** -0.5),
                name=name,
            )(x)
            return shard(h, "batch", "length", "mlp")

        h, act = hidden("up"), activation(self.activation)
        drops = self.train and self.dropout > 0
        if self.gated:
            h = act(hidden("gate")) * h
        elif drops:
            h = act(h)
        h = nn.Dropout(self.dropout, deterministic=not self.train)(h)
        return Linear(
            (width,),
            ("mlp", "embed"),
            self.use_bias,
            self.dtype,
            kernel_init=normal(self.std or width**-0.5 * self.branches**-0.5),
            before=None if self.gated or drops else act,
            name="down",
        )(h)
