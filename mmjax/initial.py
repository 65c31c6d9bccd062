"""Initial parameters from another run: all of them, or those whose paths match."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util

from mmjax.checkpoint import CheckpointError, Checkpoints
from mmjax.tree_paths import shapes


def parameters_from(path: str | Path, params: Any, only: Iterable[str] = ()) -> tuple[Any, str]:
    """Initial parameters from another run's newest checkpoint.

    Args:
      path: its workdir.
      params: this run's initial parameters; those that are not taken stay as they are.
      only: regular expressions for whole parameter paths; empty takes every parameter. Each must
        match something, and all that they match must be in the checkpoint.

    Returns:
      the parameters, and a report that names every key: taken, kept, unused.

    Raises:
      CheckpointError: no checkpoint there, a pattern without a match, a missing key or a shape
        that differs.
    """
    source = Checkpoints(path, read_only=True) if (Path(path) / "checkpoints").is_dir() else None
    if source is None or not source.steps():
        raise CheckpointError(f"config.init_from.path: there are no checkpoints in '{path}'.")
    step = source.steps()[0]
    ours = shapes(params)
    for pattern in only:
        if not any(re.fullmatch(pattern, k) for k in ours):
            raise CheckpointError(
                f"config.init_from.only has '{pattern}', which matches no parameter; there are "
                f"{', '.join(ours)}."
            )
    taken = {k for k in ours if not only or any(re.fullmatch(p, k) for p in only)}
    flat = traverse_util.flatten_dict(params, sep="/")
    target = {
        k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        for k, x in flat.items()
        if k in taken
    }
    restored = source.restore_params(step, traverse_util.unflatten_dict(target, sep="/"))
    theirs = {k.split("/", 1)[1] for k in source.shapes(step) if k.startswith("params/")}
    source.close()
    flat |= traverse_util.flatten_dict(restored, sep="/")
    lines = [f"init_from {path}, step {step}:"]
    lines += [f"  {'taken' if k in taken else 'kept '}   {k} {list(s)}" for k, s in ours.items()]
    lines += [f"  unused  {k}" for k in sorted(theirs - taken)]
    return traverse_util.unflatten_dict(flat, sep="/"), "\n".join(lines)
