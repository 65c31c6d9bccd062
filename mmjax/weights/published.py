"""A model folder as published on the hub: its JSON files, and its tensors, read on demand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data import text_file
from mmjax.layers.sizes import height_width
from mmjax.weights import ctranslate2, schema, tensor_file
from mmjax.weights.gguf import GGUF
from mmjax.weights.tensor_file import Files, Safetensors, Tensors

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # of transformers 5: images, texts and audio in one file
OPEN_CLIP = "open_clip_config.json"
PIPELINE = "model_index.json"  # of diffusers: several models, each in a folder
# Settings of config.json that no model of ours reads, and that others read in a saved folder.
KEPT = (
    *(f"{role}_token_id" for role in ("bos", "eos", "pad", "sep", "cls", "mask", "decoder_start")),
    "problem_type",
)
SIDES = ("image_size", "patch_size")  # settings that may be a list of height and width
CONFIGS = (CONFIG, OPEN_CLIP, PIPELINE)


class Layout(NamedTuple):
    """File names of a published folder; `index` is that of shards, None: shards not allowed."""

    config: str
    tensors: str
    index: str | None


HUB = Layout(CONFIG, tensor_file.WHOLE, tensor_file.INDEX)
_DIFFUSERS = "diffusion_pytorch_model.safetensors"
DIFFUSERS = Layout(CONFIG, _DIFFUSERS, f"{_DIFFUSERS}.index.json")
OPEN_CLIPS = Layout(OPEN_CLIP, f"open_clip_{tensor_file.WHOLE}", None)


class Published(NamedTuple):
    """The content of config.json, the settings of the image processor (None: no file has any), and
    the tensors."""

    folder: Path
    config: dict[str, Any]
    preprocessor: dict[str, Any] | None
    tensors: Tensors


def open_folder(folder: Path) -> Published:
    """Open a published folder; if it has several layouts, that of `transformers`.

    Raises:
      ValueError: a file is missing or damaged.
    """
    both = any((folder / name).is_file() for name in (tensor_file.WHOLE, tensor_file.INDEX))
    if (folder / OPEN_CLIP).is_file() and not both:
        return _open_clip(folder)
    if (folder / ctranslate2.FILE).is_file() and not both:
        return _open_ctranslate2(folder)
    if config_file(folder).name == PIPELINE:
        config = read_json(folder / PIPELINE)
        return Published(
            folder, {**config, "model_type": config.get("_class_name")}, None, Files({})
        )
    config = read_json(folder / CONFIG)
    if "n_audio_state" in config:  # the sizes of openai/whisper, which name no type
        config.setdefault("model_type", "whisper")
    if "architecture" in config:  # of timm, such as "tf_efficientnet_lite0"
        config.setdefault("model_type", str(config["architecture"]).rstrip("0123456789"))
    if "_class_name" in config:  # of diffusers
        tensors = Safetensors(folder, DIFFUSERS.tensors, DIFFUSERS.index)
        return Published(folder, {**config, "model_type": config["_class_name"]}, None, tensors)
    return Published(folder, config, _preprocessor(folder), Safetensors(folder))


def config_file(folder: Path) -> Path:
    """config.json of a folder, or model_index.json of one that has only this."""
    pipeline = (folder / PIPELINE).is_file() and not (folder / CONFIG).is_file()
    return folder / (PIPELINE if pipeline else CONFIG)


def _preprocessor(folder: Path) -> dict[str, Any] | None:
    """The settings of the image processor, or of the feature extractor of a model of audio: those
    in processor_config.json come first, as in transformers 5.23 (image_processing_base.py,
    get_image_processor_dict)."""
    if (folder / PROCESSOR).is_file():
        whole = read_json(folder / PROCESSOR)
        for part in ("image_processor", "feature_extractor"):
            if whole.get(part) is not None:
                return section(whole, part, folder / PROCESSOR)
    return read_json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else None


def _open_clip(folder: Path) -> Published:
    path = folder / OPEN_CLIP
    config = read_json(path)
    model = section(config, "model_cfg", path)
    kind = "open_clip_coca" if "multimodal_cfg" in model else "open_clip"
    given = {name for name, value in model.items() if value is not None}
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - given
    if missing:
        raise ValueError(f"{sorted(missing)} missing in model_cfg of '{path}'.")
    settings(model, {"embed_dim": 512}, f"{path}: model_cfg")
    towers = {name: section(model, name, path) for name in ("vision_cfg", "text_cfg")}
    return Published(
        folder,
        {**model, **towers, "model_type": kind},
        section(config, "preprocess_cfg", path),
        Safetensors(folder, OPEN_CLIPS.tensors, OPEN_CLIPS.index),
    )


def _open_ctranslate2(folder: Path) -> Published:
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    file = ctranslate2.CTranslate2(folder / ctranslate2.FILE)
    return Published(folder, {**config, "model_type": "ctranslate2"}, None, file)


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
    data = path.read_bytes()
    try:
        found = text_file.parse_json(data)
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}): get it again.") from None
    if text_file.has_surrogate(data, found):
        raise ValueError(
            f"'{path}' is damaged (it has half of a surrogate pair, which is no character): get it "
            "again."
        )
    if not isinstance(found, kind):
        raise ValueError(f"'{path}' is not a JSON {kind.__name__}: get it again.")
    return found


def section(config: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A section of a JSON file; {} if it is missing or null.

    Raises:
      ValueError: it is not an object.
    """
    value = {} if config.get(name) is None else config[name]
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' has {name} {value!r}, which must be an object: get it again.")
    return value


