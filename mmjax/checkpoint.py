"""Checkpoints: the state and all that a resume needs, in one, written while training goes on.

A checkpoint holds `state` (the TrainState, sharded) and `run` (JSON: step, config, tokenizer, git
revision, early stopping). Order and randomness come from (seed, step), so the step is the data
position. Orbax writes into a temporary folder and renames it: a kill leaves the older ones whole.
"""

import json
import logging
import re
import shutil
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util

from mmjax import config as configs

# Settings that cannot change the numbers, or not beyond rounding: free to change on a resume.
FREE_TO_CHANGE = (
    "mesh",
    "log_every",
    "checkpoint",
    "data.num_threads",
    "data.max_lost_records",
    "step_timeout_seconds",
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or cannot be read into this model."""


def _print_once(args: threading.ExceptHookArgs) -> None:
    """A thread's trace, unless orbax raises the same error again in the main thread."""
    frames = traceback.walk_tb(args.exc_traceback)
    if not any(f.f_globals.get("__name__", "").startswith("orbax.") for f, _ in frames):
        threading.__excepthook__(args)


class Checkpoints:
    """The checkpoints of one workdir, in `<workdir>/checkpoints/<step>/`.

    Args:
      workdir: the run's folder.
      keep: how many of the newest to keep.
    """

    def __init__(self, workdir: str | Path, keep: int = 2):
        self.folder = Path(workdir).resolve() / "checkpoints"
        threading.excepthook = _print_once
        for noisy in ("absl", "asyncio"):  # they too print what is raised in the end
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(),
                    "run": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep,
                    create=True,
                    cleanup_tmp_directories=True,
                    enable_async_checkpointing=True,
                ),
            )
        except OSError as error:
            raise CheckpointError(
                f"Cannot use the workdir {workdir}: {error.strerror or error}."
            ) from error

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / str(step)

    def save(self, step: int, state: Any, run: Mapping[str, Any]) -> None:
        """Start to write a checkpoint; returns once the state is copied, before it is on disk.

        Raises:
          CheckpointError: this or the previous one could not be written (a full disk).
        """
        if step in self._manager.all_steps():
            return
        with self._saying(step):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state), run=ocp.args.JsonSave(dict(run))
                ),
            )

    def wait(self) -> None:
        """Return once everything is on disk.

        Raises:
          CheckpointError: the last one could not be written.
        """
        with self._saying("newest"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of the folder."""
        self.wait()
        self._manager.close()

    def run(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint.

        Raises:
          CheckpointError: it cannot be read.
        """
        try:
            # Not by orbax, whose restore waits for all processes to do the same.
            return json.loads((self.path(step) / "run" / "metadata").read_text())
        except (OSError, ValueError) as error:
            raise self._damaged(step, error) from error

    def _damaged(self, step: int, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"The checkpoint {self.path(step)} is damaged ({_first_line(error)}); move that "
            "folder away to go on from the one before."
        )

    def restore(self, step: int, target: Any) -> Any:
        """The state of a step, laid out as `target` (ShapeDtypeStructs with shardings) says.

        Raises:
          CheckpointError: its tree is another model's (every missing, extra and wrong-shape
            parameter is named), or its files are damaged.
        """
        compare(self._shapes(step), _shapes(target), f"checkpoint {self.path(step)}")
        restore_args = ocp.checkpoint_utils.construct_restore_args(target)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(item=target, restore_args=restore_args)
                ),
            )
        except Exception as error:
            raise self._damaged(step, error) from error
        return restored["state"]

    def restore_params(self, step: int, target: Any) -> Any:
        """Parameters alone (the moving average where there is one), laid out as `target` says.

        `target` may hold a part of the tree; all of that part must be there.

        Raises:
          CheckpointError: a parameter of `target` is missing or has another shape.
        """
        saved = self._shapes(step)
        part = "ema_params" if any(k.startswith("ema_params/") for k in saved) else "params"
        wanted = {f"{part}/{k}": s for k, s in _shapes(target).items()}
        found = {k: s for k, s in saved.items() if k in wanted}
        compare(found, wanted, f"checkpoint {self.path(step)}")
        item = {part: target}
        restore_args = ocp.checkpoint_utils.construct_restore_args(item)
        return ocp.PyTreeCheckpointer().restore(
            self.path(step) / "state",
            args=ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True),
        )[part]

    def newest_run(self) -> dict[str, Any] | None:
        """The JSON part of the newest checkpoint that is whole, or None where there is none.

        A damaged one is put aside, with a warning, and the one before it is taken.

        Raises:
          CheckpointError: there are checkpoints, and none is whole.
        """
        damaged = None
        for step in self.steps():
            try:
                self._shapes(step)
                return self.run(step)
            except CheckpointError as error:
                print(f"warning: {error}")
                damaged = error
                self._put_aside(step)
        if damaged:
            raise CheckpointError(f"No checkpoint in {self.folder} can be read: {damaged}")
        return None

    def _put_aside(self, step: int) -> None:
        aside = self.folder.parent / f"damaged-checkpoint-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        self.path(step).rename(aside)
        self._manager.reload()

    def _shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        try:
            metadata = self._manager.item_metadata(step)["state"]
            if metadata is None:
                raise FileNotFoundError("its metadata are missing")
            return _shapes(metadata.tree if hasattr(metadata, "tree") else metadata)
        except Exception as error:
            raise self._damaged(step, error) from error

    def _saying(self, step: Any) -> "_Saying":
        return _Saying(self, step)


