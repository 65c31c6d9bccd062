"""Sources: random access to the examples of a data set, opened from a config.

A source has `len()`, `source[i]` (an example: `image`, `captions`, optionally `label`, `key`, and
whatever else the data set knows), `class_names` (list of str, or None) and `name`.
"""

import difflib
import inspect
import os
from collections.abc import Mapping
from typing import Any, Protocol

from mmjax.data.builders import BUILDERS, prepared_builder
from mmjax.data.sources.array_records import open_records
from mmjax.data.sources.balanced import open_balanced
from mmjax.data.sources.emoji_questions import open_questions
from mmjax.data.sources.folder import open_folder
from mmjax.data.sources.joined import open_joined
from mmjax.data.sources.paired import open_paired
from mmjax.data.sources.part import open_part
from mmjax.data.sources.webdataset import open_shards


class Source(Protocol):
    """What `open_source` gives."""

    name: str
    class_names: list[str] | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def open_source(config: Mapping, *, workdir: str | os.PathLike | None = None) -> Source:
    """The source that a config describes.

    Args:
      config: `kind`, one of `KINDS` at the end of this file, and the settings of its opener.
      workdir: where `bad_records.jsonl` is written; None writes it beside the cache.

    Raises:
      ValueError: an unknown kind or setting, or data that cannot be used.
    """
    settings = dict(config)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"The source's kind is {kind!r}; it must be one of {', '.join(KINDS)}.")
    opener = KINDS[kind]
    known = [name for name in inspect.signature(opener).parameters if name != "workdir"]
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it knows {', '.join(known)}."
            raise ValueError(f"A source of kind '{kind}' has no setting '{key}': {hint}")
    if "workdir" in inspect.signature(opener).parameters:
        settings["workdir"] = workdir
    return opener(**settings)


def open_tfds(
    name: str,
    split: str,
    data_dir: str | os.PathLike | None = None,
    root: str | os.PathLike | None = None,
    image_key: str = "image",
    caption_key: str | tuple[str, ...] | None = None,
    label_key: str | None = None,
    classes: tuple[str, ...] = (),
) -> "TfdsSource":
    """A split of one of our builders, built at first use, or of any TFDS set already prepared.

    Args:
      name: one of `mmjax.data.builders.BUILDERS`, or a TFDS name such as 'mnist' or
        'my_set/config:1.0.0' that lies under `data_dir` as array_record.
      root: raw files, for those of our builders that read them.
      split: also several, "george+lucas".
      image_key: the image's feature, where there is one.
      caption_key: feature(s) that hold text, alone or in lists; None takes 'captions',
        'caption' or 'text' where there is one.
      label_key: the class's feature; None takes 'label' where there is one.
      classes: names of the classes, where that feature is text: their order numbers them, and
        examples of no such class are left out.

    Raises:
      ValueError: an unknown name, split or feature, or a set that is not prepared.
    """
    import tensorflow_datasets as tfds

    if name in BUILDERS:
        builder = prepared_builder(name, data_dir, root)
    else:
        builder = _prepared_tfds(name, data_dir)
    features = builder.info.features
    for part in split.split("+"):
        _check_name(part.split("[")[0], list(builder.info.splits), f"Data set '{name}'", "split")
    captions = [caption_key] if isinstance(caption_key, str) else list(caption_key or [])
    if caption_key is None:
        captions = [key for key in ("captions", "caption", "text") if key in features][:1]
    if label_key is None and "label" in features:
        label_key = "label"
    if image_key == "image" and "audio" in features and "image" not in features:
        image_key = None
    for key in [image_key, *captions, label_key]:
        if key is None:
            continue
        _check_name(key, list(features), f"Data set '{name}'", "feature")
    decoders = {image_key: tfds.decode.SkipDecoding()} if image_key else None
    data = builder.as_data_source(split=split, decoders=decoders)
    class_names = getattr(features[label_key], "names", None) if label_key else None
    if classes:
        if label_key is None or class_names is not None:
            raise ValueError(
                f"classes of data set '{name}' is for a label_key whose feature is text, and "
                f"'{label_key}' is none: set label_key, or drop classes."
            )
        data, class_names = _OfClasses(data, label_key, list(classes)), list(classes)
    return TfdsSource(
        name=f"{name}/{split}",
        data=data,
        image_key=image_key,
        caption_keys=captions,
        label_key=label_key,
        class_names=class_names,
    )


class _OfClasses:
    """The records whose text `key` is one of `classes`, with its number there in its place."""

    def __init__(self, data: Any, key: str, classes: list[str]):
        self._data, self._key = data, key
        self._number = {name: i for i, name in enumerate(classes)}
        self._kept = [i for i in range(len(data)) if _plain(data[i][key]) in self._number]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = dict(self._data[self._kept[index]])
        return record | {self._key: self._number[_plain(record[self._key])]}


def _check_name(value: str, known: list[str], place: str, what: str) -> None:
    if value not in known:
        raise ValueError(f"{place} has no {what} '{value}'; it has {', '.join(sorted(known))}.")


def _prepared_tfds(name: str, data_dir: str | os.PathLike | None) -> Any:
    import tensorflow_datasets as tfds

    from mmjax.data.cache import data_root

    where = str(data_root(data_dir))
    mend = (
        "prepare it, where TensorFlow is if it needs that, with "
        f"`tfds build {name} --file_format=array_record --data_dir={where}`."
    )
    try:
        builder = tfds.builder(name, data_dir=where, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"There is no data set '{name}' under {where}, nor among this project's builders "
            f"({', '.join(BUILDERS)}): {mend}"
        ) from error
    except ImportError as error:
        raise ValueError(
            f"Data set '{name}' needs a package that is not installed ({error}): {mend}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"Data set '{name}' under {where} cannot be opened as array_record ({error}): {mend}"
        ) from error
    if not (builder.data_path / "dataset_info.json").exists():
        raise ValueError(f"Data set '{name}' is not prepared as array_record in {where}: {mend}")
    return builder


class TfdsSource:
    """A prepared split with its features under the names of the Example contract."""

    def __init__(
        self,
        name: str,
        data: Any,
        image_key: str | None,
        caption_keys: list[str],
        label_key: str | None,
        class_names: list[str] | None,
    ):
        self.name, self.class_names = name, class_names
        self._data, self._image_key = data, image_key
        self._caption_keys, self._label_key = caption_keys, label_key

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = dict(self._data[index])
        except RuntimeError as error:  # array_record's word for a file that is gone or cut off
            raise OSError(str(error)) from error
        example = {"key": f"{self.name}[{index}]"}
        if self._image_key:
            example["image"] = record.pop(self._image_key)
        record = {key: _plain(value) for key, value in record.items()}
        texts = [record.pop(key) for key in self._caption_keys]
        if texts:
            example["captions"] = [
                t for text in texts for t in (text if isinstance(text, list) else [text])
            ]
        if self._label_key:
            example["label"] = int(record.pop(self._label_key))
        return {**record, **example}


def _plain(value: Any) -> Any:
    """Text as str (TFDS yields bytes), also in lists; encoded images and arrays unchanged."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, list) or (hasattr(value, "dtype") and value.dtype == object):
        return [_plain(v) for v in value]
    return value


KINDS = {
    "tfds": open_tfds,
    "folder": open_folder,
    "webdataset": open_shards,
    "array_record": open_records,
    "paired": open_paired,
    "part": open_part,
    "joined": open_joined,
    "balanced": open_balanced,
    "emoji_questions": open_questions,
}
