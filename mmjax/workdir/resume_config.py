"""Which settings of a run's config may change when it is resumed."""

from collections.abc import Iterable, Iterator
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
)
# Settings of arrays in the checkpoint, which a resume keeps.
OF_THE_STATE = ("loss.queue_size",)


def check_unchanged(saved: str, now: Any, allow: Iterable[str]) -> Iterator[str]:
    """Compare the config of a workdir with the one it is resumed with.

    Args:
      saved: the JSON in the checkpoint; now: the ConfigDict of this start.
      allow: keys that may differ ("optim.learning_rate"; a section allows what is in it).

    Yields:
      a line for every difference that is allowed.

    Raises:
      CheckpointError: listing every other difference as "key: old -> new"; or a difference of
        `OF_THE_STATE`.
    """
    free = (*FREE_TO_CHANGE, *allow)
    refused = []
    saved, now = (configs.from_json(text) for text in (saved, configs.to_json(now)))
    for key, (old, new) in configs.diff(saved, now).items():
        line = f"config.{key}: {old!r} -> {new!r}"
        if key in OF_THE_STATE:
            raise CheckpointError(
                f"{line} cannot change on a resume, also not by --allow_change, as the checkpoint "
                "has an array of that size: use the old value, or another --workdir, which may "
                "start from these parameters by config.init_from.path."
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
