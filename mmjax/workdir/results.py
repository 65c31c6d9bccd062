"""results.jsonl: every evaluation of a run's checkpoints, none of which replaces another."""

import os
from collections.abc import Mapping
from pathlib import Path

from mmjax import storage
from mmjax.workdir import jsonl
from mmjax.workdir.manifest import read_manifest, write_manifest

Key = tuple[int, str, str]  # step, name of the evaluator, fingerprint of its settings


def read_results(workdir: str | os.PathLike) -> dict[Key, dict[str, float]]:
    """What was evaluated: metric -> value of every step and evaluator.

    The results in run.json count as well: earlier runs have only those.
    """
    found = {}
    own = read_manifest(workdir).get("results", {})
    for name, fingerprint in own.get("evaluators", {}).items():
        start = f"{name}/"
        values = {k.removeprefix(start): v for k, v in own["values"].items() if k.startswith(start)}
        found[own["step"], name, fingerprint] = values
    for row in jsonl.read(Path(workdir) / "results.jsonl"):
        found[row["step"], row["evaluator"], row["fingerprint"]] = row["values"]
    return {key: {k: float(v) for k, v in values.items()} for key, values in found.items()}


def rewind_results(workdir: str | os.PathLike, step: int) -> None:
    """Drop what is of later steps than the one from which training resumes: those checkpoints, with
    their parameters, are gone."""
    path = Path(workdir) / "results.jsonl"
    rows = jsonl.read(path)
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows):
        storage.write(path, "".join(jsonl.line(row) + "\n" for row in kept))
    if read_manifest(workdir).get("results", {}).get("step", 0) > step:
        write_manifest(workdir, results={})


def append_results(
    workdir: str | os.PathLike, step: int, name: str, fingerprint: str, values: Mapping[str, float]
) -> None:
    """Add the results of one evaluator.

    Raises:
      ValueError: the file cannot be written.
    """
    path = Path(workdir) / "results.jsonl"
    jsonl.cut_torn_end(path)
    row = {"step": step, "evaluator": name, "fingerprint": fingerprint, "values": dict(values)}
    jsonl.append(path, [jsonl.plain(row)])
