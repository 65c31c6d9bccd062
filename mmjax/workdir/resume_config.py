"""Which settings of a run's config may change when it is resumed."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmjax import config as configs
from mmjax.workdir.checkpoint import CheckpointError

# Settings that cannot change the numbers, or not beyond rounding: free to change on a resume.
FREE_TO_CHANGE = (
    "mesh",
    "log_every",
    "checkpoint",
    "data.num_threads",
    "data.num_workers",
    "data.max_lost_records",
    "step_timeout_seconds",
    "profile",
    "track",
)
# Settings of arrays in the checkpoint, which a resume keeps, with what of them and the default.
OF_THE_STATE = {"loss.queue_size": ("size", None), "optim.moment_dtype": ("dtype", "float32")}
# What is read when a run starts, and never again.
AT_THE_START = ("init_from.path", "init_from.language_model", "init_from.only")


def check_keys(allow: Iterable[str], *known: Any) -> None:
    """Check the keys of --allow_change.

    Args:
      known: configs; each key is a setting or a section of one of them.

    Raises:
      CheckpointError: a key that none has, which would allow nothing.
    """
    keys = {key for config in known for key in _keys(config.to_dict())}
    for key in allow:
        if key not in keys:
            raise CheckpointError(
                f"--allow_change={key} names no setting of the config.{configs.nearest(key, keys)}"
            )


def _keys(settings: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for name, value in settings.items():
        yield f"{within}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{within}{name}.")


def check_unchanged(saved: str, now: Any, allow: Iterable[str]) -> Iterator[str]:
    """Compare the config of a workdir with the one it is resumed with.

    Args:
      saved: the JSON in the checkpoint; now: the ConfigDict of this start.
      allow: keys that may differ ("optim.learning_rate"; a section allows what is in it).

    Yields:
      a line for every difference that is allowed.

    Raises:
      CheckpointError: listing every other difference as "key: old -> new"; or a difference of
        `OF_THE_STATE`, or a new value `AT_THE_START`.
    """
    free = (*FREE_TO_CHANGE, *allow)
    refused = []
    saved, now = (configs.from_json(text) for text in (saved, configs.to_json(now)))
    for key, (old, new) in diff(saved, now).items():
        line = f"config.{key}: {old!r} -> {new!r}"
        if key in OF_THE_STATE:
            what, default = OF_THE_STATE[key]
            if (default if old is None else old) == (default if new is None else new):
                continue
            raise CheckpointError(
                f"{line} cannot change on a resume, also not by --allow_change, as the checkpoint "
                f"has an array of that {what}: use the old value, or another --workdir, which may "
                "start from these parameters by config.init_from.path."
            )
        if key in AT_THE_START and new:
            raise CheckpointError(
                f"{line} would change nothing: a run takes parameters from another model at its "
                "start alone, and this one goes on from its checkpoint. Use the old value, or "
                "another --workdir."
            )
        if any(key == f or key.startswith(f + ".") for f in free):
            weight = key.startswith("data.train.parts.") and key.endswith(".weight")
            yield line + " (from the next step on; every part continues where it was)" * weight
        else:
            refused.append((key, line))
    if refused:
        names = ",".join(key for key, _ in refused)
        raise CheckpointError(
            "The workdir was made with another config: "
            + "; ".join(line for _, line in refused)
            + f". Use another --workdir, or --allow_change={names}."
        )


def diff(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, as {"optim.learning_rate": (old, new)}; None where missing."""
    a, b = (_flat(json.loads(configs.to_json(c))) for c in (old, new))
    return {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        out = {}
        for key, inner in value.items():
            out |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return out
    return {prefix: value}
