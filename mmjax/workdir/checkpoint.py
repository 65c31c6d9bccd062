"""Checkpoints: the state and all else that a resume needs, written while training continues.

A checkpoint holds `state` (the TrainState, sharded) and `run` (JSON: its format, see migrate.py;
step, config, tokenizer, git revision, early stopping; checksums of every array and of itself,
compared on every restore). Order and randomness come from (seed, step), so the step is the data
position. Orbax writes into a temporary folder and renames it, or in gs:// ends with a file that
says so: a kill leaves older ones intact.
"""

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util

from mmjax import storage
from mmjax.optim import tree_paths
from mmjax.process import distributed
from mmjax.process.printable import printable
from mmjax.storage import mirror
from mmjax.workdir import migrate, repeated_errors
from mmjax.workdir.checksum import checksums


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or cannot be read into this model."""


class DamagedError(CheckpointError):
    """A checkpoint whose files are not what was written; `what` names it and the symptom."""

    def __init__(self, path: str, how: str):
        self.what = f"The checkpoint {path} is damaged ({how})"
        super().__init__(f"{self.what}; use an older one.")


class Checkpoints:
    """The checkpoints of one workdir, in `<workdir>/checkpoints/<step>/`.

    Args:
      workdir: the run's folder, or the mirror of one in a bucket.
      keep: how many of the newest to keep.
      read_only: write and clean up nothing, as the run itself may still be going.
    """

    def __init__(self, workdir: str | Path, keep: int = 2, read_only: bool = False):
        self._workdir = Path(workdir).resolve()
        self.folder = mirror.checkpoints_of(self._workdir)
        try:
            str(self.folder).encode()
        except UnicodeEncodeError:  # orbax could not write there, and would say so at the end
            name = printable(self.folder.parent)
            raise CheckpointError(f"The workdir '{name}' is not UTF-8: rename it.") from None
        if jax.process_count() > 1 and (mirror.url_of(self._workdir) or "").startswith("s3://"):
            raise CheckpointError(
                "Several processes cannot write one checkpoint to s3://, as orbax does not: use "
                "gs://, or a disk that they share."
            )
        self._writing: int | None = None  # step of the checkpoint that was started last
        repeated_errors.silence()
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(),
                    "run": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep,
                    create=not read_only,
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                    enable_async_checkpointing=True,
                ),
            )
        except Exception as error:
            if storage.is_url(self.folder):
                what = "read" if read_only else "write"
                raise storage.sentence(error, self.folder, what) from error
            if not isinstance(error, OSError):
                raise
            raise CheckpointError(
                f"Cannot use the workdir {workdir}: {error.strerror or error}."
            ) from error

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / str(step)

    def _shown(self, step: int) -> str:
        return mirror.shown(self.path(step))

    def save(self, step: int, state: Any, run: Mapping[str, Any]) -> None:
        """Start to write a checkpoint; returns once the state is copied, before it is on disk.

        Raises:
          CheckpointError: this or the previous one could not be written (a full disk).
        """
        if step in self._manager.all_steps():
            return
        mirror.push(self._workdir)  # what is logged until this step comes before its checkpoint
        sums = jax.device_get(checksums(state))
        arrays = {name: [list(s), int(sums[name])] for name, s in tree_paths.shapes(state).items()}
        self.wait()
        with self._one_sentence(step):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    run=ocp.args.JsonSave(
                        _sealed({**run, "format": migrate.FORMAT, "arrays": arrays})
                    ),
                ),
            )
        self._writing = step

    def wait(self) -> None:
        """Return once everything is on disk.

        Raises:
          CheckpointError: the last one could not be written.
        """
        with self._one_sentence(self._writing):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and release the folder."""
        self.wait()
        self._manager.close()

    def run(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint.

        Raises:
          DamagedError: it cannot be read.
        """
        return self._read(step)[0]

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, list] | None]:
        """The JSON part, and path -> [shape, checksum] of the arrays (None: saved without them)."""
        try:
            # Not by orbax, whose restore waits for all processes to do the same.
            run = _unsealed(json.loads(storage.read(self.path(step) / "run" / "metadata")))
        except (OSError, ValueError) as error:
            if storage.is_url(self.folder) and storage.is_unreachable(error):
                raise
            raise self._damaged(step, f"its JSON part: {_first_line(error)}") from error
        return run, run.pop("arrays", None)

    def _damaged(self, step: int, how: str) -> DamagedError:
        return DamagedError(self._shown(step), how)

    def restore(self, step: int, target: Any) -> Any:
        """The state of a step, sharded as `target` (ShapeDtypeStructs with shardings) says.

        Raises:
          TreeMismatchError: it is of another model; names every missing, extra and wrong-shape
            parameter.
          ValueError: it has another format, which cannot be migrated (migrate.py).
          DamagedError: its files cannot be read, or their values are not those that were saved.
        """
        run, arrays = self._read(step)
        made, what = self._moves(step, run, arrays), f"checkpoint {self._shown(step)}"
        compare({k: m.shape for k, m in made.items()}, tree_paths.shapes(target), what)
        item = target
        if run.get("format", 1) != migrate.FORMAT:
            old = migrate.old_targets(target, made, what)
            # As on disk: lists and dicts in place of the state's own classes.
            item = tree_paths.map_paths(lambda path, _: old[path], self._metadata(step))
        restored = self._read_arrays(step, item, arrays)
        return migrate.make(target, made, restored)

    def _read_arrays(
        self, step: int, item: Any, arrays: dict[str, list] | None, partial: bool = False
    ) -> Any:
        """Read and verify a tree; if one process finds damage, all of them raise.

        Not by orbax's manager, in which the processes wait for each other after reading: one that
        finds damage in its own part would leave the others waiting.
        """
        restore_args = ocp.checkpoint_utils.construct_restore_args(item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=partial)
        error = None
        try:
            restored = ocp.PyTreeCheckpointHandler().restore(self.path(step) / "state", args=args)
        except Exception as raised:
            error = raised
        if error and storage.is_url(self.folder) and storage.is_unreachable(error):
            error = storage.sentence(error, self.path(step), "read")
        how = _first_line(error) if error else ""
        every = distributed.exchange(f"reading checkpoint {step}", how, timeout=3600)
        if isinstance(error, storage.StorageError):
            raise error
        if any(every):
            raise self._damaged(step, next(filter(None, every))) from error
        self._verify(step, restored, arrays)
        return restored

    def restore_newest(self, target: Any) -> tuple[dict[str, Any], Any]:
        """(JSON part, state) of the newest intact checkpoint; see `restore`.

        Newer, damaged ones are renamed to `<step>.damaged`, each with a warning.

        Raises:
          TreeMismatchError: it is of another model.
          CheckpointError: none is intact; then none is renamed.
        """
        damaged: dict[int, str] = {}
        for step in self.steps():
            try:
                found = self.run(step), self.restore(step, target)
            except DamagedError as error:
                damaged[step] = error.what  # the error itself would keep the arrays alive
                continue
            for bad, how in damaged.items():
                name = self._rename_damaged(bad)
                print(f"warning: {how}: renamed to {name}, resuming from step {step}")
            return found
        raise self._none_intact(damaged.values())

    def _verify(self, step: int, restored: Any, arrays: dict[str, list] | None) -> None:
        """Compare a restored tree, or a part of it, with its saved checksums."""
        if arrays is None:
            return
        found = jax.device_get(checksums(restored))
        wrong = [name for name in found if int(found[name]) != arrays[name][1]]
        if wrong:
            how = f"{len(wrong)} of {len(found)} arrays are not as saved, the first {wrong[0]}"
            raise self._damaged(step, how)

    def restore_part(self, step: int, part: str, target: Any, whole: bool = False) -> Any:
        """One field of the state, such as "params", sharded as `target` says.

        Args:
          target: ShapeDtypeStructs with shardings; all of them must be in the checkpoint.
          whole: `target` must be the field's whole tree; otherwise it may be a part of it.

        Raises:
          TreeMismatchError: a leaf of `target` is missing or has another shape.
          DamagedError: as `restore`.
        """
        run, arrays = self._read(step)
        made, what = self._moves(step, run, arrays), f"checkpoint {self._shown(step)}"
        item = {part: target}
        wanted = tree_paths.shapes(item)
        every = {k: m.shape for k, m in made.items() if whole and k.startswith(f"{part}/")}
        found = {k: m.shape for k, m in made.items() if k in wanted} | every
        compare(found, wanted, what)
        old = migrate.old_targets(item, made, what)
        old = traverse_util.unflatten_dict(old, sep="/")
        restored = self._read_arrays(step, old, arrays, partial=True)
        return migrate.make(item, made, restored)[part]

    def newest_run(self) -> dict[str, Any] | None:
        """The newest checkpoint's JSON part that can be read; None without checkpoints.

        Raises:
          CheckpointError: there are checkpoints, and none has a JSON part that can be read.
        """
        damaged = []
        for step in self.steps():
            try:
                return self.run(step)
            except DamagedError as error:
                damaged.append(error.what)
        if damaged:
            raise self._none_intact(damaged)
        return None

    def _none_intact(self, damaged: Iterable[str]) -> CheckpointError:
        return CheckpointError(
            f"No checkpoint in {mirror.shown(self.folder)} can be used and none was changed: "
            f"{'; '.join(damaged)}. Restore one from a backup, or use another --workdir."
        )

    def _rename_damaged(self, step: int) -> str:
        """Rename a checkpoint; every process calls this, and process 0 does it."""
        names = (f"{step}.damaged{suffix}" for suffix in ("", *(f".{n}" for n in range(2, 1000))))
        new = next(name for name in names if not (self.folder / name).exists())
        distributed.exchange("choosing a name for a damaged checkpoint")
        with distributed.main_first("renaming a damaged checkpoint"):
            if distributed.is_main():
                self.path(step).rename(self.folder / new)
        self._manager.reload()
        return new

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """path -> shape of every array of a checkpoint, in the current format.

        Raises:
          DamagedError: it cannot be read.
        """
        return {name: move.shape for name, move in self._moves(step, *self._read(step)).items()}

    def _moves(
        self, step: int, run: Mapping[str, Any], arrays: dict[str, list] | None
    ) -> dict[str, migrate.Move]:
        """Path in the current format -> how its array is made from those on disk."""
        saved = self._shapes(step, arrays)
        return migrate.moves(saved, run.get("format", 1), f"checkpoint {self._shown(step)}")

    def _shapes(self, step: int, arrays: dict[str, list] | None) -> dict[str, tuple[int, ...]]:
        if arrays is not None:
            return {name: tuple(shape) for name, (shape, _) in arrays.items()}
        return tree_paths.shapes(self._metadata(step))

    def _metadata(self, step: int) -> Any:
        """The state's tree as on disk; its leaves are orbax's descriptions of arrays."""
        try:
            metadata = self._manager.item_metadata(step)["state"]
            if metadata is None:
                raise FileNotFoundError("its metadata are missing")
            return metadata.tree if hasattr(metadata, "tree") else metadata
        except Exception as error:
            raise self._damaged(step, _first_line(error)) from error

    @contextlib.contextmanager
    def _one_sentence(self, step: int | None) -> Iterator[None]:
        """Turn an error of a save into one sentence that names the last good checkpoint."""
        try:
            yield
        except Exception as error:
            kept = [s for s in self.steps() if s != step]
            fix = "Look at the bucket" if storage.is_url(self.folder) else "Make room"
            last = f"the last good one is {self._shown(kept[0])}" if kept else "none is saved"
            raise CheckpointError(
                f"Checkpoint {step} could not be written to {mirror.shown(self.folder)} "
                f"({_cause(error)}); {last}. {fix}, and start again: the run resumes there."
            ) from error


class TreeMismatchError(CheckpointError):
    """A checkpoint of another model."""


def _sealed(run: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON part with a checksum of itself."""
    return {**run, "crc32": _crc32(run)}


def _unsealed(run: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_sealed`; raises if the checksum does not match."""
    run = dict(run)
    if "crc32" not in run and "arrays" not in run:
        return run  # saved before there were checksums
    if run.pop("crc32", None) != _crc32(run):
        raise ValueError("it differs from its checksum")
    return run


def _crc32(run: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(run, sort_keys=True).encode())


def _cause(error: BaseException) -> str:
    """The system's message if there is one: tensorstore wraps it in source lines and codes."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
    return next((s for s in map(os.strerror, codes) if s in str(error)), _first_line(error))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


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
