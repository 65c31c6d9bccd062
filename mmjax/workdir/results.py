"""results.jsonl: every evaluation of a run's checkpoints, none of which replaces another."""

import os
from collections.abc import Mapping
from pathlib import Path

from mmjax import storage
from mmjax.workdir import jsonl
from mmjax.workdir.manifest import read_manifest, write_manifest
from mmjax.workdir.metrics import numbers

Key = tuple[int, str, str]  # step, name of the evaluator, fingerprint of its settings


def read_results(workdir: str | os.PathLike) -> dict[Key, dict[str, float]]:
    """What was evaluated: metric -> value of every step and evaluator.

    The results in run.json count as well: earlier runs have only those.

    Raises:
      ValueError: a damaged file.
    """
    found, path = {}, Path(workdir) / "results.jsonl"
    own, where = read_manifest(workdir).get("results", {}), path.with_name("run.json")
    if "evaluators" in own:
        fault = jsonl.fault_of(own, step=int, evaluators=dict, values=dict)
        if fault or not all(isinstance(x, str) for x in own["evaluators"].values()):
            raise ValueError(
                f"The results in {where} are damaged ({fault or 'a fingerprint is no text'}): "
                "delete that part."
            )
        values = numbers(own["values"], str(where))
        for name, fingerprint in own["evaluators"].items():
            start = f"{name}/"
            mine = {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}
            found[own["step"], name, fingerprint] = mine
    for row in jsonl.read(path, step=int, evaluator=str, fingerprint=str, values=dict):
        key = row["step"], row["evaluator"], row["fingerprint"]
        found[key] = numbers(row["values"], f"{path}, step {row['step']},")
    return found


def rewind_results(workdir: str | os.PathLike, step: int) -> None:
    """Drop what is of later steps than the one from which training resumes: those checkpoints, with
    their parameters, are gone."""
    path = Path(workdir) / "results.jsonl"
    rows = jsonl.read(path, step=int)
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows):
        storage.write(path, "".join(jsonl.line(row) + "\n" for row in kept))
    own = read_manifest(workdir).get("results", {})
    if jsonl.fault_of(own, step=int) is None and own["step"] > step:
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
