"""Trees by path: the keys of a leaf joined by '/', such as `image/encoder/mlp/up/kernel`."""

import difflib
import re
from collections.abc import Callable, Iterable
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


def matching(pattern: str, paths: Iterable[str], where: str, what: str = "parameter") -> list[str]:
    """The paths that a regular expression matches whole.

    Args:
      where, what: the setting that has the pattern and the kind of path, for the message.

    Raises:
      ValueError: an invalid regular expression, or one without a match; names the nearest paths.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{where} has '{pattern}', which is no regular expression: {error}."
        ) from None
    paths = list(paths)
    matched = [path for path in paths if compiled.fullmatch(path)]
    if not matched:
        words = re.sub(r"[^\w/]+", "", pattern)
        near = ", ".join(difflib.get_close_matches(words, paths, n=3, cutoff=0.0))
        raise ValueError(
            f"{where} has '{pattern}', which matches no {what}'s whole path; the nearest are "
            f"{near}."
        )
    return matched
