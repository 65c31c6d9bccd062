"""Attention weights that a model sows while `intermediates` is mutable."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def sown_weights(intermediates: Mapping[str, Any]) -> np.ndarray | None:
    """The image tower's attention weights `[layers, B, heads, L, L]`; None if none were sown."""
    # The tower is a submodule, or the model itself.
    tower = intermediates.get("image", intermediates.get("transformer", {}))
    weights = [
        leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tower)[0]
        if "attention_weights" in jax.tree_util.keystr(path) and leaf.ndim == 5
    ]
    return np.asarray(weights[0]) if weights else None
