"""A stack of pre-LN transformer blocks whose parameters lie along one `layers` axis."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from mmjax.layers.activations import activation
from mmjax.layers.attention import MultiHeadAttention
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import broadcast_last, param
from mmjax.layers.precision import on_tpu
from mmjax.layers.stack import stack
from mmjax.layers.stochastic_depth import stochastic_depth
from mmjax.sharding import batch_parts, shard, spec


def _stream(x: jax.Array) -> jax.Array:
    """On TPUs: the residual stream [B, L, D] lies in memory as written, as the attention wants it.

    Left to itself, the compiler puts the batch beside the width and copies both ways in each block.
    """
    if not on_tpu():
        return x
    mesh = jax.sharding.get_abstract_mesh()

    def lay(x):
        return with_layout_constraint(x, Layout(major_to_minor=(0, 1, 2)))

    if mesh.empty or x.shape[0] % batch_parts(mesh):
        return lay(x)
    lies = spec("batch", "length", "act_embed")  # left to the partitioner, it would be gathered
    return jax.shard_map(lay, in_specs=lies, out_specs=lies, check_vma=False)(x)


class MLP(nn.Module):
    """Two linear maps with an activation between: [B, L, D] -> [B, L, D].

    Attributes:
      gated: the activation of a third map multiplies the hidden units; with "silu" that is SwiGLU
        (Shazeer 2020, arXiv 2002.05202).
    """

    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: str = "float32"
    train: bool = False
    depth: int = 1  # of the stack, for the scale of the last kernel
    gated: bool = False
    use_bias: bool = True

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
                normal((2 * width) ** -0.5),
                name=name,
            )(x)
            return shard(h, "batch", "length", "mlp")

        h, act = hidden("up"), activation(self.activation)
        h = act(hidden("gate")) * h if self.gated else act(h)
        h = nn.Dropout(self.dropout, deterministic=not self.train)(h)
        return Linear(
            (width,),
            ("mlp", "embed"),
            self.use_bias,
            self.dtype,
            kernel_init=normal(width**-0.5 * (2 * self.depth) ** -0.5),
            name="down",
        )(h)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
      gated_mlp: see `MLP`; qkv_bias: queries, keys and values have a bias.
      layer_scale: a learned factor for each channel of both branches, and its first value (Touvron
        et al. 2021, arXiv 2103.17239, eq. 4).

    Initial scales: attention width^-1/2, and the last map of each branch smaller by
    (2 depth)^-1/2, as in openai/CLIP (model.py, initialize_parameters).
    """

    heads: int
    mlp_dim: int
    depth: int
    causal: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    epsilon: float = 1e-6
    dtype: str = "float32"
    train: bool = False
    gated_mlp: bool = False
    qkv_bias: bool = True
    layer_scale: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | None, key_mask: jax.Array | None):
        normal, width = nn.initializers.normal, x.shape[-1]

        def add(x, branch, name):
            if self.layer_scale is not None:
                init = nn.initializers.constant(self.layer_scale)
                scale = param(self, f"scale_{name}", init, (width,), ("embed",))
                branch = branch * broadcast_last(scale.astype(branch.dtype), branch.ndim)
            branch = nn.Dropout(self.dropout, deterministic=not self.train)(branch)
            if self.train and drop_rate is not None:
                branch = stochastic_depth(branch, drop_rate, self.make_rng("dropout"))
            return _stream(shard(x + branch, "batch", "length", "act_embed"))

        x = _stream(x)
        y = LayerNorm(self.epsilon, self.dtype, name="norm_attention")(x)
        y = MultiHeadAttention(
            self.heads,
            self.causal,
            self.dtype,
            qkv_init=normal(width**-0.5),
            out_init=normal(width**-0.5 * (2 * self.depth) ** -0.5),
            qkv_bias=self.qkv_bias,
            name="attention",
        )(y, key_mask)
        x = add(x, y, "attention")
        y = LayerNorm(self.epsilon, self.dtype, name="norm_mlp")(x)
        y = MLP(
            self.mlp_dim,
            self.activation,
            self.dropout,
            self.dtype,
            self.train,
            self.depth,
            self.gated_mlp,
            name="mlp",
        )(y)
        return add(x, y, "mlp"), None


class Transformer(nn.Module):
    """`depth` blocks over [B, L, D]; every parameter has a leading `layers` axis.

    Attributes:
      stochastic_depth: rate of the last block; it grows linearly from 0 at the first.
      remat: "none", "full" (keep only the blocks' inputs) or "dots" (keep the matmuls' results).
      gated_mlp, qkv_bias, layer_scale: see `Block`.

    Raises:
      ValueError: an unknown `remat`.
    """

    depth: int
    heads: int
    mlp_dim: int
    causal: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    remat: str = "none"
    epsilon: float = 1e-6
    dtype: str = "float32"
    gated_mlp: bool = False
    qkv_bias: bool = True
    layer_scale: float | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, key_mask: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        rates = None
        if train and self.stochastic_depth:
            rates = jnp.linspace(0.0, self.stochastic_depth, self.depth)
        layers = stack(Block, self.depth, self, (0, nn.broadcast), self.remat)(
            self.heads,
            self.mlp_dim,
            self.depth,
            self.causal,
            self.activation,
            self.dropout,
            self.epsilon,
            self.dtype,
            train,
            self.gated_mlp,
            self.qkv_bias,
            self.layer_scale,
            name="layers",
        )
        return layers(x, rates, key_mask)[0]
