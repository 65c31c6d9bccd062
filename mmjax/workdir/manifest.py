"""run.json: a run's config, results and environment."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from mmjax import storage
from mmjax.storage import mirror
from mmjax.workdir import jsonl

PACKAGES = (
    "mmjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "ml_collections",
    "grain",
    "tokenizers",
    "numpy",
)
# What other parts write and read back, with its type.
SECTIONS = {"config": dict, "results": dict, "start": dict, "starts": list, "tracker": dict}


def write_manifest(workdir: str | os.PathLike, **sections: Any) -> None:
    """Write `<workdir>/run.json`: the given sections, and the environment.

    A section replaces its earlier version and the others are kept, so that config can be written at
    the start and results at the end. Always written: package versions, Python, platform, devices,
    git.

    Raises:
      ValueError: a `run.json` that is not JSON, or a full disk, which leaves the old one.
    """
    path = Path(workdir) / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(workdir)
    devices = jax.devices()
    manifest |= {
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": {"kind": devices[0].device_kind, "count": len(devices)},
        "git": git_revision(),
    }
    manifest |= sections
    storage.write(path, json.dumps(jsonl.plain(manifest), indent=2, allow_nan=False) + "\n")


def read_manifest(workdir: str | os.PathLike) -> dict[str, Any]:
    """The contents of run.json; empty where there is none.

    Raises:
      ValueError: it is not JSON, or has a section of another type.
    """
    path = Path(workdir) / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{mirror.shown(path)} is not JSON ({error}): delete it.") from None
    fault = jsonl.fault_of(found)
    if fault is None:
        fault = jsonl.fault_of(found, **{k: SECTIONS[k] for k in SECTIONS.keys() & found.keys()})
    if fault is None and not all(isinstance(x, dict) for x in found.get("starts", ())):
        fault = "has a start that is no object"
    if fault is not None:
        raise ValueError(f"{mirror.shown(path)} {fault}: delete it.")
    return found


def git_revision() -> dict[str, Any] | None:
    """`{"revision": sha, "dirty": bool}` of the checkout that contains this code, else None."""
    here = Path(__file__).resolve()

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *args], cwd=here.parent, capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may be inside another project's checkout: only a tracked file counts.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    revision, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    return None if revision is None else {"revision": revision, "dirty": bool(status)}


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
