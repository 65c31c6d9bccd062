"""Image, text and audio towers: the fields that they have in common, and parts made from them."""

from typing import Any

import flax.linen as nn
import jax

from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.pooling import ONE_TOKEN, AttentionPool, SequencePool, pool_tokens
from mmjax.layers.transformer import Transformer
from mmjax.models.encoder import HasBlocks


class Sized(nn.Module):
    """A transformer whose sizes have a name; its `sizes` are those that result.

    Attributes:
      variant: the name; width, depth, heads and mlp_dim override it.
    """

    variant: str | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_dim: int | None = None


class Tower(HasBlocks, Sized):
    """What image, text and audio towers have in common.

    Attributes:
      stochastic_depth, remat: see `Transformer`.
    """

    stochastic_depth: float = 0.0


def learned_token(tower: nn.Module, name: str, width: int) -> jax.Array:
    """A token of a tower, with a position of its own: [width]."""
    init = nn.initializers.normal(width**-0.5)
    token = param(tower, f"{name}_token", init, (width,), ("embed",))
    return token + param(tower, f"{name}_position", init, (width,), ("embed",))


def tower_blocks(tower: Tower, used: int | None = None, **settings: Any) -> Transformer:
    """The blocks of a tower, with further `settings` of `Transformer`.

    Args:
      used: how many of them are applied; None: all.
    """
    kind, depth = Transformer, tower.sizes["depth"]
    if used is not None and used < depth and not tower.is_initializing():
        kind, depth = nn.map_variables(Transformer, "params", lambda x: first_layers(x, used)), used
    settings = {"stochastic_depth": tower.stochastic_depth, **settings}
    return tower.blocks(depth, "transformer", kind, **settings)


def first_layers(variables: Any, count: int) -> Any:
    """Parameters of the first `count` layers of a stack."""
    return jax.tree.map(lambda x: x[:count], variables)


def pool_and_norm(tower: Tower, norm: LayerNorm, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The last steps of a tower: final norm and pooling, [B, L, D] -> [B, D]."""
    if tower.pool in ONE_TOKEN:  # the norm of one token, not of all
        return norm(pool_tokens(x, tower.pool, mask))
    x = norm(x)
    if tower.pool == "mean":
        return pool_tokens(x, "mean", mask)
    if tower.pool == "sequence":
        return SequencePool(name="pool")(x)
    return attention_pool(tower)(x, mask)


def attention_pool(tower: Tower) -> AttentionPool:
    """Attention with a learned query, of the heads and the MLP of the tower's blocks."""
    return AttentionPool(
        tower.sizes["heads"],
        tower.sizes["mlp_dim"],
        tower.activation,
        tower.norm_epsilon,
        tower.dtype,
        name="pool",
    )
