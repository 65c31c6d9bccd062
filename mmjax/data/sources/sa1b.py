"""SA-1B: images with masks of everything in them, each image with a JSON file of its own."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import rle
from mmjax.data.regions import Regions, of_masks
from mmjax.data.source import Source
from mmjax.data.sources.coco import check_size
from mmjax.process.printable import printable


def open_sa1b(root: str | os.PathLike, max_area: float = 0.9) -> "SA1B":
    """The images below a folder that have a file of masks beside them, NAME.jpg and NAME.json.

    Args:
      max_area: masks that cover a larger fraction of the image are left out.

    Raises:
      ValueError: no such folder, or one without such pairs.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), section 5 and, for `max_area`, appendix A.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: set root to that of SA-1B's images.")
    if not 0 < max_area <= 1:
        raise ValueError(f"max_area is {max_area}: it is a fraction of the image, above 0 up to 1.")
    names = sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("*.json")
        if path.with_suffix(".jpg").is_file()
    )
    if not names:
        raise ValueError(
            f"{folder} has no NAME.jpg with masks in NAME.json: unpack the archives of SA-1B there."
        )
    return SA1B(folder, names, max_area)


class SA1B(Source):
    """Images with `regions` without labels; `key` is the path below the folder."""

    class_names = None

    def __init__(self, folder: Path, names: list[str], max_area: float):
        self.name = str(folder)
        self._folder, self._names, self._max_area = folder, names, max_area

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self._folder / f"{self._names[index]}.json"
        data = path.with_suffix(".jpg").read_bytes()
        try:
            found = json.loads(path.read_bytes())
            size = {k: int(found["image"][k]) for k in ("height", "width")}
            masks = [
                rle.from_segmentation(x["segmentation"], size["height"], size["width"])
                for x in found["annotations"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{printable(path)} is no file of SA-1B's masks: {error}.") from None
        check_size(data, size)
        return {**self.meta(index), "image": data, "regions": self._regions(masks, **size)}

    def _regions(self, masks: list[rle.Rle], height: int, width: int) -> Regions:
        most = self._max_area * height * width
        kept = [mask for mask in masks if 0 < rle.area(mask) <= most]
        return of_masks(kept, np.full(len(kept), -1), height, width)

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read, so there are no regions."""
        return {"key": printable(self._names[index])}
