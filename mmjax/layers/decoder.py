"""A causal transformer stack with optional cross-attention to a context, and its KV cache.

The cache is the Linen collection `cache`, of static shape. Where the collection is mutable the
stack decodes: the first call (with `cache_length`) runs over the prompts and creates the cache;
each later call reads the cache and appends its tokens.

Every call writes its L tokens into the next L slots, the same slots for all rows; a row's mask says
which of its slots hold tokens, and only those count for its positions. So prompts of different
lengths share a batch, padded on either side. A cache of B rows and T slots holds

    seen        [B, T] bool               slots that hold a token of their row
    count       [B] int32                 tokens of each row so far
    slot        [] int32                  the next slot
    cross_seen  [B, S] bool               the context mask of the prompt's last token

and below `stack`, with the layers along the first axis,

    layer<i>/attention/key, value  [N, B, K, T, head_dim]   of the tokens so far
    cross/attention/key, value     [N, B, H, S, head_dim]   of the context: computed once

(plain cross-attention: layer<i>/cross/...; on CPU one array per layer, with B and K merged).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers import platform
from mmjax.layers.attention import is_decoding
from mmjax.layers.decoder_stack import DecodingStack, Group, join_depth, split_depth
from mmjax.layers.norm import norm_class
from mmjax.layers.packed import is_packing
from mmjax.layers.pooling import end_position
from mmjax.layers.position import LearnedSequence
from mmjax.layers.precision import activation_dtype
from mmjax.layers.rotary import frequencies, rotary_angles
from mmjax.layers.sparse_patterns import attends, check_patterns
from mmjax.layers.stack import stack
from mmjax.sharding import shard


class Decoder(nn.Module):
    """A causal stack over embedded tokens, [B, L, D] -> [B, L, D].

    Parameters: `stack/layers/...` have one `layers` axis of size `depth`, whatever `cross_every`
    is, so a language model's weights load into a Flamingo; those of cross-attention,
    `stack/cross/...`, have an axis of size depth / cross_every; `norm/...`, and where they are set,
    `position/...` and `norm_embedding/...`.

    Attributes:
      length: most tokens of a text.
      head_dim: None is width / heads; kv_heads: None is heads (see `Attention`).
      norm: "layer" or "rms"; gated_mlp with activation "silu" is SwiGLU.
      use_bias: of all linear maps; qkv_bias, out_bias and mlp_bias override it, and
        without key_bias the keys have none (see `Block`).
      positions: "learned", "rope" or "none".
      rope_scaling: of rotary positions, see `rotary.frequencies`; None: not scaled.
      embedding_norm: normalize the embedded tokens, with their positions, before the first layer.
      post_norm: norms after the residual branches and none at the end, as in BERT; see `Block`.
      branch_norm: norms of the results of the branches too, as in Gemma 2: `Block.norm` "both".
      query_dim: the logits of attention are query · key / sqrt(query_dim); None: of head_dim.
      attention_cap: a cap of these logits, see `attend`; None: none.
      sliding_window: a token attends to itself and to the tokens before it, that many in all
        (Jiang et al. 2023, arXiv 2310.06825, section 2); None: to all before it.
      windowed: of each layer, whether it has the sliding window; (): all have it.
      cross_every: layers per group; the last layer of each group attends to the context; 0: none.
      final_norm: apply a norm at the end, unless post_norm is set.
      cross_gated: Flamingo's gated layers before those layers, instead of cross-attention inside
        them; at initialization they are the identity.
      cross_block: a separate cross-attention block after those layers instead (see `Group`).
      patterns: of each layer, over a sequence of `length` tokens that ends with the codes of an
        image, `grid` (rows, columns) of them; (): full attention. See layers/sparse_patterns.py.
      kernel: of the pattern "convolution".
      remat: see `Transformer`; a group of `cross_every` layers is recomputed together.

    Raises:
      ValueError: inconsistent settings, a context that is missing or unused, a text that is too
        long, or longer than the cache.
    """

    depth: int
    heads: int
    mlp_dim: int
    length: int
    kv_heads: int | None = None
    head_dim: int | None = None
    norm: str = "layer"
    epsilon: float = 1e-6
    activation: str = "gelu"
    gated_mlp: bool = False
    use_bias: bool = True
    qkv_bias: bool | None = None
    out_bias: bool | None = None
    mlp_bias: bool | None = None
    key_bias: bool = True
    positions: str = "learned"
    embedding_norm: bool = False
    post_norm: bool = False
    branch_norm: bool = False
    query_dim: float | None = None
    attention_cap: float | None = None
    rope_base: float = 10_000.0
    rope_scaling: Mapping[str, Any] | None = None
    sliding_window: int | None = None
    windowed: Sequence[bool] = ()
    cross_every: int = 0
    cross_gated: bool = False
    cross_block: bool = False
    final_norm: bool = True
    patterns: Sequence[str] = ()
    grid: tuple[int, int] = (0, 0)
    kernel: int = 11
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        positions: jax.Array | None = None,
        packs: jax.Array | None = None,
        prefix: jax.Array | None = None,
        train: bool = False,
        cache_length: int = 0,
    ) -> jax.Array:
        """The stack's output for each token.

        Args:
          x: [B, L, D]; mask: [B, L] bool, true on valid tokens (None: all).
          context: [B, S, C]; not needed where a cache has it.
          context_mask: [B, S], or [B, L, S] with a mask per token, bool; a token whose mask is
            all false gets nothing from the context.
          positions: [B, L] int32, without a cache; None: the number of valid tokens before each.
          packs: [B, L] int32, the text of a row that each token belongs to, in ascending order: a
            token attends to its own text alone, whose positions begin at 0. Not while decoding.
          prefix: [B, L] bool, true on tokens that attend to one another whatever their order, and
            that all later ones see (Raffel et al. 2020, arXiv 1910.10683, section 3.2.1); a sliding
            window is one of what follows the prefix.
          cache_length: slots of the cache that the call creates, where `cache` is mutable.
        """
        batch, length, width = x.shape
        self._check(width, length, cache_length)
        if packs is not None and is_decoding(self):
            raise ValueError("Packed rows cannot be continued: give each text a row of its own.")
        x = x.astype(activation_dtype(self.dtype))
        head_dim = self.head_dim or width // self.heads
        mask = jnp.ones((batch, length), bool) if mask is None else mask
        old = self._cache() if self.has_variable("cache", "slot") else None

        # ---- positions and attention masks
        if positions is None:
            positions = _count(mask) if packs is None else packed_positions(mask, packs)
        slot, seen, key_positions = None, mask, positions
        if old is not None:
            slot = old["slot"]
            positions = positions + old["count"][:, None]
            seen = jax.lax.dynamic_update_slice_in_dim(old["seen"], mask, slot, 1)
            key_positions = _count(seen)
        if self.positions == "learned":
            x = x + LearnedSequence(self.length, width, name="position")(positions).astype(x.dtype)
        angles = None
        if self.positions == "rope":
            angles = rotary_angles(positions, head_dim, self.rope_base, self.rope_scaling)
        if self.embedding_norm:
            stream = activation_dtype(self.dtype)
            x = norm_class(self.norm)(self.epsilon, stream, name="norm_embedding")(x)
        context_seen = self._context_seen(context, context_mask, old)

        # ---- layers
        size = self.cross_every or 1
        cross = "gated" if self.cross_gated else "block" if self.cross_block else "plain"
        cross = cross if self.cross_every else None
        groups, block = self.depth // size, self._block(head_dim, train, cache_length)
        block |= {"causal": prefix is None}
        packing = is_packing(self) or self.has_variable("packed", "stack")
        if packing or (is_decoding(self) and platform.current().layers_apart):
            layers = DecodingStack(size, cross, block, groups, name="stack")
        else:
            layers = nn.map_variables(
                stack(Group, groups, self, (nn.broadcast, 0), self.remat),
                "params",
                trans_in_fn=lambda tree: split_depth(tree, size, cross),
                trans_out_fn=lambda tree: join_depth(tree, size),
                init=self.is_initializing(),
            )(size, cross, block, name="stack")
        pair, between = (positions, key_positions), (packs, prefix)
        window = self.sliding_window
        windows = window is not None and window < seen.shape[1]
        near = _between(self._in_window(seen, *pair) if windows else seen, seen, *between)
        own = {"mask": near, "angles": angles, "slot": slot}
        shared = {"own": own, "context": {"context": context, "context_mask": context_seen}}
        kinds = None
        if self.patterns:
            names = sorted(set(self.patterns))
            kinds = [names.index(x) for x in self.patterns]
            shared["masks"] = self._masks(names, near, *pair)
        elif self.windowed and windows:
            kinds = self.windowed
            whole = _per_query(_between(seen, seen, *between))
            shared["masks"] = jnp.stack(jnp.broadcast_arrays(whole, near))
        if kinds is not None:
            kinds = np.asarray(kinds, np.int32).reshape(groups, size)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x, _ = layers(shard(x, "batch", "length", "act_embed"), shared, kinds)

        if is_decoding(self):
            if old is None:
                self._make_cache(mask, context, context_seen, cache_length)
            else:
                self.put_variable("cache", "seen", seen)
                count = old["count"] + mask.sum(1, dtype=jnp.int32)
                self.put_variable("cache", "count", count)
                self.put_variable("cache", "slot", slot + length)
        if self.post_norm or not self.final_norm:
            return x
        return norm_class(self.norm)(self.epsilon, self.dtype, name="norm")(x)

    def _check(self, width: int, length: int, cache_length: int) -> None:
        if self.positions not in ("learned", "rope", "none"):
            raise ValueError(
                f"positions of a decoder is '{self.positions}'; use 'learned', 'rope' or 'none'."
            )
        if self.cross_gated and self.cross_block:
            raise ValueError("A decoder has cross_gated and cross_block: unset one of them.")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(
                f"sliding_window of a decoder is {self.sliding_window}: give at least 1, or None."
            )
        if self.rope_scaling is not None and self.positions != "rope":
            raise ValueError(
                f"rope_scaling of a decoder needs positions 'rope', not '{self.positions}'."
            )
        if self.head_dim is None and width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}: change one.")
        if self.cross_every and self.depth % self.cross_every:
            raise ValueError(
                f"depth {self.depth} is not a multiple of cross_every {self.cross_every}: "
                "change one."
            )
        if self.patterns:
            check_patterns(self.patterns, self.depth)
        if self.post_norm and self.branch_norm:
            raise ValueError("A decoder has post_norm and branch_norm: unset one of them.")
        self._check_windowed()
        if is_decoding(self) and not (cache_length or self.has_variable("cache", "slot")):
            raise ValueError("A decoder whose cache is mutable needs cache_length, or a cache.")
        if cache_length and length > cache_length:
            raise ValueError(
                f"The prompt has {length} tokens and the cache {cache_length} slots: give it more."
            )
        # While decoding, padding does not count, only positions, which `generate` checks.
        if length > self.length and not is_decoding(self):
            raise ValueError(
                f"A text of {length} tokens is longer than the model's {self.length}: set "
                "model.text.length and the length in tokenize() to the same value."
            )

    def _check_windowed(self) -> None:
        if not self.windowed:
            return
        if len(self.windowed) != self.depth:
            raise ValueError(
                f"windowed of a decoder has {len(self.windowed)} values and depth is {self.depth}: "
                "give one for each layer."
            )
        if self.sliding_window is None or self.patterns:
            has = "patterns" if self.patterns else "no sliding_window"
            raise ValueError(f"A decoder has windowed and {has}: unset windowed.")

    def _in_window(self, seen, positions, key_positions):
        """The attention mask of a window, [B, L, S]: `seen` [B, S], and near enough."""
        near = key_positions[:, None] > positions[:, :, None] - self.sliding_window
        return seen[:, None] & near

    def _masks(self, names, visible, positions, key_positions) -> jax.Array:
        """The attention mask `visible` with each of these patterns, [P, B, L, S]."""
        visible = _per_query(visible)
        pair = positions[:, :, None], key_positions[:, None]
        rows, columns = self.grid
        place = self.length - rows * columns, columns, self.kernel
        return jnp.stack([visible & attends(name, *pair, *place) for name in names])

    @property
    def biases(self) -> dict[str, bool]:
        """qkv_bias, out_bias and mlp_bias as they are used."""
        names = ("qkv_bias", "out_bias", "mlp_bias")
        given = {name: getattr(self, name) for name in names}
        return {k: self.use_bias if value is None else value for k, value in given.items()}

    def _context_seen(self, context, context_mask, old):
        """The context mask, [B, L or 1, S] bool; None: all valid."""
        if not self.cross_every:
            if context is not None:
                raise ValueError(
                    "A decoder without cross-attention got a context: set cross_every."
                )
            return None
        if old is not None and context_mask is None:
            return old["cross_seen"][:, None]
        if old is None and context is None:
            raise ValueError(
                f"A decoder with cross_every {self.cross_every} needs a context, such as an image."
            )
        if context_mask is None:
            return None
        return context_mask[:, None] if context_mask.ndim == 2 else context_mask

    def _block(self, head_dim: int, train: bool, cache_length: int) -> dict[str, Any]:
        """Fields of the blocks."""
        return {
            "heads": self.heads,
            "mlp_dim": self.mlp_dim,
            "branches": 2 if self.post_norm else 2 * self.depth,
            "norm": "post" if self.post_norm else "both" if self.branch_norm else "pre",
            "kv_heads": self.kv_heads,
            "head_dim": head_dim,
            "norm_kind": self.norm,
            "activation": self.activation,
            "gated_mlp": self.gated_mlp,
            **self.biases,
            "key_bias": self.key_bias,
            "dropout": self.dropout,
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "train": train,
            "cache_length": cache_length,
            "rotary_magnitude": self._magnitude(head_dim),
            "attention_scale": None if self.query_dim is None else self.query_dim**-0.5,
            "logit_cap": self.attention_cap,
        }

    def _magnitude(self, head_dim: int) -> float:
        """The factor of rotated queries and keys."""
        scaling = self.rope_scaling
        return 1.0 if scaling is None else frequencies(head_dim, self.rope_base, scaling)[1]

    def _cache(self) -> dict[str, jax.Array]:
        names = ("seen", "count", "slot", "cross_seen")
        return {n: self.get_variable("cache", n) for n in names if self.has_variable("cache", n)}

    def _make_cache(self, mask, context, context_seen, slots: int) -> None:
        """Store what is shared by all layers; the attention layers store keys and values."""
        batch, length = mask.shape
        self.put_variable("cache", "seen", jnp.pad(mask, ((0, 0), (0, slots - length))))
        self.put_variable("cache", "count", mask.sum(1, dtype=jnp.int32))
        self.put_variable("cache", "slot", jnp.asarray(length, jnp.int32))
        if not self.cross_every:
            return
        if context_seen is None:
            context_seen = jnp.ones((batch, 1, context.shape[1]), bool)
        if context_seen.shape[1] > 1:
            last = end_position(mask)[:, None, None]
            context_seen = jnp.take_along_axis(context_seen, last, axis=1)
        self.put_variable("cache", "cross_seen", context_seen[:, 0])


def _count(mask: jax.Array) -> jax.Array:
    """The number of valid tokens before each, [B, L] int32."""
    return jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def packed_positions(mask: jax.Array, packs: jax.Array) -> jax.Array:
    """The number of valid tokens of the same text before each, [B, L] int32; see `packs`."""
    count = _count(mask)
    begins = jnp.diff(packs, axis=1, prepend=packs[:, :1] - 1) != 0
    return count - jax.lax.cummax(jnp.where(begins, count, 0), axis=1)


def _per_query(visible: jax.Array) -> jax.Array:
    """A mask [B, S] as [B, 1, S]; [B, L, S] as it is."""
    return visible[:, None] if visible.ndim == 2 else visible


def _between(
    visible: jax.Array, seen: jax.Array, packs: jax.Array | None, prefix: jax.Array | None
) -> jax.Array:
    """`visible`, [B, S] or [B, L, S], restricted to the texts of packed rows, and to what is seen
    of a prefix, whose tokens attend to all of it that is in `seen` [B, S]."""
    if packs is None and prefix is None:
        return visible
    visible = _per_query(visible)
    if prefix is not None:
        place = jnp.arange(prefix.shape[1])
        past = place[None, None] <= place[None, :, None]
        mutual = prefix[:, None] & prefix[:, :, None] & seen[:, None]
        visible = (visible & past) | mutual
    if packs is not None:
        visible = visible & (packs[:, :, None] == packs[:, None])
    return visible
