"""The interface that all fusions share, and the handling of missing modalities."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.layers.attention import MASKED
from mmjax.layers.fusion.reconstruction import Decoders, Reconstruction
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.pooling import pool_tokens
from mmjax.layers.precision import activation_dtype
from mmjax.layers.transformer import Transformer


@flax.struct.dataclass
class Stream:
    """A modality's tokens [B, L, D], mask [B, L] (true on tokens) and present [B], both bool."""

    tokens: jax.Array
    mask: jax.Array
    present: jax.Array


@flax.struct.dataclass
class Fused:
    """Features [B, D], one vector per example, and each modality's tokens [B, L, D], normalized;
    `reconstruction` of the modalities' features, where the fusion has decoders."""

    features: jax.Array
    tokens: dict[str, jax.Array]
    reconstruction: Reconstruction | None = None


class HasTransformers(nn.Module):
    """The fields of transformers over the tokens of a modality, or of all."""

    depth: int
    heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    epsilon: float = 1e-6
    dtype: str = "float32"

    def transformer(self, name: str) -> Transformer:
        """Self-attention blocks with these settings."""
        return Transformer(
            self.depth,
            self.heads,
            self.mlp_dim,
            activation=self.activation,
            dropout=self.dropout,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name=name,
        )


class Fusion(HasTransformers, kw_only=True):
    """The interface: {modality: Stream} -> Fused. A kind defines `fuse`.

    The tokens of a missing modality are replaced by one learned placeholder, so their values
    affect neither the output nor a gradient. A modality without a stream is missing from every
    example.

    Attributes:
      modalities: all that the model knows; their order matters only where a kind says so.
      depth: layers of the transformer over all tokens, or of each modality's own transformer.
      modality_dropout: probability with which a training step drops a present modality of an
        example; at least one is always kept.
      reconstruction: inner width of decoders of each modality's features, the mean of its tokens,
        from the other modalities; 0: none. The decoded features are then the one token of a
        modality that is missing, or dropped, and it counts as present.

    Raises:
      ValueError: a stream of an unknown modality, no stream, or one modality with a reconstruction.
    """

    modalities: tuple[str, ...]
    modality_dropout: float = 0.0
    reconstruction: int = 0

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Fused:
        unknown = sorted(set(streams) - set(self.modalities))
        if unknown or not streams:
            raise ValueError(
                f"A fusion of {', '.join(self.modalities)} was given {unknown or 'nothing'}: give "
                "it at least one of its modalities, and no other."
            )
        whole = streams
        if train and self.modality_dropout:
            streams = self._drop(streams)
        made = self._reconstruct(whole, streams) if self.reconstruction else None
        filled = {m: self._fill(m, streams, made) for m in self.modalities}
        return self.fuse(filled, train).replace(reconstruction=made)

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        """The fusion itself; gets a stream of every modality, in the order of `modalities`."""
        raise NotImplementedError

    def _drop(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        present = jnp.stack([s.present for s in streams.values()], axis=1)
        kept = drop_modalities(present, self.modality_dropout, self.make_rng("dropout"))
        return {m: s.replace(present=kept[:, i]) for i, (m, s) in enumerate(streams.items())}

    def _reconstruct(
        self, whole: Mapping[str, Stream], kept: Mapping[str, Stream]
    ) -> Reconstruction:
        """Every modality's features from the other ones that dropout has kept."""
        if len(self.modalities) < 2:
            raise ValueError(
                f"A reconstruction needs two modalities, and the model has {self.modalities}: add "
                "one, or set reconstruction of the fusion to 0."
            )
        some = next(iter(whole.values())).tokens
        pooled = [
            pool_tokens(whole[m].tokens, "mean", whole[m].mask)
            if m in whole
            else jnp.zeros((len(some), some.shape[-1]), some.dtype)
            for m in self.modalities
        ]
        nowhere = jnp.zeros(len(some), bool)
        present, given = (
            jnp.stack([s[m].present if m in s else nowhere for m in self.modalities], axis=1)
            for s in (whole, kept)
        )
        decoders = Decoders(
            self.modalities, self.reconstruction, self.activation, self.dtype, name="decoders"
        )
        return decoders(jnp.stack(pooled, axis=1), present, given)

    def _fill(
        self, modality: str, streams: Mapping[str, Stream], made: Reconstruction | None
    ) -> Stream:
        """The modality's stream; of an example without it, one token stands for it."""
        some = next(iter(streams.values())).tokens
        batch, _, width = some.shape
        init = nn.initializers.normal(width**-0.5)
        placeholder = param(self, f"{modality}_placeholder", init, (width,), ("embed",))
        placeholder = placeholder.astype(activation_dtype(self.dtype))[None, None]
        found = jnp.zeros(batch, bool)
        if made is not None:
            i = self.modalities.index(modality)
            found = made.made[:, i]
            values = made.values[:, i, None].astype(placeholder.dtype)
            placeholder = jnp.where(found[:, None, None], values, placeholder)
        if modality not in streams:
            tokens = jnp.broadcast_to(placeholder, (batch, 1, width))
            return Stream(tokens, jnp.ones((batch, 1), bool), found)
        stream = streams[modality]
        present = stream.present[:, None]
        first = jnp.arange(stream.mask.shape[1])[None] == 0
        return Stream(
            jnp.where(present[:, :, None], stream.tokens, placeholder),
            # One token is enough in place of a missing modality.
            jnp.where(present, stream.mask, first),
            stream.present | found,
        )

    # ---- building blocks of the kinds

    def block(self, train: bool) -> dict[str, Any]:
        """Fields of a `Block` with the fusion's settings."""
        return {
            "heads": self.heads,
            "mlp_dim": self.mlp_dim,
            "branches": 2 * self.depth,
            "activation": self.activation,
            "dropout": self.dropout,
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "train": train,
        }

    def own_transformers(
        self, streams: Mapping[str, Stream], train: bool
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """A transformer per modality: normalized tokens [B, L, D], and their means [B, M, D]."""
        tokens = {
            m: self.transformer(f"{m}_transformer")(s.tokens, s.mask, train=train)
            for m, s in streams.items()
        }
        return self.norm_and_pool(tokens, streams)

    def norm_and_pool(
        self, tokens: Mapping[str, jax.Array], streams: Mapping[str, Stream]
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Normalized tokens, and each modality's mean over them, [B, M, D]."""
        normed = {
            m: LayerNorm(self.epsilon, activation_dtype(self.dtype), name=f"{m}_norm")(x)
            for m, x in tokens.items()
        }
        pooled = [pool_tokens(x, "mean", streams[m].mask) for m, x in normed.items()]
        return normed, jnp.stack(pooled, axis=1)


def presence(streams: Mapping[str, Stream]) -> jax.Array:
    """Which modalities each example has: [B, M] bool."""
    return jnp.stack([s.present for s in streams.values()], axis=1)


def masked_softmax(logits: jax.Array, present: jax.Array) -> jax.Array:
    """Softmax of logits [B, M, ...] over the modalities that are present [B, M], in fp32.

    Where none is present all have the same weight.
    """
    present = present.reshape(*present.shape, *(1,) * (logits.ndim - 2))
    return jax.nn.softmax(jnp.where(present, logits.astype(jnp.float32), MASKED), axis=1)


def average(pooled: jax.Array, present: jax.Array) -> jax.Array:
    """Mean of pooled [B, M, D] over the modalities that are present: [B, D]."""
    equal = masked_softmax(jnp.zeros(present.shape), present)
    return jnp.einsum("bm,bmd->bd", equal.astype(pooled.dtype), pooled)


def drop_modalities(present: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Drop each present modality with probability `rate`, but never the last one.

    present [B, M] bool -> [B, M] bool. Where all would be dropped, one of them, chosen uniformly,
    is kept. Source: ModDrop, Neverova et al. 2015 (arXiv 1501.00102), section 3.3.
    """
    draw = jnp.where(present, jax.random.uniform(key, present.shape), -1.0)
    return present & ((draw >= rate) | (draw == draw.max(axis=1, keepdims=True)))
