"""The Conformer block: convolution-augmented self-attention between two half-step MLPs."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import Attention
from mmjax.layers.linear import Linear, add_bias
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.stack import stack
from mmjax.sharding import shard


class DepthwiseTime(nn.Module):
    """A convolution of each channel over time, zeros around it: [B, T, D] -> [B, T, D].

    A sum of shifted products: XLA's CPU backend takes several times as long for the gradients of a
    grouped convolution.

    Attributes:
      kernel: frames, an odd number.

    Raises:
      ValueError: an even kernel.
    """

    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kernel % 2 == 0:
            raise ValueError(f"encoder.kernel is {self.kernel}: use an odd number of frames.")
        frames, width = x.shape[1:]
        init = nn.initializers.normal(self.kernel**-0.5)
        weights = param(self, "kernel", init, (self.kernel, width), (None, "embed"))
        weights = weights.astype(x.dtype)
        half = self.kernel // 2
        padded = jnp.pad(x, ((0, 0), (half, half), (0, 0)))
        y = sum(padded[:, i : i + frames] * weights[i][None, None] for i in range(self.kernel))
        bias = param(self, "bias", nn.initializers.zeros, (width,), ("embed",))
        return add_bias(y, bias)


class ConvolutionModule(nn.Module):
    """Norm, gated linear unit, depthwise convolution, norm, SiLU, linear map.

    The second norm is a layer norm over each frame's channels, where the paper has batch norm: it
    needs no statistics of the batch, and padding has no influence on it (torchaudio's alternative,
    a group norm over channels and time, depends on the padding).
    """

    kernel: int
    branches: int
    epsilon: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        width, stream = x.shape[-1], activation_dtype(self.dtype)
        normal = nn.initializers.normal
        y = LayerNorm(self.epsilon, self.dtype, name="norm")(x)
        names = ("embed", None, "mlp")
        y = Linear((2, width), names, dtype=self.dtype, kernel_init=normal(width**-0.5), name="in")(
            y
        )
        y = y[:, :, 0] * jax.nn.sigmoid(y[:, :, 1])
        y = DepthwiseTime(self.kernel, name="depthwise")(jnp.where(mask[:, :, None], y, 0))
        y = jax.nn.silu(LayerNorm(self.epsilon, stream, name="norm_depthwise")(y))
        init = normal((width * self.branches) ** -0.5)
        return Linear((width,), ("mlp", "embed"), dtype=self.dtype, kernel_init=init, name="out")(y)


class ConformerBlock(nn.Module):
    """x [B, T, D] -> [B, T, D]; frames whose mask is false do not influence the others.

    x + MLP / 2, + self-attention, + convolution module, + MLP / 2, norm. Attention has no relative
    positions, as in torchaudio; the paper's has those of Transformer-XL.

    Attributes:
      kernel: frames of the depthwise convolution.
      branches: residual branches of the whole stack, for the initial scale of their last maps.

    Source: Gulati et al. 2020 (arXiv 2005.08100), equation 1 and figures 2 to 4;
    `torchaudio.models.conformer.ConformerLayer`.
    """

    heads: int
    mlp_dim: int
    kernel: int
    branches: int = 4
    dropout: float = 0.0
    epsilon: float = 1e-5
    dtype: str = "float32"
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, None]:
        """The next x, and None (the form that `stack` needs); mask [B, T] bool."""
        width, stream = x.shape[-1], activation_dtype(self.dtype)
        normal = nn.initializers.normal
        dropout = nn.Dropout(self.dropout, deterministic=not self.train)

        def add(x, branch, scale=1.0):
            return shard(x + scale * dropout(branch), "batch", "length", "act_embed")

        def half_mlp(x, name):
            y = LayerNorm(self.epsilon, self.dtype, name=f"norm_{name}")(x)
            mlp = MLP(
                self.mlp_dim,
                "silu",
                self.dropout,
                self.dtype,
                self.train,
                self.branches,
                name=name,
            )
            return add(x, mlp(y), 0.5)

        x = half_mlp(x, "mlp_before")
        attention = Attention(
            self.heads,
            dtype=self.dtype,
            qkv_init=normal(width**-0.5),
            out_init=normal((width * self.branches) ** -0.5),
            name="attention",
        )
        y = LayerNorm(self.epsilon, self.dtype, name="norm_attention")(x)
        x = add(x, attention(y, mask=mask))
        convolution = ConvolutionModule(
            self.kernel, self.branches, self.epsilon, self.dtype, name="convolution"
        )
        x = half_mlp(add(x, convolution(x, mask)), "mlp_after")
        return LayerNorm(self.epsilon, stream, name="norm")(x), None


class Conformer(nn.Module):
    """`depth` blocks over [B, T, D]; every parameter has a leading `layers` axis."""

    depth: int
    heads: int
    mlp_dim: int
    kernel: int = 31
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool = False) -> jax.Array:
        """x after all blocks; mask [B, T] bool, true on valid frames."""
        layers = stack(ConformerBlock, self.depth, self, (nn.broadcast,), self.remat)(
            self.heads,
            self.mlp_dim,
            self.kernel,
            4 * self.depth,
            dropout=self.dropout,
            dtype=self.dtype,
            train=train,
            name="layers",
        )
        return layers(x, mask)[0]
