"""Parts of image, text and audio towers, from the fields that they have in common."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.pooling import ONE_TOKEN, AttentionPool, SequencePool, pool_tokens
from mmjax.layers.transformer import Transformer


def learned_token(tower: nn.Module, name: str, width: int) -> jax.Array:
    """A token of a tower, with a position of its own: [width]."""
    init = nn.initializers.normal(width**-0.5)
    token = param(tower, f"{name}_token", init, (width,), ("embed",))
    return token + param(tower, f"{name}_position", init, (width,), ("embed",))


def tower_blocks(
    tower: nn.Module, sizes: Mapping[str, int], used: int | None = None, **settings: Any
) -> Transformer:
    """The blocks of an image or text tower, from the fields that both share, and `settings`.

    Args:
      used: how many of them are applied; None: all.
    """
    kind, depth = Transformer, sizes["depth"]
    if used is not None and used < depth and not tower.is_initializing():
        kind, depth = nn.map_variables(Transformer, "params", lambda x: first_layers(x, used)), used
    return kind(
        depth=depth,
        heads=sizes["heads"],
        mlp_dim=sizes["mlp_dim"],
        activation=tower.activation,
        dropout=tower.dropout,
        stochastic_depth=tower.stochastic_depth,
        remat=tower.remat,
        epsilon=tower.norm_epsilon,
        dtype=tower.dtype,
        name="transformer",
        **settings,
    )


def first_layers(variables: Any, count: int) -> Any:
    """Parameters of the first `count` layers of a stack."""
    return jax.tree.map(lambda x: x[:count], variables)


def pool_and_norm(
    tower: nn.Module,
    norm: LayerNorm,
    x: jax.Array,
    mask: jax.Array | None,
    heads: int,
    mlp_dim: int,
) -> jax.Array:
    """The last steps of a tower: final norm and pooling, [B, L, D] -> [B, D]."""
    if tower.pool in ONE_TOKEN:  # the norm of one token, not of all
        return norm(pool_tokens(x, tower.pool, mask))
    x = norm(x)
    if tower.pool == "mean":
        return pool_tokens(x, "mean", mask)
    if tower.pool == "sequence":
        return SequencePool(name="pool")(x)
    return AttentionPool(
        heads, mlp_dim, tower.activation, tower.norm_epsilon, tower.dtype, name="pool"
    )(x, mask)
