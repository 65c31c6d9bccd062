"""The tensors of a published checkpoint by name, read one at a time."""

import json
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Tensors(Protocol):
    """Named tensors: `shapes` of all of them, and `read` for one."""

    name: str
    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """One tensor, as it is stored (bfloat16 and float16 too)."""


class Safetensors:
    """The tensors of one or more safetensors files; they stay on disk until they are read.

    Attributes:
      name: of the file or folder, for messages.
      shapes: name -> shape.

    Raises:
      ValueError: a file that is missing, damaged or no safetensors file, or that lacks a tensor
        of the index.
    """

    def __init__(self, folder: str | Path, whole: str = WHOLE, index: str = INDEX):
        folder = Path(folder)
        if (folder / index).is_file():
            where = _read_index(folder / index)
            self.name = str(folder)
            files = {file: _open(folder / file) for file in sorted(set(where.values()))}
            inside = {file: set(opened.keys()) for file, opened in files.items()}
            self._file = {name: files[file] for name, file in where.items()}
            for name, file in where.items():
                if name not in inside[file]:
                    raise ValueError(
                        f"'{folder / index}' says that '{file}' holds '{name}', which it does not: "
                        "get both again."
                    )
        else:
            self.name = str(folder / whole)
            file = _open(folder / whole)
            self._file = dict.fromkeys(file.keys(), file)
        self.shapes = {
            name: tuple(file.get_slice(name).get_shape()) for name, file in self._file.items()
        }

    def read(self, name: str) -> np.ndarray:
        """One tensor, as it is stored (bfloat16 and float16 too)."""
        return self._file[name].get_tensor(name)


def _read_index(path: Path) -> dict[str, str]:
    try:
        where = json.loads(path.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"'{path}' is no index of safetensors files: get it again.") from None
    outside = [file for file in where.values() if Path(file).name != file]
    if outside:
        raise ValueError(f"'{path}' names the file '{outside[0]}', which is not beside it.")
    return where


def _open(path: Path):
    if not path.is_file():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        pickles = sorted(p.name for p in beside if p.suffix in PICKLES)
        hint = (
            f"; '{pickles[0]}' is a pickle, which can run any code and is never loaded: save the "
            "model as safetensors with the library that wrote it"
            if pickles
            else ""
        )
        raise ValueError(f"There is no '{path.name}' in '{path.parent}'{hint}.")
    head = path.open("rb").read(16)
    if head[:2] in (b"\x80\x02", b"\x80\x04", b"PK"):
        raise ValueError(
            f"'{path}' is a pickle under another name; pickles can run any code and are never "
            "loaded: save the model as safetensors with the library that wrote it."
        )
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(
            f"'{path}' is truncated or no safetensors file ({path.stat().st_size:,} bytes; "
            f"{error}): get it again."
        ) from None
