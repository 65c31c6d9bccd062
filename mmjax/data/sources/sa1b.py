"""SA-1B: images with masks that have no names, a JSON file beside each."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmjax.data import rle, text_file
from mmjax.data.bad_records import BadRecord, allow
from mmjax.data.cache import data_root
from mmjax.data.regions import of_masks
from mmjax.data.source import Source
from mmjax.data.sources.coco import check_size
from mmjax.process.printable import printable


def open_sa1b(
    root: str | os.PathLike,
    max_area: float = 1.0,
    max_bad_records: int | float = 0,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "Sa1b":
    """The images below a folder that have a JSON file with `annotations` beside them, by path.

    Args:
      root: the unpacked archives, with sa_N.jpg and sa_N.json, in folders or not.
      max_area: masks that cover a larger fraction of the image are left out; SAM was trained with
        0.9 (appendix A).
      max_bad_records: images without that file that may be left out; see
        `mmjax.data.bad_records.allow`.
      workdir: where these are listed; None: the data cache.

    Raises:
      ValueError: no such folder, no images in it, or too many without masks.

    Source: Kirillov et al. 2023 (arXiv 2304.02643); github.com/facebookresearch/segment-anything,
    "Dataset".
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: set root to the folder of SA-1B's images.")
    if not 0 < max_area <= 1:
        raise ValueError(f"max_area is {max_area}: it is a fraction of the image, above 0 up to 1.")
    images = sorted(folder.rglob("*.jpg"))
    if not images:
        raise ValueError(f"{folder} has no .jpg files: set root to the folder of SA-1B's images.")
    found = [image for image in images if image.with_suffix(".json").is_file()]
    bad = [
        BadRecord(image.name, "missing_file", f"there is no {image.with_suffix('.json')}")
        for image in sorted(set(images) - set(found))
    ]
    allow(bad, len(images), max_bad_records, str(folder), Path(workdir or data_root(data_dir)))
    if not found:
        raise ValueError(f"{folder} has no image with masks left: all {len(images)} lack them.")
    return Sa1b(folder, found, max_area)


class Sa1b(Source):
    """Images with `regions` that have no class; `key` is the path below the folder."""

    def __init__(self, root: Path, images: Sequence[Path], max_area: float):
        self.name, self.class_names = str(root), None
        self._root, self._images, self._max_area = root, images, max_area

    def __len__(self) -> int:
        return len(self._images)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return [file for path in self._images for file in (path, path.with_suffix(".json"))]

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = self._images[index].read_bytes()
        example, image = self._read(index)
        check_size(data, image)
        return {**example, "image": data}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; the image is not read."""
        return self._read(index)[0]

    def _read(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        path = self._images[index].with_suffix(".json")
        try:
            data = text_file.parse_json(path.read_bytes())
            image, annotations = data["image"], data["annotations"]
            height, width = image["height"], image["width"]
            if not (isinstance(height, int) and isinstance(width, int)):
                raise TypeError("the height and width are whole numbers")
            segments = [annotation["segmentation"] for annotation in annotations]
            masks = [rle.from_segmentation(segment, height, width) for segment in segments]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            why = text_file.what_is_wrong(error)
            raise ValueError(f"{path} is no annotation file of SA-1B ({why})") from None
        # The boxes in the file end at the last pixel: those of a mask one pixel wide are empty.
        most = self._max_area * height * width
        masks = [mask for mask in masks if 0 < rle.area(mask) <= most]
        key = printable(self._images[index].relative_to(self._root).as_posix())
        regions = of_masks(masks, [-1] * len(masks), height, width)
        return {"key": key, "regions": regions}, image
