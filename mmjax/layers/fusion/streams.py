"""What the fusions share: their interface, and what becomes of a modality that is missing."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.layers.attention import MASKED
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
    """One vector an example, features [B, D], and each modality's tokens [B, L, D], all normed."""

    features: jax.Array
    tokens: dict[str, jax.Array]


class Fusion(nn.Module):
    """The interface: {modality: Stream} -> Fused. A kind defines `fuse`.

    Where a modality is not present its tokens are replaced by one learned placeholder, so that
    what they hold reaches neither the output nor a gradient. A modality that is not among the
    streams at all is absent from every example.

    Attributes:
      modalities: all that the model knows; their order matters nowhere but where a kind says so.
      depth: layers: of the transformer over all tokens, or of each modality's own.
      modality_dropout: probability with which a training step takes a modality from an example
        that has it; one always stays.

    Raises:
      ValueError: a stream of an unknown modality, or none at all.
    """

    modalities: tuple[str, ...]
    depth: int
    heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    modality_dropout: float = 0.0
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Fused:
        unknown = sorted(set(streams) - set(self.modalities))
        if unknown or not streams:
            raise ValueError(
                f"A fusion of {', '.join(self.modalities)} was given {unknown or 'nothing'}: give "
                "it at least one of its modalities, and no other."
            )
        if train and self.modality_dropout:
            streams = self._drop(streams)
        return self.fuse({m: self._fill(m, streams) for m in self.modalities}, train)

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        """The kind's own part; gets a stream of every modality, in the order of `modalities`."""
        raise NotImplementedError

    def _drop(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        present = jnp.stack([s.present for s in streams.values()], axis=1)
        kept = drop_modalities(present, self.modality_dropout, self.make_rng("dropout"))
        return {m: s.replace(present=kept[:, i]) for i, (m, s) in enumerate(streams.items())}

    def _fill(self, modality: str, streams: Mapping[str, Stream]) -> Stream:
        some = next(iter(streams.values())).tokens
        batch, _, width = some.shape
        init = nn.initializers.normal(width**-0.5)
        placeholder = param(self, f"{modality}_placeholder", init, (width,), ("embed",))
        placeholder = placeholder.astype(activation_dtype(self.dtype))[None, None]
        if modality not in streams:
            tokens = jnp.broadcast_to(placeholder, (batch, 1, width))
            return Stream(tokens, jnp.ones((batch, 1), bool), jnp.zeros(batch, bool))
        stream = streams[modality]
        present = stream.present[:, None]
        first = jnp.arange(stream.mask.shape[1])[None] == 0
        return Stream(
            jnp.where(present[:, :, None], stream.tokens, placeholder),
            # One token is enough to say that it is missing.
            jnp.where(present, stream.mask, first),
            stream.present,
        )

    # ---- parts of the kinds

    def transformer(self, name: str) -> Transformer:
        """Self-attention blocks with the fusion's settings."""
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
        """Each modality on its own: its normed tokens [B, L, D], and all pooled [B, M, D]."""
        tokens = {
            m: self.transformer(f"{m}_transformer")(s.tokens, s.mask, train=train)
            for m, s in streams.items()
        }
        return self.norm_and_pool(tokens, streams)

    def norm_and_pool(
        self, tokens: Mapping[str, jax.Array], streams: Mapping[str, Stream]
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Normed tokens, and each modality's mean over them: [B, M, D]."""
        normed = {
            m: LayerNorm(self.epsilon, activation_dtype(self.dtype), name=f"{m}_norm")(x)
            for m, x in tokens.items()
        }
        pooled = [pool_tokens(x, "mean", streams[m].mask) for m, x in normed.items()]
        return normed, jnp.stack(pooled, axis=1)


def presence(streams: Mapping[str, Stream]) -> jax.Array:
    """[B, M] bool."""
    return jnp.stack([s.present for s in streams.values()], axis=1)


def shares(logits: jax.Array, present: jax.Array) -> jax.Array:
    """softmax of logits [B, M, ...] over the modalities that are present [B, M], in fp32.

    Where none is present all have the same share.
    """
    present = present.reshape(*present.shape, *(1,) * (logits.ndim - 2))
    return jax.nn.softmax(jnp.where(present, logits.astype(jnp.float32), MASKED), axis=1)


def average(pooled: jax.Array, present: jax.Array) -> jax.Array:
    """Mean of pooled [B, M, D] over the modalities that are present: [B, D]."""
    equal = shares(jnp.zeros(present.shape), present)
    return jnp.einsum("bm,bmd->bd", equal.astype(pooled.dtype), pooled)


def drop_modalities(present: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Take each present modality away with probability `rate`, but never the last one.

    present [B, M] bool -> [B, M] bool. Where all were to go, one of them stays, each as often as
    the others. Source: ModDrop, Neverova et al. 2015 (arXiv 1501.00102), section 3.3.
    """
    luck = jnp.where(present, jax.random.uniform(key, present.shape), -1.0)
    return present & ((luck >= rate) | (luck == luck.max(axis=1, keepdims=True)))
