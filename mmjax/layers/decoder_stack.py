"""The layers of a decoder: groups of blocks, of which the last may attend to a context."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.apart import pick, together
from mmjax.layers.attention import is_decoding
from mmjax.layers.block import Block
from mmjax.layers.packed import is_packing


class Group(nn.Module):
    """`size` blocks, of which the last attends to a context.

    Attributes:
      cross: "plain", cross-attention inside the last block; "gated", a Flamingo block before it
        (Alayrac et al. 2022, arXiv 2204.14198, figure 4); "block", a separate block after it,
        which normalizes the context (open_clip's transformer.py, MultimodalTransformer, for CoCa);
        None: no context.
      block: fields of `Block`.
    """

    size: int
    cross: str | None
    block: Mapping[str, Any]

    @nn.compact
    def __call__(
        self, x: jax.Array, shared: Mapping[str, Any], kinds: jax.Array | None = None
    ) -> tuple[jax.Array, None]:
        """The next x, and None.

        Args:
          shared: "own" and "context", arguments of the blocks; "masks" [P, B, L, S], with `kinds`.
          kinds: [size] int32, which of the masks each block has; None: that in "own".
        """
        context = shared["context"]
        outside = {**self.block, "cross": "only", "causal": False, "kv_heads": None}
        every = [shared["own"]] * self.size
        if kinds is not None:
            every = [{**own, "mask": shared["masks"][kinds[i]]} for i, own in enumerate(every)]
        for i, own in enumerate(every[:-1]):
            x, _ = Block(**self.block, name=f"layer{i}")(x, **own)
        own, last = every[-1], f"layer{self.size - 1}"
        if self.cross == "gated":
            x, _ = Block(**outside, scale="tanh", name="cross")(x, **context)
        if self.cross == "plain":
            return Block(**self.block, cross="between", name=last)(x, **own, **context)
        x, _ = Block(**self.block, name=last)(x, **own)
        if self.cross == "block":
            x, _ = Block(**outside, norm_context=True, name="cross")(x, **context)
        return x, None


class DecodingStack(nn.Module):
    """A stack of groups with separate parameters and caches per layer: see layers/apart.py; also
    where the parameters are packed without a cache."""

    size: int
    cross: str | None
    block: Mapping[str, Any]
    groups: int

    @nn.compact
    def __call__(
        self, x: jax.Array, shared: Mapping[str, Any], kinds: np.ndarray | None = None
    ) -> tuple[jax.Array, None]:
        given = {name: self.variables.get(name, {}) for name in ("params", "cache", "packed")}
        mutable = ["cache"] if is_decoding(self) else []
        mutable += ["packed"] if is_packing(self) else []
        group, made = Group(self.size, self.cross, self.block, parent=None), []
        for g in range(self.groups):
            variables = {
                "params": self._of_group(given["params"], g),
                "cache": pick(given["cache"], g),
                "packed": self._of_group(given["packed"], g),
            }
            of_group = None if kinds is None else kinds[g]
            (x, _), new = group.apply(variables, x, shared, of_group, mutable=mutable)
            made.append(new)
        if is_decoding(self):
            for name, value in together([new["cache"] for new in made]).items():
                self.put_variable("cache", name, value)
        if is_packing(self):
            packed = [by_kind(new["packed"], self.size) for new in made]
            layers = [layer for tree in packed for layer in tree.pop("layers")]
            for name, value in (together(packed) | {"layers": together(layers)}).items():
                self.put_variable("packed", name, value)
        return x, None

    def _of_group(self, tree: Mapping[str, Any], g: int) -> dict[str, Any]:
        """One group's slice of `layers`, along the depth, and of `cross`, along the groups."""
        if not tree:
            return {}
        layers = [pick(tree["layers"], g * self.size + i) for i in range(self.size)]
        cross = {"cross": pick(tree["cross"], g)} if "cross" in tree else {}
        return by_place({"layers": layers} | cross, self.cross)


def by_place(tree: Mapping[str, Any], cross: str | None) -> dict[str, Any]:
    """{"layers": [tree, ...], optionally "cross": tree} under `Group`'s names: `layer0`, ..."""
    tree = dict(tree)
    placed = {f"layer{i}": layer for i, layer in enumerate(tree.pop("layers"))}
    if cross == "plain":  # cross-attention is part of the last block
        last = f"layer{len(placed) - 1}"
        placed[last] = {**placed[last], "cross": tree.pop("cross")}
    return placed | tree


def by_kind(tree: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The inverse of `by_place`."""
    tree = dict(tree)
    layers = [dict(tree.pop(f"layer{i}")) for i in range(size)]
    inside = {"cross": layers[-1].pop("cross")} if "cross" in layers[-1] else {}
    return tree | inside | {"layers": layers}


def split_depth(variables: Mapping[str, Any], size: int, cross: str | None) -> dict[str, Any]:
    """Parameters with `layers` along the depth as the parameters of a stack of groups."""
    tree = dict(variables["params"])
    layers = tree.pop("layers")
    layers = [jax.tree.map(lambda a, i=i: a[i::size], layers) for i in range(size)]
    return {"params": by_place(tree | {"layers": layers}, cross)}


def join_depth(variables: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The inverse of `split_depth`."""
    tree = by_kind(variables["params"], size)

    def interleave(*a):
        return jnp.stack(a, 1).reshape(-1, *a[0].shape[1:])

    return {"params": tree | {"layers": jax.tree.map(interleave, *tree["layers"])}}
