"""Visual Genome: regions with a phrase each, or objects with a name."""

import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data import text_file
from mmjax.data.bad_records import BadRecord, allow
from mmjax.data.cache import data_root
from mmjax.data.sources.coco import AnnotatedImages, region_fault, regions_of
from mmjax.data.transforms.decode import MAX_PIXELS
from mmjax.process.printable import printable

SIZES = ("image_id", "width", "height")
_FOLDERS = ("", "VG_100K", "VG_100K_2")


def open_visual_genome(
    annotations: str | os.PathLike,
    image_data: str | os.PathLike,
    images: str | os.PathLike,
    max_bad_records: int | float = 0,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "VisualGenome":
    """The images of Visual Genome with their regions or objects.

    Args:
      annotations: region_descriptions.json (each region has a phrase) or objects.json (each object
        a name, which is its class).
      image_data: image_data.json, with the size of each image.
      images: the folder with ID.jpg, or above it (VG_100K, VG_100K_2).
      max_bad_records, workdir: see `open_coco`.

    Raises:
      ValueError: no such file or folder, files of another form, or too many missing images and
        empty boxes.

    Source: Krishna et al. 2016 (arXiv 1602.07332); homes.cs.washington.edu/~ranjay/visualgenome.
    """
    path, root = Path(annotations).expanduser(), Path(images).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set images to the folder of the images.")
    every = _read(image_data, SIZES)
    wrong = [x for x in every if not all(isinstance(x[n], int) and x[n] >= 0 for n in SIZES)]
    wrong = wrong or [x for x in every if not x["width"] * x["height"]]
    wrong = wrong or [x for x in every if x["width"] * x["height"] > MAX_PIXELS]
    if wrong:
        raise ValueError(
            f"{image_data} has the image {reprlib.repr(wrong[0])}, whose id and sides are not "
            f"whole numbers, with 1 to {MAX_PIXELS:,} pixels: get the file again."
        )
    sizes = {image["image_id"]: image for image in every}
    listed = _read(path, ())
    kind = "regions" if "regions" in listed[0] else "objects"
    if not all(_are_objects(entry.get(kind)) for entry in listed):
        raise ValueError(
            f"{path} has images with neither regions nor objects: use region_descriptions.json or "
            "objects.json."
        )
    records, bad, total = [], [], 0
    for entry in listed:
        number = entry.get("image_id", entry.get("id"))
        number = number if isinstance(number, int) else None
        total += 1 + len(entry[kind])
        file = next(filter(os.path.isfile, _files(root, number)), None)
        if file is None or number not in sizes:
            reason = f"there is no {number}.jpg in {root}, VG_100K or VG_100K_2"
            bad.append(BadRecord(str(number), "missing_file", reason))
            continue
        found = []
        for region in entry[kind]:
            annotation = _annotation(region, kind)
            fault = region_fault(annotation, sizes[number], {None: -1})
            name = f"{kind[:-1]} {annotation['id']}"
            if fault is None and not annotation["text"]:
                fault = "has no text"
            if fault is None:
                found.append(annotation)
            else:
                bad.append(BadRecord(name, "bad_region", f"{name} of image {number} {fault}"))
        records.append((file, sizes[number], found))
    allow(bad, total, max_bad_records, str(path), Path(workdir or data_root(data_dir)))
    if not records:
        raise ValueError(f"{path} has no usable image left of {len(listed)}.")
    return VisualGenome(path, records, kind == "objects")


class VisualGenome(AnnotatedImages):
    """Images with `regions`, and `phrases`, the text of each.

    With objects the texts are also the classes; regions have none.
    """

    def __init__(
        self,
        path: Path,
        records: Sequence[tuple[Path, Mapping[str, Any], list[Mapping[str, Any]]]],
        named: bool,
    ):
        self.name, self._records = str(path), records
        self.class_names = None
        self._numbers: dict[str | None, int] = {None: -1}
        if named:
            self.class_names = sorted({a["text"] for _, _, found in records for a in found})
            self._numbers = {name: i for i, name in enumerate(self.class_names)}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        file, image, found = self._records[index]
        if self.class_names is not None:
            found = [{**annotation, "category_id": annotation["text"]} for annotation in found]
        phrases = [annotation["text"] for annotation in found]
        return {
            "key": printable(file.name),
            "captions": phrases,
            "phrases": phrases,
            "regions": regions_of(found, image, self._numbers),
        }


def _files(root: Path, number: Any) -> list[Path]:
    return [root / folder / f"{number}.jpg" for folder in _FOLDERS]


def _read(path: str | os.PathLike, needed: Sequence[str]) -> list[dict[str, Any]]:
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no file {path}: it comes with Visual Genome.")
    try:
        listed = text_file.parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): get the file again.") from None
    if not _are_objects(listed) or not listed or not all(n in x for n in needed for x in listed):
        raise ValueError(f"{path} is no list of images of Visual Genome: is it another file?")
    return listed


def _are_objects(listed: Any) -> bool:
    return isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed)


def _annotation(region: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """In the form of COCO, with `text`."""
    if kind == "regions":
        sides, number, text = ("width", "height"), region.get("region_id"), region.get("phrase", "")
    else:
        names = region.get("names")
        text = names[0] if isinstance(names, list) and names else ""
        sides, number = ("w", "h"), region.get("object_id")
    box = [region.get(name) for name in ("x", "y", *sides)]
    return {"id": number, "bbox": box, "category_id": None, "text": str(text or "").strip()}
