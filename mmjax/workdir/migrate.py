"""Checkpoints of older formats, read as if they were in the current one.

A checkpoint's JSON part names its format; those of format 1 name none. Format 2 has one attention
module in place of several (layers/attention.py), which changed names and shapes of parameters. The
rules below hold for every tree that has the parameters' paths: the parameters, their moving
average, the moments of the optimizer, and LoRA's additions. Files on disk are not changed.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.optim import tree_paths

FORMAT = 2
AVERAGE = "average"  # the current name of the moving average in the state

# ---- format 1: parts of the state, parts of paths (the first match counts), and axes

_STATE = {"ema_params": AVERAGE}
_RENAMED = (
    # attention pooling has its attention in a module of its own
    (r"(^|/)pool/(query|key|value|out)/", r"\1pool/attention/\2/"),
    # fusion by cross-attention: the branch is a module of its own
    (r"(^|/)layers/((?:\w+/)?)cross/(query|key|value|out)/", r"\1layers/\2cross/attention/\3/"),
    (r"(^|/)layers/((?:\w+/)?)norm_cross/", r"\1layers/\2cross/norm_attention/"),
    (r"(^|/)layers/((?:\w+/)?)norm_context/", r"\1layers/\2cross/norm_context/"),
    # Perceiver resampler
    (r"(^|/)layers/norm_latents/", r"\1layers/norm_attention/"),
    (r"(^|/)layers/norm_features/", r"\1layers/norm_context/"),
    # cross-attention inside a decoder's layers
    (r"(^|/)stack/cross/norm/", r"\1stack/cross/norm_attention/"),
)
# a decoder's [.., K, H/K + 2, head_dim] is [.., H/K + 2, K, head_dim]
_SWAPPED = re.compile(r"(.*/)?stack/layers/attention/qkv/(kernel(/b)?|bias)")
# two maps [.., H, head_dim] of cross-attention are one [.., 2, H, head_dim]
_PAIR = re.compile(r"(?P<attention>.*/attention)/(?P<part>key|value)/(?P<rest>.*)")


class Move(NamedTuple):
    """How an array of the current format is made from those on disk.

    Fields:
      old: paths on disk: one, or two whose arrays are stacked.
      shape: of the new array.
      swapped: the axes -3 and -2 are swapped.
      problem: why it cannot be made, or None.
    """

    old: tuple[str, ...]
    shape: tuple[int, ...]
    swapped: bool = False
    problem: str | None = None

    def make(self, *arrays: jax.Array) -> jax.Array:
        """The new array."""
        if len(arrays) > 1:
            return jnp.stack(arrays, axis=-3)
        return jnp.swapaxes(arrays[0], -3, -2) if self.swapped else arrays[0]

    def old_sharding(self, sharding: Any) -> Any:
        """The sharding of the old arrays that gives the new one this sharding."""
        if not isinstance(sharding, NamedSharding):
            return sharding
        axes = [*sharding.spec, *[None] * (len(self.shape) - len(sharding.spec))]
        if len(self.old) > 1:
            del axes[-3]
        elif self.swapped:
            axes[-3], axes[-2] = axes[-2], axes[-3]
        return NamedSharding(sharding.mesh, PartitionSpec(*axes))


def moves(saved: Mapping[str, tuple[int, ...]], form: int, what: str) -> dict[str, Move]:
    """New path -> how its array is made, for all arrays of a checkpoint.

    Args:
      saved: path -> shape of what is on disk; form: its format; what: names it, for the message.

    Raises:
      ValueError: its format is newer than this code.
    """
    if form > FORMAT:
        raise ValueError(
            f"The {what} has format {form}, and this version of mmjax reads up to {FORMAT}: use "
            "the version that wrote it, or a later one."
        )
    if form == FORMAT:
        return {path: Move((path,), shape) for path, shape in saved.items()}
    found, pairs = {}, {}
    params = {p.removeprefix("params/"): s for p, s in saved.items() if p.startswith("params/")}
    for path, shape in saved.items():
        name = _renamed(path)
        if pair := _PAIR.fullmatch(name):
            new = "{attention}/key_value/{rest}".format(**pair.groupdict())
            pairs.setdefault(new, {})[pair["part"]] = path, shape
        elif _SWAPPED.fullmatch(name):
            problem = _problem(path, shape, params)
            if problem is None:
                shape = (*shape[:-3], shape[-2], shape[-3], shape[-1])
            found[name] = Move((path,), shape, swapped=True, problem=problem)
        else:
            found[name] = Move((path,), shape)
    for new, parts in pairs.items():
        old = tuple(parts[part][0] for part in ("key", "value") if part in parts)
        path, shape = next(iter(parts.values()))
        problem = _problem(path, shape, params)
        if len(old) < 2 or new.endswith(("/kernel/a", "/kernel/b")):
            problem = f"{path} is for one of two maps that are one map now"
        if problem is None:
            shape = (*shape[:-2], 2, *shape[-2:])
        found[new] = Move(old, shape, problem=problem)
    return found


def _renamed(path: str) -> str:
    part, _, rest = path.partition("/")
    for pattern, name in _RENAMED:
        rest, count = re.subn(pattern, name, rest)
        if count:
            break
    return "/".join(filter(None, (_STATE.get(part, part), rest)))


def _problem(path: str, shape: tuple[int, ...], params: Mapping[str, tuple[int, ...]]):
    """Why an array cannot be migrated, such as a factored moment of Adafactor; or None."""
    keys = path.split("/")
    below = ("/".join(keys[i:]) for i in range(1, len(keys)))
    like = next((params[name] for name in below if name in params), None)
    return None if like == shape else f"{path} {list(shape)} is not of the shape of its parameter"


def old_targets(
    target: Any, made: Mapping[str, Move], what: str
) -> dict[str, jax.ShapeDtypeStruct]:
    """Path on disk -> how to read it, for all arrays that a target (ShapeDtypeStructs) needs.

    Args:
      what: names the checkpoint, for the message.

    Raises:
      ValueError: some of it cannot be made; names the first.
    """
    flat = {}

    def add(path, x):
        move = made[path]
        if move.problem:
            raise ValueError(
                f"The {what} is of format 1 and cannot be migrated to format {FORMAT} "
                f"({move.problem}): finish its training with the version of mmjax that wrote it."
            )
        shape = tuple(x.shape)
        if len(move.old) > 1:
            shape = (*shape[:-3], *shape[-2:])
        elif move.swapped:
            shape = (*shape[:-3], shape[-2], shape[-3], shape[-1])
        sharding = move.old_sharding(x.sharding)
        struct = jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)
        flat.update(dict.fromkeys(move.old, struct))

    tree_paths.map_paths(add, target)
    return flat


def make(target: Any, made: Mapping[str, Move], restored: Any) -> Any:
    """The tree of a target from the tree that was read."""
    arrays = {}
    tree_paths.map_paths(arrays.__setitem__, restored)

    def one(path, x):
        move = made[path]
        parts = [arrays[old] for old in move.old]
        if len(parts) == 1 and not move.swapped:
            return parts[0]
        return jax.jit(move.make, out_shardings=x.sharding)(*parts)

    return tree_paths.map_paths(one, target)
