"""The default model: built at first use, cached, checked, and never half written."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mmjax import storage
from mmjax.data.cache import data_root, locked
from mmjax.photos import config as photos

VERSION = 1  # another number wherever the model changes: indexes depend on it
MANIFEST = "model.json"


def path_of(version: int = VERSION) -> Path:
    """The workdir of a version of the default model, whether it is there or not."""
    return data_root() / "models" / f"photos-{version}"


def named_or_default(model: str | None) -> str:
    """The path of a model; of the default one, which is built if need be, where none is named.

    Raises:
      ValueError: see `default_model`.
    """
    return model if model and Path(model).resolve() != path_of().resolve() else str(default_model())


def default_model() -> Path:
    """The workdir of the default model, for `mmjax.load`; built if it is missing or damaged.

    Several processes may call this at once: one builds while the others wait.

    Raises:
      ValueError: a package cannot be downloaded (what was downloaded is kept), or the training
        failed.
    """
    path = path_of()
    with locked(path.parent / f".{path.name}.lock"):
        if path.exists() and (fault := damage(path)):
            print(f"warning: the default model is damaged ({fault}): building it", file=sys.stderr)
            shutil.rmtree(path)
        if not path.exists():
            for left_over in path.parent.glob(f".{path.name}-*"):
                shutil.rmtree(left_over, ignore_errors=True)
            print("Building the default model, once: it takes a few minutes.", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as work:
                build(Path(work))
                seal(Path(work, "run"))
                os.replace(Path(work, "run"), path)
    return path


def build(work: Path) -> None:
    """Write the features to `work/names` and train the model in `work/run`.

    Raises:
      ValueError: see `default_model`.
    """
    names = work / "names"
    _run("mmjax.photos.features", f"--target={names}")
    _run(
        "mmjax.train",
        f"--config={photos.__file__}",
        f"--workdir={work / 'run'}",
        f"--config.data.train.root={names}",
    )


def _run(module: str, *flags: str) -> None:
    """Run a command of mmjax in a process of its own; its progress and errors are on stderr."""
    done = subprocess.run([sys.executable, "-m", module, *flags], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise ValueError(
            "The default model cannot be built, for the reason above: try again (what was "
            "downloaded is kept), or give --model a model of your own."
        )


def seal(folder: Path) -> None:
    """Write the size and SHA-256 of every file of a folder into its manifest."""
    files = {name: _facts(folder / name) for name in _files(folder)}
    storage.write(folder / MANIFEST, json.dumps({"version": VERSION, "files": files}, indent=1))


def damage(folder: Path) -> str:
    """What differs from the manifest; "" if nothing does."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return f"its {MANIFEST} cannot be read"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if [size, digest] != _facts(path):
            return f"{name} has changed"
    return ""


def _files(folder: Path) -> list[str]:
    """What the model is loaded from."""
    parts = ("checkpoints", "tokenizer")
    return sorted(
        str(path.relative_to(folder))
        for part in parts
        for path in (folder / part).rglob("*")
        if path.is_file()
    )


def _facts(path: Path) -> list:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
