"""Experiment trackers that get what metrics.jsonl gets: Weights & Biases, and trackio.

A resumed run goes on as the same run of the tracker; its id is in run.json. Both trackers keep
lines in memory for a while, so that a kill loses some: after one, all lines since the tracker was
last closed are sent again, and so are steps that are trained again. Each has its own step: as a
resume is exact, they fall on the same points.
"""

import contextlib
import importlib.util
import io
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.config import nearest
from mmjax.storage import mirror
from mmjax.workdir import jsonl
from mmjax.workdir.manifest import read_manifest, write_manifest

_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # where trackio sends to; without: local


class _Open(NamedTuple):
    """An open run of a tracker: what writes to it, what ends it, and a sentence about it."""

    log: Callable[[int, Mapping[str, float]], None]
    finish: Callable[[], None]
    said: str


def check(settings: Mapping[str, Any]) -> None:
    """Check `config.track`.

    Raises:
      ValueError: an unknown tracker, or one whose package is missing.
    """
    kind = settings["kind"]
    if kind and kind not in KINDS:
        raise ValueError(
            f"config.track.kind is '{kind}'.{nearest(kind, KINDS)} It is one of "
            f"{', '.join(KINDS)}, or '' for none."
        )
    if kind and importlib.util.find_spec(kind) is None:
        raise ValueError(
            f"config.track.kind is '{kind}', and that package is not installed: pip install "
            "'mmjax[track]' (in a checkout: pip install -e '.[track]'), or set it to ''."
        )


class Tracker:
    """The run's record at a tracker; opened at the first write.

    Nothing here ends a run: a tracker that fails is left, with one sentence, as metrics.jsonl has
    everything.

    Args:
      settings: `config.track`: `kind`, one of KINDS, and `project`.
      workdir: names the run, and has the offline files.
      config: the resolved config, plain JSON values.
    """

    def __init__(
        self, settings: Mapping[str, Any], workdir: str | os.PathLike, config: Mapping[str, Any]
    ):
        self._settings, self._workdir, self._config = settings, Path(workdir), config
        self._open: _Open | None = None
        self._failed, self._sent = False, 0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send the scalars of a step, which are the last line of metrics.jsonl."""
        if self._failed:
            return
        kind, project = self._settings["kind"], self._settings["project"]
        try:
            if self._open is None:
                known = self._known()
                self._open = KINDS[kind](project, known["id"], self._workdir, self._config)
                print(self._open.said)
                for line in jsonl.read(self._workdir / "metrics.jsonl", step=int)[:-1]:
                    if line["step"] > known["sent"]:
                        self._open.log(line.pop("step"), {k: float(v) for k, v in line.items()})
            self._open.log(step, values)
            self._sent = step
        except Exception as error:  # of a tracker, of any kind
            self._failed, self._open = True, None
            print(
                f"warning: {kind} failed ({_first_line(error)}) and gets no more metrics of this "
                f"run; {mirror.shown(self._workdir / 'metrics.jsonl')} has all."
            )

    def close(self) -> None:
        """End the run at the tracker; a later write continues it."""
        if self._open is not None:
            with contextlib.suppress(Exception):
                self._open.finish()
                write_manifest(self._workdir, tracker={**self._known(), "sent": self._sent})
            self._open = None

    def _known(self) -> dict[str, Any]:
        """The tracker of run.json, or a new one: its settings, the id of the run there, and the
        last step that was sent for certain."""
        own = dict(self._settings)
        before = read_manifest(self._workdir).get("tracker", {})
        if {k: before.get(k) for k in own} == own:
            return before
        new = {**own, "id": secrets.token_hex(4), "sent": 0}
        write_manifest(self._workdir, tracker=new)
        return new


def _wandb(project: str, run_id: str, workdir: Path, config: Mapping[str, Any]) -> _Open:
    import wandb

    reason, mode = "", os.environ.get("WANDB_MODE")
    if not mode and not wandb.login(prompt=False, verify=False):
        reason = "there is no login (`wandb login`, or WANDB_API_KEY)"
    settings = wandb.Settings(silent=True, console="off", init_timeout=60)
    given = {"project": project, "id": run_id, "name": _name(workdir), "resume": "allow"}
    given |= {"dir": str(workdir), "config": dict(config), "settings": settings}
    run = None
    if not reason:
        try:
            run = wandb.init(**given, mode=mode)
        except wandb.errors.Error as error:  # refused, or not reached
            reason = _first_line(error)
    if run is None:
        run = wandb.init(**given, mode="offline")
    # A step of their own, as theirs may only grow.
    run.define_metric("*", step_metric="step")
    said = f"tracked by Weights & Biases, run {run_id} of project '{project}'"
    if run.offline:
        why = f", as {reason}" if reason else ""
        files = mirror.shown(workdir / "wandb" / "offline-run-*")
        said += f", offline{why}: `wandb sync {files}` uploads it"
    elif run.url:
        said += f": {run.url}"
    return _Open(lambda step, values: run.log({"step": step, **values}), run.finish, said)


def _trackio(project: str, run_id: str, workdir: Path, config: Mapping[str, Any]) -> _Open:
    import trackio

    name = f"{_name(workdir)}-{run_id}"  # by which trackio finds a run
    given = {"project": project, "name": name, "resume": "allow", "config": dict(config)}
    given["embed"] = False
    reason = ""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            run = trackio.init(**given)
        except Exception as error:  # such as a Space without a login
            remote = [os.environ.pop(key) for key in _REMOTE if key in os.environ]
            if not remote:
                raise
            reason = f", as {remote[0]} could not be used ({_first_line(error)})"
            run = trackio.init(**given)

    def finish():
        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()

    where = "" if any(key in os.environ for key in _REMOTE) else f", on this machine{reason}"
    said = f"tracked by trackio, run {name} of project '{project}'{where}"
    said += f": `trackio show --project {project}` shows it"
    return _Open(lambda step, values: run.log(dict(values), step=step), finish, said)


def _name(workdir: Path) -> str:
    return mirror.shown(workdir).rstrip("/").rpartition("/")[2]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


KINDS = {"wandb": _wandb, "trackio": _trackio}
