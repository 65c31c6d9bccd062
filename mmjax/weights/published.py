"""A model folder as published on the hub: its JSON files, and its tensors, read on demand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.weights import tensor_file
from mmjax.weights.gguf import GGUF
from mmjax.weights.tensor_file import Safetensors, Tensors

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
OPEN_CLIP = "open_clip_config.json"
CONFIGS = (CONFIG, OPEN_CLIP)


class Layout(NamedTuple):
    """File names of a published folder; `index` is that of shards, None: shards not allowed."""

    config: str
    tensors: str
    index: str | None


HUB = Layout(CONFIG, tensor_file.WHOLE, tensor_file.INDEX)
OPEN_CLIPS = Layout(OPEN_CLIP, f"open_clip_{tensor_file.WHOLE}", None)


class Published(NamedTuple):
    """The content of config.json and preprocessor_config.json ({} if missing), and the tensors."""

    folder: Path
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    tensors: Tensors


def open_folder(folder: Path) -> Published:
    """Open a published folder; if it has both layouts, that of `transformers`.

    Raises:
      ValueError: a file is missing or damaged.
    """
    both = any((folder / name).is_file() for name in (tensor_file.WHOLE, tensor_file.INDEX))
    if (folder / OPEN_CLIP).is_file() and not both:
        return _open_clip(folder)
    preprocessor = folder / PREPROCESSOR
    return Published(
        folder,
        read_json(folder / CONFIG),
        read_json(preprocessor) if preprocessor.is_file() else {},
        Safetensors(folder),
    )


def _open_clip(folder: Path) -> Published:
    config = read_json(folder / OPEN_CLIP)
    model = config.get("model_cfg", {})
    kind = "open_clip_coca" if "multimodal_cfg" in model else "open_clip"
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - model.keys()
    if missing:
        raise ValueError(f"{sorted(missing)} missing in model_cfg of '{folder / OPEN_CLIP}'.")
    return Published(
        folder,
        {**model, "model_type": kind},
        config.get("preprocess_cfg", {}),
        Safetensors(folder, OPEN_CLIPS.tensors, OPEN_CLIPS.index),
    )


def open_gguf(path: Path) -> Published:
    """Open a GGUF file, with its metadata in place of config.json.

    Raises:
      ValueError: no such file, another kind of file, or a damaged one.
    """
    file = GGUF(path)
    return Published(path, {**file.metadata, "model_type": "gguf"}, {}, file)


def read_json(path: Path, kind: type = dict) -> Any:
    """The content of a JSON file, which must be a dict or a list.

    Raises:
      ValueError: it is missing or damaged.
    """
    if not path.is_file():
        raise ValueError(f"There is no '{path.name}' in '{path.parent}'.")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}): get it again.") from None
    if not isinstance(found, kind):
        raise ValueError(f"'{path}' is not a JSON {kind.__name__}: get it again.")
    return found


def class_names(found: Published, count: int | None) -> tuple[str, ...] | None:
    """Class names of a head from config.json; None if the classes have only default names.

    Raises:
      ValueError: the number of names is not that of the head's classes.
    """
    names = {str(k): str(v) for k, v in (found.config.get("id2label") or {}).items()}
    unnamed = labels(None, count or 0)["id2label"]
    if count is None or not names or names == unnamed:
        return None
    if names.keys() != unnamed.keys():
        raise ValueError(
            f"'{found.folder / CONFIG}' names {len(names)} classes in id2label, and the head has "
            f"{count}: config and weights are from different models."
        )
    return tuple(names[k] for k in unnamed)


def labels(names: Sequence[str] | None, count: int) -> dict[str, dict]:
    """The part of config.json that `class_names` reads; None: default names."""
    names = [f"LABEL_{i}" for i in range(count)] if names is None else names
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def check_fixed(found: Published, fixed: Mapping[str, Any]) -> None:
    """Raise ValueError where config.json changes what our model computes.

    Args:
      fixed: settings, with the only allowed value of each.
    """
    for name, value in fixed.items():
        if found.config.get(name, value) != value:
            raise ValueError(
                f"'{found.folder / CONFIG}' has {name} {found.config[name]!r}; models with another "
                f"value than {value!r} cannot be loaded."
            )


def check_settings(family: str, settings: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ValueError for settings that a published model of a family cannot have.

    Args:
      settings: "image.pool" -> (value in config.model, value in the family).
    """
    other = [f"{k} {has!r} (not {can!r})" for k, (has, can) in settings.items() if has != can]
    if other:
        raise ValueError(
            f"This model cannot be saved as a published '{family}', which has no "
            f"{', no '.join(other)}."
        )
