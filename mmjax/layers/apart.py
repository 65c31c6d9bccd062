"""A stack's layers as separate arrays, for programs that loop over tokens on CPU.

Parameters and caches below a `stack` have the layers along their first axis. A loop over tokens
copies each layer out of such an array at every iteration: for a GPT-2 on CPU 0.4 GB per token, most
of the time. So on CPU the layers are split before the loop, and the stack takes them separately.
"""

from typing import Any

import jax

from mmjax.layers import platform


class Apart(tuple):
    """The layers of one array."""


jax.tree_util.register_pytree_node(
    Apart, lambda layers: (tuple(layers), None), lambda _, layers: Apart(layers)
)


def is_apart(x: Any) -> bool:
    """True for an array that is split into its layers."""
    return isinstance(x, Apart)


def split_layers(params: Any) -> Any:
    """Split arrays below a `stack` into one array per layer, on platforms that need it (CPU)."""
    if not platform.current().layers_apart:
        return params

    def one(path, x):
        below_stack = any(getattr(entry, "key", None) == "stack" for entry in path)
        return Apart(x[i] for i in range(x.shape[0])) if below_stack else x

    return jax.tree_util.tree_map_with_path(one, params)


def pick(tree: Any, layer: int) -> Any:
    """One layer of every array, whether split or not."""
    return jax.tree.map(lambda x: x[layer], tree, is_leaf=is_apart)


def together(trees: list[Any]) -> Any:
    """The trees of all layers as one tree of `Apart` arrays."""
    return jax.tree.map(lambda *layers: Apart(layers), *trees)
