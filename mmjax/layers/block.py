"""The transformer block: residual branches of attention and an MLP."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from mmjax.layers import platform
from mmjax.layers.attention import Attention, is_decoding
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import norm_class
from mmjax.layers.parameters import broadcast_last, param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.stochastic_depth import stochastic_depth
from mmjax.sharding import batch_parts, shard, spec


def row_major(x: jax.Array) -> jax.Array:
    """The residual stream [B, L, D]; on TPUs constrained to the memory layout of attention.

    Otherwise the TPU compiler puts the batch next to the width, and copies to the layout of
    attention and back in each block.
    """
    if not platform.current().row_major_stream:
        return x
    mesh = jax.sharding.get_abstract_mesh()

    def constrain(x):
        return with_layout_constraint(x, Layout(major_to_minor=(0, 1, 2)))

    if mesh.empty or x.shape[0] % batch_parts(mesh):
        return constrain(x)
    split = spec("batch", "length", "act_embed")  # without shard_map it would be gathered
    return jax.shard_map(constrain, in_specs=split, out_specs=split, check_vma=False)(x)


class Block(nn.Module):
    """Residual branches over x [B, L, D]: attention, then an MLP.

    Attributes:
      mlp_dim: hidden units; 0: no MLP.
      branches: residual branches of the whole stack, for the initial scale of their last maps.
      kv_heads, head_dim, causal: of self-attention, see `Attention`.
      norm: "pre", x + branch(norm(x)), or "post", norm(x + branch(x)); "both", x + norm(branch(
        norm(x))) (Gemma Team 2024, arXiv 2408.00118, section 2); "between": as "pre", but the
        MLP's norm is of the residual stream itself, x = norm(x); x + mlp(x) (Hassani et al. 2021,
        SHI-Labs/Compact-Transformers, utils/transformers.py, TransformerEncoderLayer).
      norm_kind: "layer" or "rms".
      cross: "none": self-attention; "only": cross-attention to a context instead; "between":
        self-attention, then the branch `cross` to a context, then the MLP (Vaswani et al. 2017,
        section 3.1), which is skipped where there is no context.
      norm_context: the block normalizes the context.
      scale: a factor on each branch. None: no factor; a number: a learned factor per channel with
        that initial value (LayerScale, Touvron et al. 2021, arXiv 2103.17239, eq. 4); "tanh": the
        tanh of a learned scalar that is initially 0 (Flamingo, Alayrac et al. 2022, arXiv
        2204.14198, section 3.1.2). With "tanh", a token whose context mask is all false passes
        unchanged; in the paper the MLP branch would still change it.
      gated_mlp: see `MLP`; qkv_bias, out_bias, mlp_bias: which maps have biases; key_bias: see
        `Attention`.
      attention_dropout: of the attention weights in training.
      cache_length, rotary_magnitude: see `Attention`.
      attention_scale, logit_cap: scale and logit_cap of self-attention, see `Attention`.

    Initial standard deviations: with norm "pre", width^-1/2 in attention, and smaller by
    branches^-1/2 in the last map of each branch, as in openai/CLIP (model.py,
    initialize_parameters); with "post", in attention 0.02 at width 768, as in google-research/bert
    (modeling.py), and as much more as width^-1/2 at others: with 0.02 at width 128 the first tokens
    of different texts have a mean cosine of 0.9998, and contrastive training does not start. With
    "between" all are 0.02, as there.
    """

    heads: int
    mlp_dim: int
    branches: int = 2
    kv_heads: int | None = None
    head_dim: int | None = None
    causal: bool = False
    norm: str = "pre"
    norm_kind: str = "layer"
    cross: str = "none"
    norm_context: bool = False
    scale: float | str | None = None
    activation: str = "gelu"
    gated_mlp: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    dropout: float = 0.0
    epsilon: float = 1e-6
    dtype: str = "float32"
    train: bool = False
    cache_length: int = 0
    rotary_magnitude: float = 1.0
    key_bias: bool = True
    attention_dropout: float = 0.0
    attention_scale: float | None = None
    logit_cap: float | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        drop_rate: jax.Array | None = None,
        angles: jax.Array | None = None,
        slot: jax.Array | None = None,
    ) -> tuple[jax.Array, None]:
        """The next x, and None (the form that `stack` needs).

        Args:
          context: [B, S, Dc]; not used where a cache has its keys.
          mask: the attention mask of x; context_mask: that of the context. See `Attention`.
          drop_rate: of stochastic depth.
          angles, slot: of self-attention, see `Attention`.
        """
        x = row_major(x)
        if self.cross == "only":
            y = self._normed(x, "norm_attention")
            kv = None if context is None else self._keys(y, context)
            y = self._attention(x, cross=True)(y, kv, mask=context_mask)
            attends = _attends(context_mask, len(x)) if self.scale == "tanh" else None
        else:
            y, attends = self._normed(x, "norm_attention"), None
            y = self._attention(x)(y, mask=mask, angles=angles, slot=slot)
        x = self._add(x, y, "attention", drop_rate, attends)
        if self.cross == "between" and (context is not None or is_decoding(self)):
            own = {"cross": "only", "mlp_dim": 0, "causal": False, "kv_heads": None}
            x, _ = self.clone(**own, name="cross", parent=self)(
                x, context, None, context_mask, drop_rate
            )
        if not self.mlp_dim:
            return x, None
        mlp = MLP(
            self.mlp_dim,
            self.activation,
            self.dropout if self.norm != "post" else 0.0,
            self.dtype,
            self.train,
            self.branches,
            self.gated_mlp,
            self.mlp_bias,
            0.02 if self.norm == "between" else None,
            name="mlp",
        )
        y = self._normed(x, "norm_mlp")
        x = y if self.norm == "between" else x
        return self._add(x, mlp(y), "mlp", drop_rate, attends), None

    def _attention(
        self, x: jax.Array, cross: bool = False, kind: Callable[..., Attention] = Attention
    ) -> Attention:
        width, normal = x.shape[-1], nn.initializers.normal
        inits = {
            "qkv_init": normal(width**-0.5),
            "out_init": normal(width**-0.5 * self.branches**-0.5),
        }
        if self.norm == "post":
            inits = dict.fromkeys(inits, normal(0.02 * (768 / width) ** 0.5))
        elif self.norm == "between":
            inits = dict.fromkeys(inits, normal(0.02))
        return kind(
            self.heads,
            self.kv_heads,
            self.head_dim,
            cross,
            self.causal,
            self.qkv_bias,
            self.out_bias,
            self.dtype,
            self.cache_length,
            self.rotary_magnitude,
            **inits,
            key_bias=self.key_bias,
            dropout=self.attention_dropout if self.train else 0.0,
            scale=None if cross else self.attention_scale,
            logit_cap=None if cross else self.logit_cap,
            name="attention",
        )

    def _keys(self, y: jax.Array, context: jax.Array) -> jax.Array:
        """The input of the keys and values in attention of y [B, L, D] to a context."""
        del y
        if not self.norm_context:
            return context
        return norm_class(self.norm_kind)(self.epsilon, self.dtype, name="norm_context")(context)

    def _normed(self, x: jax.Array, name: str) -> jax.Array:
        """The input of a branch."""
        if self.norm == "post":
            return x
        return norm_class(self.norm_kind)(self.epsilon, self.dtype, name=name)(x)

    def _add(self, x, branch, name, drop_rate, attends):
        """Add a branch to x; `attends` [B, L, 1]: the tokens that the branch may change."""
        if self.norm == "both":
            dtype = activation_dtype(self.dtype)
            branch = norm_class(self.norm_kind)(self.epsilon, dtype, name=f"norm_{name}_out")(
                branch
            )
        if self.scale == "tanh":
            gate = param(self, f"gate_{name}", nn.initializers.zeros, (), ())
            branch = branch * jnp.tanh(gate).astype(branch.dtype)
        elif self.scale is not None:
            init = nn.initializers.constant(self.scale)
            scale = param(self, f"scale_{name}", init, x.shape[-1:], ("embed",))
            branch = branch * broadcast_last(scale.astype(branch.dtype), branch.ndim)
        if attends is not None:
            branch = jnp.where(attends, branch, jnp.zeros_like(branch))
        branch = nn.Dropout(self.dropout, deterministic=not self.train)(branch)
        if self.train and drop_rate is not None:
            branch = stochastic_depth(branch, drop_rate, self.make_rng("dropout"))
        x = x + branch
        if self.norm == "post":
            dtype = activation_dtype(self.dtype)
            x = norm_class(self.norm_kind)(self.epsilon, dtype, name=f"norm_{name}")(x)
        return row_major(shard(x, "batch", "length", "act_embed"))


def _attends(mask: jax.Array | None, rows: int) -> jax.Array | None:
    """[rows, L or 1, 1] bool: the tokens that attend to any of the context; None: all."""
    if mask is None:
        return None
    mask = mask[:, None] if mask.ndim == 2 else mask
    return jnp.repeat(mask.any(-1, keepdims=True), rows // len(mask), axis=0)  # beams share a row
