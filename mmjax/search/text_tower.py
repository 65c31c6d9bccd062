"""The text tower of a model, recorded in the data cache, so that a query needs no JAX.

`text_towers/<fingerprint>/` has the program of the tower for one text (`array_program.py`) and the
tokenizer. It is made when an index is, and belongs to all indexes of that model; the folder can be
deleted at any time, and queries are then embedded by the model itself.
"""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.cache import data_root
from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.search.array_program import Program, write

ABOUT = "text_tower.json"  # written last
TOLERANCE = 1e-5  # of a unit vector's coordinates
TRIED = ("a", "a dog on the beach", "two people, one of whom reads a book, under a tree at night")


def folder_of(fingerprint: str) -> Path:
    """Where the tower of a model is, whether it is there or not."""
    return data_root() / "text_towers" / fingerprint


class TextTower:
    """A recorded tower.

    Raises:
      OSError, ValueError, KeyError: there is none, or it is damaged.
    """

    def __init__(self, folder: Path):
        self._length = json.loads((folder / ABOUT).read_text())["length"]
        self._tokenizer, self._program = load_tokenizer(folder), Program(folder)

    def embed(self, text: str) -> np.ndarray:
        """`[D]` float32 of unit length; a long text is truncated."""
        tokens, mask = self._tokenizer.encode([text], self._length)
        return self._program(text=tokens, text_mask=mask)[0].astype(np.float32)


def find(fingerprint: str) -> TextTower | None:
    """The recorded tower of a model; None if there is none that can be read."""
    try:
        return TextTower(folder_of(fingerprint))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(embedder: Any) -> bool:
    """Record an embedder's text tower, unless it is there; whether it could be recorded.

    It is kept if its vectors are those of the model, for a few texts.
    """
    # Imported late, as a query does without JAX.
    from mmjax.search.record import NotRecordableError, record

    folder, loaded = folder_of(embedder.fingerprint), embedder.loaded
    if find(embedder.fingerprint) is not None:
        return True

    def tower(variables, batch):
        return loaded.model.apply(variables, batch)["text_embed"]

    text, mask = loaded.tokenizer.encode(["a"], loaded.text_length)
    try:
        program, arrays = record(tower, loaded.variables, text=text, text_mask=mask)
    except NotRecordableError:
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".text-tower-", dir=folder.parent) as made:
        write(Path(made), program, arrays)
        loaded.tokenizer.save(made)
        (Path(made) / ABOUT).write_text(json.dumps({"length": loaded.text_length}))
        found = np.stack([TextTower(Path(made)).embed(text) for text in TRIED])
        if not np.abs(found - embedder.texts(TRIED)).max() < TOLERANCE:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(made, folder)
            os.mkdir(made)  # which is about to be removed
    return True
