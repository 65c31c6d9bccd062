"""Trees by path: the keys of a leaf joined by '/', such as `image/encoder/mlp/up/kernel`."""

from collections.abc import Callable
from typing import Any

import jax


def map_paths(f: Callable, tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function gets the leaf's path first."""

    def call(path, *leaves):
        return f(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves)

    return jax.tree_util.tree_map_with_path(call, tree, *rest)


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every leaf."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }
