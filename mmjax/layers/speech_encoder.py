"""Encoders of a sequence of frames, by kind: "lstm", "transformer", "conformer"."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.config import check_kwargs
from mmjax.layers.conformer import Conformer
from mmjax.layers.precision import activation_dtype
from mmjax.layers.transformer import Transformer
from mmjax.sharding import shard


class Lstm(nn.Module):
    """`depth` bidirectional LSTM layers over [B, T, D], half of D in each direction.

    The backward direction begins at the last valid frame, so padding has no influence.
    Source: Graves and Schmidhuber 2005, "Framewise phoneme classification with bidirectional LSTM".

    Raises:
      ValueError: an odd width.
    """

    depth: int
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool = False) -> jax.Array:
        """x after all layers; mask [B, T] bool, true on the first frames of each row."""
        width, lengths = x.shape[-1], mask.sum(1, dtype=jnp.int32)
        if width % 2:
            raise ValueError(f"width {width} is odd, and an LSTM has half of it per direction.")

        def named(init, *names):
            return nn.with_logical_partitioning(init, names)

        def direction(name):
            cell = nn.OptimizedLSTMCell(
                width // 2,
                kernel_init=named(nn.initializers.lecun_normal(), "embed", "mlp"),
                recurrent_kernel_init=named(nn.initializers.orthogonal(), None, "mlp"),
                bias_init=named(nn.initializers.zeros, "mlp"),
                dtype=activation_dtype(self.dtype),
                name=f"{name}_cell",
            )
            return nn.RNN(cell, name=name)

        for i in range(self.depth):
            both = nn.Bidirectional(direction(f"forward_{i}"), direction(f"backward_{i}"))
            y = both(x, seq_lengths=lengths)
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            x = shard(jnp.where(mask[:, :, None], y, 0), "batch", "length", "act_embed")
        return x


ENCODERS = {"conformer": Conformer, "lstm": Lstm, "transformer": Transformer}


def make_encoder(settings: Mapping[str, Any], where: str, **kwargs) -> nn.Module:
    """The encoder of kind `settings["kind"]`.

    Args:
      settings: `kind`, and fields of that kind; where: their place in the config.

    Raises:
      ValueError: an unknown kind, or a setting that it does not have.
    """
    settings = dict(settings)
    kind = settings.pop("kind", None)
    if kind not in ENCODERS:
        raise ValueError(f"{where}.kind is {kind!r}; use one of {', '.join(ENCODERS)}.")
    return ENCODERS[kind](**check_kwargs(ENCODERS[kind], settings, where), **kwargs)
