"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one object of an image."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data import text_file
from mmjax.data.bad_records import BadRecord, allow
from mmjax.data.cache import data_root
from mmjax.data.image_files import file_fault
from mmjax.data.source import Source
from mmjax.data.sources.coco import (
    categories_of,
    check_size,
    file_name,
    read_json,
    region_fault,
    regions_of,
)
from mmjax.process.printable import printable

_CONVERT = (
    "convert the pickle, if you trust where it is from, with "
    "`python -c \"import json, pickle; json.dump(pickle.load(open('refs(unc).p', 'rb')), "
    "open('refs.json', 'w'))\"`"
)


def open_refcoco(
    refs: str | os.PathLike,
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    split: str,
    max_bad_records: int | float = 0,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "RefCoco":
    """The expressions of a split, an example for each object.

    The data sets come as a Python pickle, which could run any code and is never opened here: it is
    converted to JSON once, by hand.

    Args:
      refs: the list of refs(unc).p or refs(umd).p as JSON, with ann_id, image_id, split and
        sentences (sent) of each.
      annotations: instances.json beside it.
      images: the folder of COCO's train2014.
      split: "train", "val", "testA", "testB", or "test" of RefCOCOg.
      max_bad_records, workdir: see `open_coco`.

    Raises:
      ValueError: no such file or folder, files of another form, an unknown split, or too many
        objects without an image, a usable box or a sentence.

    Source: Yu et al. 2016 (arXiv 1608.00272); lichengunc/refer, refer.py.
    """
    path, root = Path(refs).expanduser(), Path(images).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set images to the folder of the images.")
    listed = _read_refs(path)
    splits = sorted({ref["split"] for ref in listed})
    if split not in splits:
        raise ValueError(f"{path} has no split '{split}'; it has {', '.join(splits)}.")
    data = read_json(Path(annotations).expanduser(), ("images", "annotations", "categories"))
    numbers, names = categories_of(data["categories"], Path(annotations))
    of_image = {image["id"]: image for image in data["images"]}
    of_id = {annotation.get("id"): annotation for annotation in data["annotations"]}
    wanted = [ref for ref in listed if ref["split"] == split]
    records, bad = [], []
    for ref in wanted:
        fault = _fault(ref, of_image, of_id, numbers, root)
        if fault is None:
            sentences = [s["sent"] for s in ref["sentences"] if s["sent"].strip()]
            records.append((of_image[ref["image_id"]], of_id[ref["ann_id"]], sentences))
        else:
            bad.append(fault)
    allow(bad, len(wanted), max_bad_records, str(path), Path(workdir or data_root(data_dir)))
    if not records:
        raise ValueError(f"{path} has no usable object left of {len(wanted)} in '{split}'.")
    return RefCoco(f"{path}/{split}", root, records, numbers, names)


class RefCoco(Source):
    """Images with `phrases`, and in `regions` the same object once for each of them."""

    def __init__(
        self,
        name: str,
        root: Path,
        records: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], list[str]]],
        numbers: Mapping[int, int],
        class_names: list[str],
    ):
        self.name, self.class_names = name, class_names
        self._root, self._records, self._numbers = root, records, numbers

    def __len__(self) -> int:
        return len(self._records)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return [*self.named_files, *(self._root / file_name(r[0]) for r in self._records)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._records[index][0]
        data = (self._root / file_name(image)).read_bytes()
        check_size(data, image)
        return {**self.meta(index), "image": data}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        image, annotation, sentences = self._records[index]
        return {
            "key": printable(f"{file_name(image)}, object {annotation['id']}"),
            "captions": sentences,
            "phrases": sentences,
            "regions": regions_of([annotation] * len(sentences), image, self._numbers),
        }


def _read_refs(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        raise ValueError(f"There is no file {path}: set refs to the JSON file; {_CONVERT}.")
    data = path.read_bytes()
    if data[:1] in (b"\x80", b"("):
        raise ValueError(f"{path} is a pickle, which is never opened: {_CONVERT}.")
    try:
        listed = text_file.parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): {_CONVERT}.") from None
    needed = ("ann_id", "image_id", "split", "sentences")
    if not isinstance(listed, list) or not all(
        isinstance(ref, dict)
        and all(name in ref for name in needed)
        and not any(isinstance(ref[name], list | dict) for name in ("ann_id", "image_id"))
        and isinstance(ref["split"], str)
        and isinstance(ref["sentences"], list)
        and all(isinstance(s, dict) and isinstance(s.get("sent"), str) for s in ref["sentences"])
        for ref in listed
    ):
        raise ValueError(
            f"{path} is no list of objects with {', '.join(needed)}, each of which has its text "
            f"as sent: {_CONVERT}."
        )
    return listed


def _fault(ref, of_image, of_id, numbers, root) -> BadRecord | None:
    name = f"object {ref['ann_id']} of image {ref['image_id']}"
    image, annotation = of_image.get(ref["image_id"]), of_id.get(ref["ann_id"])
    if image is None or annotation is None:
        return BadRecord(name, "bad_region", f"{name} is not among the annotations")
    missing = file_fault(root, file_name(image))
    if missing is not None:
        return BadRecord(name, "missing_file", missing)
    fault = region_fault(annotation, image, numbers)
    if fault is not None:
        return BadRecord(name, "bad_region", f"{name} {fault}")
    if not any(sentence["sent"].strip() for sentence in ref["sentences"]):
        return BadRecord(name, "missing_caption", f"{name} has no sentence")
    return None