class _Saying:
    """Turns whatever a save raises into one sentence that names the last good checkpoint."""

    def __init__(self, checkpoints: Checkpoints, step: Any):
        self.checkpoints, self.step = checkpoints, step

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        kept = [s for s in self.checkpoints.steps() if s != self.step]
        last = f"the last good one is {self.checkpoints.path(kept[0])}" if kept else "none is saved"
        raise CheckpointError(
            f"Checkpoint {self.step} could not be written to {self.checkpoints.folder} "
            f"({_first_line(error)}); {last}. Make room and start again: the run resumes there."
        ) from error


class TreeMismatchError(CheckpointError):
    """A checkpoint of another model."""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def compare(
    saved: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Compare two trees' shapes by path.

    Raises:
      TreeMismatchError: listing every missing, extra and wrong-shape path.
    """
    missing = sorted(wanted.keys() - saved.keys())
    extra = sorted(saved.keys() - wanted.keys())
    other = [
        f"{k} {list(saved[k])} (the model has {list(wanted[k])})"
        for k in sorted(saved.keys() & wanted.keys())
        if saved[k] != wanted[k]
    ]
    if missing or extra or other:
        parts = [
            f"{title}: {', '.join(names)}"
            for title, names in (("missing", missing), ("extra", extra), ("other shape", other))
            if names
        ]
        raise TreeMismatchError(f"The {what} is of another model. " + "; ".join(parts) + ".")


def check_unchanged(saved: str, now: Any, allow: Iterable[str]) -> Iterator[str]:
    """Compare the config of a workdir with the one it is resumed with.

    Args:
      saved: the JSON in the checkpoint; now: the ConfigDict of this start.
      allow: keys that may differ ("optim.learning_rate"; a section allows what is in it).

    Yields:
      a line for every difference that is let through.

    Raises:
      CheckpointError: listing every other difference as "key: old -> new".
    """
    free = (*FREE_TO_CHANGE, *allow)
    refused = []
    for key, (old, new) in configs.diff(configs.from_json(saved), now).items():
        line = f"config.{key}: {old!r} -> {new!r}"
        if any(key == f or key.startswith(f + ".") for f in free):
            yield line
        else:
            refused.append((key, line))
    if refused:
        names = ",".join(key for key, _ in refused)
        raise CheckpointError(
            "The workdir was made with another config: "
            + "; ".join(line for _, line in refused)
            + f". Use another --workdir, or --allow_change={names}."
        )


def init_from(path: str | Path, params: Any, only: Iterable[str] = ()) -> tuple[Any, str]:
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
    source = Checkpoints(path) if (Path(path) / "checkpoints").is_dir() else None
    if source is None or not source.steps():
        raise CheckpointError(f"config.init_from.path: there are no checkpoints in '{path}'.")
    step = source.steps()[0]
    ours = _shapes(params)
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
    theirs = {k.split("/", 1)[1] for k in source._shapes(step) if k.startswith("params/")}
    source.close()
    flat |= traverse_util.flatten_dict(restored, sep="/")
    lines = [f"init_from {path}, step {step}:"]
    lines += [f"  {'taken' if k in taken else 'kept '}   {k} {list(s)}" for k, s in ours.items()]
    lines += [f"  unused  {k}" for k in sorted(theirs - taken)]
    return traverse_util.unflatten_dict(flat, sep="/"), "\n".join(lines)