def kept(found: Published) -> dict[str, Any]:
    """The settings in `KEPT` of a folder, from the section of its text where it has one."""
    part = found.config
    if "text_config" in part:
        part = section(part, "text_config", found.folder / CONFIG)
    return {name: part[name] for name in KEPT if part.get(name) is not None}


def settings(
    given: Mapping[str, Any], defaults: Mapping[str, Any], where: str | Path
) -> dict[str, Any]:
    """Settings with their defaults, which also replace null.

    Args:
      defaults: their schema, see `schema`; where a default is None, or there is none, any value
        is allowed.
      where: the file or its section, for the message.

    Raises:
      ValueError: a value that does not fit the schema.
    """
    whole = {k: None if isinstance(v, schema.Maybe) else v for k, v in defaults.items()}
    whole |= {k: v for k, v in given.items() if v is not None}
    for name, default in defaults.items():
        sides = name in SIDES and isinstance(whole[name], list) and len(whole[name]) == 2
        for value in whole[name] if sides else [whole[name]]:
            schema.check(name, value, default, where)
        if isinstance(default, float):
            whole[name] = float(whole[name])
    return whole


def tower(found: Published, defaults: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A tower's sections of config.json, of which the last counts, with defaults.

    Raises:
      ValueError: as `settings`.
    """
    path, given = found.folder / CONFIG, {}
    for name in names:
        given |= section(found.config, name, path)
    return settings(given, defaults, f"{path}: {names[0]}")


def image_sides(given: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """`image_size`, `patch_size` and, where they do not fit, `drop_partial_patches` of a `ViT`;
    lists are allowed for the first two.

    Raises:
      ValueError: a patch that is not square.
    """
    size, patch = (x if isinstance(x, int) else tuple(x) for x in (given[k] for k in SIDES))
    if not isinstance(patch, int) and patch[0] != patch[1]:
        raise ValueError(
            f"'{where}' has patch_size {list(patch)}; only models of square patches can be loaded."
        )
    patch = patch if isinstance(patch, int) else patch[0]
    partial = any(side % patch for side in height_width(size))
    dropped = {"drop_partial_patches": True} if partial else {}  # as a convolution drops them
    return {"image_size": size, "patch_size": patch, **dropped}


def class_names(found: Published, count: int | None) -> tuple[str, ...] | None:
    """Class names of a head from config.json; None if the classes have only default names.

    Raises:
      ValueError: the number of names is not that of the head's classes.
    """
    given = section(found.config, "id2label", found.folder / CONFIG)
    names = {str(k): str(v) for k, v in given.items()}
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
