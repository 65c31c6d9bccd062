"""Token embeddings, and logits over the vocabulary from the same table."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.packed import is_packing, packed_dot
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.sharding import shard


def look_up(table: jax.Array, tokens: jax.Array, dtype: str) -> jax.Array:
    """Rows of table [V, width] for tokens [B, L]: [B, L, width], in the stream's dtype."""
    # Whole rows: if they were sharded by `embed`, the result would be gathered on every device.
    table = shard(table, "vocab", "act_embed")
    x = jnp.take(table, shard(tokens, "batch", "length"), axis=0)
    return shard(x.astype(activation_dtype(dtype)), "batch", "length", "act_embed")


def word_logits(module: nn.Module, x: jax.Array, table: jax.Array | None) -> jax.Array:
    """x [..., width] times a table [V, width]: [..., V] float32; None: where one is packed.

    Args:
      module: has a `dtype`, that of the operands; the table is packed for decoding in its scope.
    """
    if module.has_variable("packed", "table"):
        return packed_dot(x, module.get_variable("packed", "table"), module.dtype)
    x, table = x.astype(module.dtype), table.astype(module.dtype)
    if is_packing(module):
        module.put_variable("packed", "table", table)
    dims = ((x.ndim - 1,), (1,)), ((), ())
    return jax.lax.dot_general(x, table, dims, preferred_element_type=jnp.float32)


class TokenEmbed(nn.Module):
    """A table [vocab_size, width]: tokens [B, L] -> [B, L, width], and features back to logits.

    Attributes:
      tied: the logits use the same table (Press and Wolf 2017, arXiv 1608.05859); otherwise a
        separate one, `head`.
    """

    vocab_size: int
    width: int
    tied: bool = True
    dtype: str = "float32"

    def setup(self):
        shape, names = (self.vocab_size, self.width), ("vocab", "embed")
        self.embedding = param(self, "embedding", nn.initializers.normal(0.02), shape, names)
        if not (self.tied or self.has_variable("packed", "table")):
            init = nn.initializers.normal(self.width**-0.5)
            self.head = param(self, "head", init, shape, names)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return look_up(self.embedding, tokens, self.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """[..., width] -> [..., vocab_size] float32."""
        head = self.embedding if self.tied else getattr(self, "head", None)
        return word_logits(self, x, head)
