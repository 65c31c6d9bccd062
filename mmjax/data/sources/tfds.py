"""Prepared TFDS data sets, this project's included, as sources of the Example contract."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmjax.data import rle
from mmjax.data.builders import BUILDERS, prepared_builder
from mmjax.data.cache import data_root
from mmjax.data.regions import Regions, of_masks
from mmjax.data.source import MEDIA, Source


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
    """A split of one of this project's builders, built at first use, or of a prepared TFDS set.

    Args:
      name: one of `mmjax.data.builders.BUILDERS`, or a TFDS name such as 'mnist' or
        'my_set/config:1.0.0' that is stored under `data_dir` as array_record.
      root: raw files, for those of our builders that read them.
      split: one split, several as "george+lucas", or all others than one as "all-theo".
      image_key: feature of the image, if there is one.
      caption_key: feature(s) that hold a text or a list of texts; None: 'captions', 'caption' or
        'text', if there is one.
      label_key: feature of the class; None: 'label', if there is one.
      classes: names of the classes, if `label_key` is text: labels are numbered in this order, and
        examples of other classes are left out.

    Raises:
      ValueError: an unknown name, split or feature, or a data set that is not prepared.
    """
    import tensorflow_datasets as tfds

    if name in BUILDERS:
        builder = prepared_builder(name, data_dir, root)
    else:
        builder = _prepared_tfds(name, data_dir)
    features = builder.info.features
    split = _with_all(split, list(builder.info.splits), name)
    captions = [caption_key] if isinstance(caption_key, str) else list(caption_key or [])
    if caption_key is None:
        captions = [key for key in ("captions", "caption", "text") if key in features][:1]
    if label_key is None and "label" in features:
        label_key = "label"
    if image_key == "image" and "image" not in features and {"audio", "video"} & set(features):
        image_key = None
    for key in [image_key, *captions, label_key]:
        if key is None:
            continue
        _check_name(key, list(features), f"Data set '{name}'", "feature")
    decoders = {image_key: tfds.decode.SkipDecoding()} if image_key else None
    data = builder.as_data_source(split=split, decoders=decoders)
    meta = _WithoutMedia(builder, split, image_key)
    class_names = getattr(features[label_key], "names", None) if label_key else None
    if "regions" in features and label_key is None:
        class_names = features["regions"]["label"].names
    if classes:
        if label_key is None or class_names is not None:
            raise ValueError(
                f"classes of data set '{name}' is for a label_key whose feature is text, and "
                f"'{label_key}' is none: set label_key, or remove classes."
            )
        kept = _kept(meta, label_key, classes)
        data, meta = (_OfClasses(rows, label_key, kept) for rows in (data, meta))
        class_names = list(classes)
    return TfdsSource(
        name=f"{name}/{split}",
        data=data,
        image_key=image_key,
        caption_keys=captions,
        label_key=label_key,
        class_names=class_names,
        meta=meta,
        files=_files(builder, split),
    )


def _with_all(split: str, known: Sequence[str], name: str) -> str:
    """The split with "all-theo" spelled out.

    Raises:
      ValueError: an unknown split.
    """
    if split.startswith("all-"):
        left_out = split.removeprefix("all-")
        _check_name(left_out, known, f"Data set '{name}'", "split")
        split = "+".join(part for part in known if part != left_out)
    for part in split.split("+"):
        _check_name(part.split("[")[0], known, f"Data set '{name}'", "split")
    return split


def _files(builder: Any, split: str) -> list[Path]:
    """Those of the splits that are read, also of a part of one."""
    names = dict.fromkeys(part.split("[")[0] for part in split.split("+"))
    return [Path(path) for name in names for path in builder.info.splits[name].filepaths]


class _WithoutMedia:
    """The records of a split without their media."""

    def __init__(self, builder: Any, split: str, image_key: str | None):
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._data = builder.as_data_source(split=split, deserialize_method=raw)
        kept = {k: f for k, f in builder.info.features.items() if k not in (*MEDIA, image_key)}
        self._features = tfds.features.FeaturesDict(kept)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._features.deserialize_example_np(self._data[index])


def _kept(records: Any, key: str, classes: Sequence[str]) -> dict[int, int]:
    """{index: class} of the records whose text feature `key` is one of the classes."""
    number = {name: i for i, name in enumerate(classes)}
    found = ((i, number.get(_plain(records[i][key]))) for i in range(len(records)))
    return {i: label for i, label in found if label is not None}


class _OfClasses:
    """The records in `labels`, with the text feature `key` replaced by the class index."""

    def __init__(self, data: Any, key: str, labels: dict[int, int]):
        self._data, self._key, self._labels = data, key, list(labels.items())

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, label = self._labels[index]
        return {**self._data[place], self._key: label}


def _check_name(value: str, known: list[str], place: str, what: str) -> None:
    if value not in known:
        raise ValueError(f"{place} has no {what} '{value}'; it has {', '.join(sorted(known))}.")


def _prepared_tfds(name: str, data_dir: str | os.PathLike | None) -> Any:
    import tensorflow_datasets as tfds

    where = str(data_root(data_dir))
    fix = (
        "prepare it (on a machine with TensorFlow, if it needs that) with "
        f"`tfds build {name} --file_format=array_record --data_dir={where}`."
    )
    try:
        builder = tfds.builder(name, data_dir=where, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"There is no data set '{name}' under {where}, nor among this project's builders "
            f"({', '.join(BUILDERS)}): {fix}"
        ) from error
    except ImportError as error:
        raise ValueError(
            f"Data set '{name}' needs a package that is not installed ({error}): {fix}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"Data set '{name}' under {where} cannot be opened as array_record ({error}): {fix}"
        ) from error
    if not (builder.data_path / "dataset_info.json").exists():
        raise ValueError(f"Data set '{name}' is not prepared as array_record in {where}: {fix}")
    return builder


class TfdsSource(Source):
    """A prepared split with the field names of the Example contract.

    Args:
      data, meta: its records, and the same without media (None: `meta` reads the full records).
      files: that they are in.
    """

    def __init__(
        self,
        name: str,
        data: Any,
        image_key: str | None,
        caption_keys: list[str],
        label_key: str | None,
        class_names: list[str] | None,
        meta: Any = None,
        files: Sequence[Path] = (),
    ):
        self.name, self.class_names = name, class_names
        self._data, self._meta, self._image_key = data, meta, image_key
        self._caption_keys, self._label_key, self._files = caption_keys, label_key, files

    def __len__(self) -> int:
        return len(self._data)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return self._files

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = _read(self._data, index)
        image = {"image": record.pop(self._image_key)} if self._image_key else {}
        return self._example(index, record) | image

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        if self._meta is None:
            return super().meta(index)
        return self._example(index, _read(self._meta, index))

    def _example(self, index: int, record: dict[str, Any]) -> dict[str, Any]:
        record = {key: _plain(value) for key, value in record.items()}
        texts = [record.pop(key) for key in self._caption_keys]
        example = {"key": f"{self.name}[{index}]"}
        if texts:
            example["captions"] = [
                t for text in texts for t in (text if isinstance(text, list) else [text])
            ]
        if isinstance(record.get("regions"), dict):
            record["regions"] = _regions(record)
        if self._label_key:
            example["label"] = int(record.pop(self._label_key))
        return {**record, **example}


def _regions(record: dict[str, Any]) -> Regions:
    """Of masks as compressed RLE and their labels; takes the size out of the record."""
    height, width = int(record.pop("height")), int(record.pop("width"))
    given = record["regions"]
    masks = [rle.from_string(counts, height, width) for counts in given["counts"]]
    return of_masks(masks, given["label"], height, width)


def _read(records: Any, index: int) -> dict[str, Any]:
    try:
        return dict(records[index])
    except RuntimeError as error:  # array_record raises it for a missing or truncated file
        raise OSError(str(error)) from error


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
