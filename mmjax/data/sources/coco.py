"""Instances of COCO's annotation files, and of LVIS, which has the same form."""

import collections
import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import rle, text_file
from mmjax.data.bad_records import BadRecord, allow
from mmjax.data.cache import data_root
from mmjax.data.image_files import file_fault
from mmjax.data.regions import Regions
from mmjax.data.source import Source
from mmjax.data.transforms.decode import MAX_PIXELS, decoded_size
from mmjax.process.printable import printable
from mmjax.process.progress import Progress

FARTHEST = 1e18  # larger numbers are no pixels, and whole ones do not fit a float
IDS = ("id", "image_id", "category_id")
LVIS = {"frequency", "synset"}  # what its categories have besides
# LVIS's classes of an image, and the names of their fields in an example.
LOOKED_FOR = {
    "neg_category_ids": "negative",
    "not_exhaustive_category_ids": "not_exhaustive",
}


def open_coco(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    max_bad_records: int | float = 0,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "Coco":
    """The images of a COCO or LVIS annotation file with their boxes and masks.

    Args:
      annotations: instances_train2017.json, lvis_v1_train.json, or a file of your own with
        `images` (id, file_name, height, width), `annotations` (image_id, category_id, bbox as
        x, y, width, height in pixels, and optionally segmentation, area, iscrowd) and `categories`
        (id, name).
      images: the folder that the file names are below.
      max_bad_records: images without their file and annotations without a usable box, mask or
        category that may be left out; see `mmjax.data.bad_records.allow`.
      workdir: where these are listed; None: the data cache.

    Raises:
      ValueError: no such file or folder, a file of another form, a category without a name, two
        images of one id, or too many bad records.

    Source: Lin et al. 2014 (arXiv 1405.0312), cocodataset.org/#format-data; Gupta et al. 2019
    (arXiv 1908.03195) for `neg_category_ids` and `not_exhaustive_category_ids`.
    """
    path, root = Path(annotations).expanduser(), Path(images).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set images to the folder of the images.")
    data = read_json(path, ("images", "annotations", "categories"))
    numbers, names = categories_of(data["categories"], path)
    _check_looked_for(data["images"], numbers, path)
    records, bad = _usable(data, root, numbers, path.name)
    total = len(data["images"]) + len(data["annotations"])
    allow(bad, total, max_bad_records, str(path), Path(workdir or data_root(data_dir)))
    if not records:
        raise ValueError(f"{path} has no usable image left of {len(data['images'])} that it lists.")
    return Coco(path, records, numbers, names, [c.get("frequency") for c in data["categories"]])


def _check_looked_for(
    images: Sequence[Mapping[str, Any]], numbers: Mapping[int, int], path: Path
) -> None:
    for image in images:
        for key in LOOKED_FOR:
            given = image.get(key) or []
            if not isinstance(given, list):
                raise ValueError(
                    f"{path} has as {key} of {file_name(image)} {reprlib.repr(given)}, and it is a "
                    "list of categories: get the file again."
                )
            unknown = [i for i in given if isinstance(i, list | dict) or i not in numbers]
            if unknown:
                raise ValueError(
                    f"{path} has in {key} of {file_name(image)} the category "
                    f"{reprlib.repr(unknown[0])}, which has no name: add it to categories, or "
                    "remove it there."
                )


def _usable(
    data: Mapping[str, Any], root: Path, numbers: Mapping[int, int], name: str
) -> tuple[list[tuple[Path, Mapping[str, Any], list]], list[BadRecord]]:
    """(file, image, annotations) of each image that is there, and what cannot be used."""
    of_image = collections.defaultdict(list)
    for annotation in data["annotations"]:
        of_image[annotation.get("image_id")].append(annotation)
    records, bad = [], []
    with Progress(f"Checking {name}", len(data["images"])) as bar:
        for image in data["images"]:
            mine, file = of_image.pop(image["id"], ()), root / file_name(image)
            bar.advance()
            fault = file_fault(root, file_name(image))
            if fault is not None:
                bad.append(BadRecord(file_name(image), "missing_file", fault))
                continue
            faults = [region_fault(annotation, image, numbers) for annotation in mine]
            bad += [
                _bad_annotation(annotation, f"of {file_name(image)} {fault}")
                for annotation, fault in zip(mine, faults)
                if fault is not None
            ]
            kept = [annotation for annotation, fault in zip(mine, faults) if fault is None]
            records.append((file, image, kept))
    bad += [
        _bad_annotation(annotation, f"is of the image {image}, which is not listed")
        for image, unplaced in of_image.items()
        for annotation in unplaced
    ]
    return records, bad


def _bad_annotation(annotation: Mapping[str, Any], reason: str) -> BadRecord:
    name = f"annotation {annotation.get('id')}"
    return BadRecord(name, "bad_region", f"{name} {reason}")


class AnnotatedImages(Source):
    """Images in files, of which `_records` has (file, description with its size, annotations)."""

    _records: Sequence[tuple[Path, Mapping[str, Any], Sequence[Mapping[str, Any]]]]

    def __len__(self) -> int:
        return len(self._records)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return [*self.named_files, *(file for file, _, _ in self._records)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        file, image, _ = self._records[index]
        data = file.read_bytes()
        check_size(data, image)
        return {**self.meta(index), "image": data}


class Coco(AnnotatedImages):
    """Images with `regions`; `key` is the name of the file below the folder.

    From LVIS also `negative` and `not_exhaustive`: the classes (as indices) that are known not to
    be in the image, and those of which not every instance is annotated; and `frequency`, an
    attribute, which has "r", "c" or "f" (rare, common, frequent) for each class.
    """

    def __init__(
        self,
        path: Path,
        records: Sequence[tuple[Path, Mapping[str, Any], Sequence[Mapping[str, Any]]]],
        numbers: Mapping[int, int],
        class_names: list[str],
        frequency: Sequence[str | None],
    ):
        self.name, self.class_names = str(path), class_names
        self.frequency = None if None in frequency else list(frequency)
        self._records, self._numbers = records, numbers

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        _, image, annotations = self._records[index]
        found = {
            "key": printable(file_name(image)),
            "regions": regions_of(annotations, image, self._numbers),
        }
        if "neg_category_ids" in image:
            for key, name in LOOKED_FOR.items():
                found[name] = [self._numbers[i] for i in image.get(key) or ()]
        return found


def read_json(path: Path, needed: Sequence[str]) -> dict[str, Any]:
    """A JSON object with lists under the needed names.

    Raises:
      ValueError: no such file, or one of another form.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}: set annotations to the JSON file.")
    try:
        data = text_file.parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): get the file again.") from None
    missing = [n for n in needed if not isinstance(data, dict) or not isinstance(data.get(n), list)]
    if missing:
        raise ValueError(
            f"{path} has no list '{missing[0]}', which an annotation file of COCO has: is it "
            "another file, such as one of results?"
        )
    for name in needed:
        for entry in data[name]:
            if not isinstance(entry, dict) or any(
                isinstance(entry.get(n), list | dict) for n in IDS
            ):
                raise ValueError(
                    f"{path} has {str(entry)[:80]} among its {name}, which are objects whose "
                    "ids are numbers: is it another file?"
                )
    _check_images(data.get("images", ()), path)
    return data


def _check_images(images: Sequence[Mapping[str, Any]], path: Path) -> None:
    numbers = set()
    for image in images:
        lacking = [n for n in ("id", "height", "width") if n not in image]
        if lacking or not (image.get("file_name") or image.get("coco_url")):
            raise ValueError(
                f"{path} has an image without {', '.join(lacking) or 'file_name'} "
                f"({str(image)[:80]}): add it."
            )
        if not isinstance(image.get("file_name") or image["coco_url"], str) or not all(
            isinstance(image[side], int) and image[side] > 0 for side in ("height", "width")
        ):
            raise ValueError(
                f"{path} has the image {str(image)[:80]}: file_name is text, and height and width "
                "are whole numbers from 1 on."
            )
        if image["height"] * image["width"] > MAX_PIXELS:
            raise ValueError(
                f"{path} has the image {str(image)[:80]} of more than {MAX_PIXELS:,} pixels, which "
                "is never decoded: correct its size, or make it smaller."
            )
        if image["id"] in numbers:
            raise ValueError(f"{path} has two images of the id {image['id']}: give each its own.")
        numbers.add(image["id"])


def file_name(image: Mapping[str, Any]) -> str:
    """The image's file below the folder; of LVIS, which names only its URL, split/file."""
    return image.get("file_name") or "/".join(image["coco_url"].split("/")[-2:])


def categories_of(
    categories: Iterable[Mapping[str, Any]], path: Path
) -> tuple[dict[int, int], list[str]]:
    """{id: index}, and the class names, in the order of the file.

    Raises:
      ValueError: a category without a name, or two of one id or name.
    """
    names: list[str] = []
    numbers: dict[int, int] = {}
    for category in categories:
        name = category.get("name")
        if not isinstance(name, str) or not name or "id" not in category:
            raise ValueError(
                f"{path} has the category {reprlib.repr(category)}: give it an id and a name."
            )
        if LVIS & category.keys():
            name = name.replace("_", " ")  # "sports car", as in a text
        if name in names or category["id"] in numbers:
            raise ValueError(
                f"{path} has two categories of the id {category['id']} or the name '{name}': give "
                "each its own."
            )
        numbers[category["id"]] = len(names)
        names.append(name)
    return numbers, names


def region_fault(
    annotation: Mapping[str, Any], image: Mapping[str, Any], numbers: Mapping[int, int]
) -> str | None:
    """Why an annotation cannot be used, as the end of a sentence; None if it can."""
    if annotation.get("category_id") not in numbers:
        return f"is of the category {annotation.get('category_id')}, which has no name"
    box = annotation.get("bbox")
    if not _are_numbers(box) or len(box) != 4:
        return f"has the box {box}, and a box is x, y, width, height"
    x, y, w, h = box
    if not (w > 0 and h > 0 and math.isfinite(x + y + w + h)):
        return f"has the empty box {box}"
    if x >= image["width"] or y >= image["height"] or x + w <= 0 or y + h <= 0:
        return f"has the box {box}, outside the image of {image['width']}x{image['height']}"
    area = annotation.get("area", 0)
    if not _are_numbers([area]) or not 0 <= area < math.inf:
        return f"has the area {area}: give its pixels, or remove it"
    if annotation.get("iscrowd", 0) not in (0, 1):
        return f"has iscrowd {annotation['iscrowd']!r}, which is 0 or 1"
    return _segment_fault(annotation.get("segmentation"), image)


def _segment_fault(segment: Any, image: Mapping[str, Any]) -> str | None:
    height, width = image["height"], image["width"]
    if isinstance(segment, Mapping):
        if segment.get("size") != [height, width]:
            return (
                f"has a mask of {segment.get('size')}, and its image is {[height, width]} "
                "(height, width)"
            )
        try:
            rle.from_segmentation(segment, height, width)
        except ValueError as error:
            return f"has a mask that cannot be read: {error}"
    elif segment and not isinstance(segment, list):
        return f"has the segmentation {str(segment)[:40]}, and it is RLE or a list of polygons"
    elif any(
        not _are_numbers(part) or len(part) < 6 or len(part) % 2 or not _are_near(part)
        for part in segment or ()
    ):
        return (
            "has a polygon of fewer than three points, or whose points are far away or no numbers"
        )
    return None


def _are_near(points: Sequence[float]) -> bool:
    return all(abs(x) <= rle.MAX_OUTLINE for x in points)  # false for NaN, too


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(x, int | float) and not abs(x) > FARTHEST for x in values
    )


def regions_of(
    annotations: Sequence[Mapping[str, Any]], image: Mapping[str, Any], numbers: Mapping[int, int]
) -> Regions:
    """The regions of annotations that have no fault."""
    height, width = image["height"], image["width"]
    boxes = np.asarray([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    areas = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return Regions(
        height,
        width,
        corners / [width, height, width, height],
        np.asarray([numbers[a["category_id"]] for a in annotations], np.int32),
        [a.get("segmentation") or None for a in annotations],
        np.asarray([bool(a.get("iscrowd", 0)) for a in annotations], bool),
        np.asarray(areas, np.float64),
    )


def check_size(data: bytes, image: Mapping[str, Any]) -> None:
    """Raise ValueError if an encoded image has another size than its annotations say.

    Its size is that in which it is decoded: a photograph turned as its Exif orientation says.
    """
    try:
        size = decoded_size(data)
    except ValueError:
        return  # decode says what is wrong
    if size != (image["width"], image["height"]):
        raise ValueError(
            f"it has {size[0]}x{size[1]} pixels, and its annotations are of an image of "
            f"{image['width']}x{image['height']}"
        )
