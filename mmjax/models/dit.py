"""DiT: a transformer on the patches of an image or of latents, conditioned by adaptive norms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.layers.attention import Attention
from mmjax.layers.linear import Linear
from mmjax.layers.mlp import MLP
from mmjax.layers.parameters import param
from mmjax.layers.patch_embed import check_divides, patchify
from mmjax.layers.position import sincos2d
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import resolve
from mmjax.layers.stack import stack
from mmjax.layers.unet_blocks import ZEROS, TimeEmbedding
from mmjax.sharding import shard

# width, depth, heads: Peebles and Xie 2022 (arXiv 2212.09748), table 1.
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
TIME_FEATURES = 256


class PlainNorm(nn.Module):
    """Layer norm over the last axis without parameters, statistics in fp32, then x (1 + scale) +
    shift with scale and shift [B, D]."""

    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        centered = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        y = centered * jax.lax.rsqrt(variance + self.epsilon)
        shift, scale = (a.astype(jnp.float32)[:, None] for a in (shift, scale))
        return (y * (1 + scale) + shift).astype(self.dtype)


class DiTBlock(nn.Module):
    """x [B, L, D] and a condition [B, D], after its activation -> (the next x, None).

    The condition gives, for attention and for the MLP, the shift and the scale of a norm and a gate
    of the result, initially 0: adaLN-Zero.

    Attributes:
      epsilon, mlp_epsilon: of the two norms.

    Source: Peebles and Xie 2022 (arXiv 2212.09748), section 3.2; facebookresearch/DiT, models.py.
    """

    heads: int
    mlp_dim: int
    epsilon: float = 1e-6
    mlp_epsilon: float = 1e-6
    dropout: float = 0.0
    dtype: str = "float32"
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> tuple[jax.Array, None]:
        width, stream = x.shape[-1], str(activation_dtype(self.dtype))
        given = Linear(
            (6, width), ("embed", None, "mlp"), dtype=self.dtype, kernel_init=ZEROS, name="modulate"
        )(condition)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (given[:, i] for i in range(6))
        y = PlainNorm(self.epsilon, stream, name="norm_attention")(x, shift, scale)
        y = Attention(self.heads, dtype=self.dtype, name="attention")(y)
        x = x + gate[:, None] * y
        y = PlainNorm(self.mlp_epsilon, stream, name="norm_mlp")(x, mlp_shift, mlp_scale)
        y = MLP(self.mlp_dim, "gelu_tanh", self.dropout, self.dtype, self.train, name="mlp")(y)
        return shard(x + mlp_gate[:, None] * y, "batch", "length", "act_embed"), None


class DiT(nn.Module):
    """x [B, H, W, C] at times [B] -> [B, H, W, out_channels] in fp32.

    Attributes:
      variant: "S/2", "B/4", "L/8", "XL/2" and so on, of `SIZES`; width, depth, heads and patch_size
        override it.
      out_channels: twice those of a sample where the variance is learned.
      classes: rows of the table of class embeddings; 0: no classes.
      time_style: of the sinusoids, see `time_features`.
      remat: see `stack`.

    Raises:
      ValueError: sizes that are missing or do not fit.

    Source: as `DiTBlock`.
    """

    variant: str | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    patch_size: int | None = None
    mlp_ratio: float = 4.0
    out_channels: int = 4
    classes: int = 0
    epsilon: float = 1e-6
    mlp_epsilon: float = 1e-6
    time_style: str = "adm"
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @property
    def sizes(self) -> dict[str, int]:
        """width, depth, heads and patch_size, from the variant and the fields."""
        names = ("width", "depth", "heads", "patch_size")
        return resolve(_decode(self.variant), {n: getattr(self, n) for n in names}, "backbone")

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        *,
        label: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """The prediction; label [B] int32, rows of the table of classes."""
        sizes = self.sizes
        width, patch = sizes["width"], sizes["patch_size"]
        stream = activation_dtype(self.dtype)
        check_divides(x.shape[1:3], patch)
        grid = tuple(side // patch for side in x.shape[1:3])
        x = Linear((width,), ("patch", "embed"), dtype=self.dtype, name="stem")(patchify(x, patch))
        position = sincos2d(grid, width, endpoint=False)[None]
        x = rearrange(x + jnp.asarray(position, stream), "b h w d -> b (h w) d")
        x = shard(x, "batch", "length", "act_embed")

        time_map = TimeEmbedding(TIME_FEATURES, width, self.time_style, self.dtype, name="time")
        condition = time_map(time)
        if self.classes:
            if label is None:
                raise ValueError("This DiT has classes: it needs the labels of the images.")
            init = nn.initializers.normal(0.02)
            table = param(self, "class_table", init, (self.classes, width), ("classes", "embed"))
            condition = condition + jnp.take(table, label, axis=0).astype(stream)
        condition = jax.nn.silu(condition)

        blocks = stack(DiTBlock, sizes["depth"], self, (nn.broadcast,), self.remat)(
            sizes["heads"],
            int(self.mlp_ratio * width),
            self.epsilon,
            self.mlp_epsilon,
            self.dropout,
            self.dtype,
            train,
            name="layers",
        )
        x, _ = blocks(x, condition)
        last = Linear(
            (2, width), ("embed", None, None), dtype=self.dtype, kernel_init=ZEROS, name="modulate"
        )(condition)
        x = PlainNorm(1e-6, str(stream), name="norm")(x, last[:, 0], last[:, 1])
        x = Linear(
            (patch * patch * self.out_channels,),
            ("embed", "patch"),
            dtype=self.dtype,
            kernel_init=ZEROS,
            name="head",
        )(x)
        return rearrange(
            x.astype(jnp.float32),
            "b (h w) (p q c) -> b (h p) (w q) c",
            h=grid[0],
            p=patch,
            q=patch,
        )


def _decode(variant: str | None) -> dict[str, int]:
    """width, depth, heads and patch_size of "XL/2"; {} of None.

    Raises:
      ValueError: no size of `SIZES`, or another form.
    """
    if not variant:
        return {}
    size, _, patch = variant.removeprefix("DiT-").partition("/")
    if size not in SIZES or not patch.isdecimal():
        raise ValueError(
            f"The variant of a DiT is '{variant}': it is one of {', '.join(SIZES)} and the side of "
            "a patch, as in 'XL/2'."
        )
    return dict(zip(("width", "depth", "heads"), SIZES[size])) | {"patch_size": int(patch)}
