"""A folder as published on the hub: its JSON files and its tensors, opened but not read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.weights.tensor_file import Safetensors, Tensors

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


class Published(NamedTuple):
    """What a family's file reads: the content of config.json and of preprocessor_config.json
    (empty where there is none), and the tensors."""

    folder: Path
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    tensors: Tensors


def open_folder(folder: Path) -> Published:
    """Open a published folder.

    Raises:
      ValueError: a file is missing or damaged.
    """
    preprocessor = folder / PREPROCESSOR
    return Published(
        folder,
        read_json(folder / CONFIG),
        read_json(preprocessor) if preprocessor.is_file() else {},
        Safetensors(folder),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
      ValueError: it is missing or damaged.
    """
    if not path.is_file():
        raise ValueError(f"There is no '{path.name}' in '{path.parent}'.")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}): get it again.") from None
    if not isinstance(found, dict):
        raise ValueError(f"'{path}' holds no JSON object: get it again.")
    return found


def check_settings(family: str, settings: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ValueError for settings that a published model of a family cannot have.

    Args:
      settings: "image.pool" -> (what config.model has, what the family has).
    """
    other = [f"{k} {has!r} (not {can!r})" for k, (has, can) in settings.items() if has != can]
    if other:
        raise ValueError(
            f"This model cannot be saved as a published '{family}', which has no "
            f"{', no '.join(other)}."
        )
