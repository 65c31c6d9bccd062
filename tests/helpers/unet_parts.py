"""A U-Net beside diffusers', part by part."""

import jax
import numpy as np
from parity import close


def run(model, variables, *given, **named):
    """The outputs, and the result of every module by its path."""

    def apply(variables, given, named):
        return model.apply(variables, *given, **named, capture_intermediates=True)

    found, kept = jax.jit(apply)(variables, given, named)
    paths = jax.tree_util.tree_leaves_with_path(kept["intermediates"])
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in paths}
    return found, {name.partition("/__call__")[0]: x for name, x in named.items()}


def close_parts(kept, want, levels, blocks):
    """The result of each level on the way down, of the middle, and of each level on the way up."""
    down = [f"down{i}_resize" for i in range(levels - 1)]
    up = [f"up{i}_resize" for i in range(levels - 1, 0, -1)]
    last = f"down{levels - 1}_attention{blocks - 1}"
    down.append(last if last in kept else f"down{levels - 1}_block{blocks - 1}")
    names = [*down, "mid_block1", *up, f"up0_block{blocks}"]
    for i, name in enumerate(names):
        close(np.asarray(kept[name]), want[f"part{i}"])
