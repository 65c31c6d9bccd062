"""What a run's record says about it: the report's first line, and the details at its end."""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax.process.printable import printable
from mmjax.process.progress import duration
from mmjax.run import goodput
from mmjax.run.experiment import Experiment
from mmjax.storage import mirror
from mmjax.workdir.manifest import git_revision, read_manifest


def first_facts(run: Experiment, step: int, workdir: Path) -> dict[str, str]:
    """Model, data, length, duration and date of a training."""
    config, manifest = run.config, read_manifest(workdir)
    parameters = sum(x.size for x in jax.tree.leaves(run.params))
    found = {"Model": f"{config.model.name}, {_short(parameters)} parameters"}
    length = f"{step:,} steps of {config.batch_size:,}"
    data = manifest.get("data")
    if data:
        found["Trained on"] = printable(data["name"])
        if data["examples"] is None:  # shards of which not all were indexed by the end
            length += " (less than one epoch)"
        else:
            found["Trained on"] += f", {data['examples']:,} examples"
            epochs = step * data.get("rows", config.batch_size) / max(1, data["examples"])
            length += f" ({epochs:.3g} epochs)"
    found["Trained for"] = length
    devices = f"{len(jax.devices())} × {jax.devices()[0].device_kind}"
    seconds = manifest.get("training", {}).get("seconds")
    found["Took"] = f"{duration(seconds)} on {devices}" if seconds else f"on {devices}"
    starts = manifest.get("starts")
    if starts:
        found["Started"] = starts[0]["time"].replace("T", " ")[:16]
    return found


def details(run: Experiment, workdir: Path) -> dict[str, str]:
    """Parameters by tower, speed, memory, revision, workdir, command."""
    manifest, git = read_manifest(workdir), git_revision()
    sizes = {k: sum(x.size for x in jax.tree.leaves(tree)) for k, tree in run.params.items()}
    towers = ", ".join(f"{k} {n:,}" for k, n in sizes.items() if n > 1000)
    found = {
        "Parameters": f"{sum(sizes.values()):,} ({towers})",
        **_achieved(manifest.get("training", {})),
        **_time_spent(workdir),
        "Revision": git["revision"][:12] + " (changed)" * git["dirty"] if git else "unknown",
        "Evaluated": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "Workdir": mirror.shown(workdir),
    }
    if manifest.get("command"):
        found["Command"] = manifest["command"]
    return found


def _achieved(training: Mapping[str, Any]) -> dict[str, str]:
    if "step_seconds" not in training:
        return {}
    speed = f"{training['examples_per_second']:,.0f} examples/s"
    speed += f", {training['step_seconds']:.3g} s a step"
    if "mfu" in training:
        speed += f", {training['mfu']:.1%} MFU"
    elif "tflops_per_device" in training:
        speed += f", {training['tflops_per_device']:.3g} TFLOP/s per device"
    memory = f"host {training['host_memory_gib']:.1f} GiB"
    if "device_memory_gib" in training:
        memory += f", device {training['device_memory_gib']:.1f} GiB"
    return {"Speed": speed, "Peak memory": memory}


def _time_spent(workdir: Path) -> dict[str, str]:
    """Goodput until the report, and the table of `config.profile`."""
    found = {}
    if spent := goodput.read(workdir):
        found["Goodput"] = goodput.sentence(spent)
    file = workdir / "profile.json"
    if file.exists():
        profile = json.loads(file.read_text())
        last = profile["start"] + profile["steps"] - 1
        total = sum(profile["milliseconds"].values()) or 1.0
        parts = sorted(profile["milliseconds"].items(), key=lambda item: -item[1])
        said = ", ".join(f"{name} {ms / total:.1%}" for name, ms in parts if ms / total >= 0.001)
        name = f"Steps {profile['start']} to {last}"
        found[name] = f"{total:.3g} ms each: {said}"
    return found


def _short(number: int) -> str:
    """Such as 2.3 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
