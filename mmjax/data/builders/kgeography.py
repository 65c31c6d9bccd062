"""The kgeography set: maps with their named regions, from Debian's package `kgeography-data`.

Maps of KDE's geography game, in which each country, state or sea has a color of its own, so that
the masks are exact. GPL-2, as Debian's package says.
"""

import collections
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data import rle
from mmjax.data.builders.debian import find_tree
from mmjax.data.builders.drawing import png
from mmjax.data.builders.emoji_names import fraction_of
from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.process.progress import Progress

DEBIAN_PACKAGE, FOLDER = "kgeography-data", "usr/share/kgeography"
# Maps of the same shapes stay in one split: of continents and the world, and of one country.
_WORLD = (
    *("africa", "asia", "caribbean", "europe", "ncamerica", "oceania", "southamerica"),
    *("waters", "world"),
)
_SAME_COUNTRY = {"republic_of_ireland": "ireland", "italyprovince": "italy", "virginia": "usa"}


class Map(NamedTuple):
    """A map: its name, the file's stem, the image (uint8 [H, W, 3]) and each region's mask."""

    title: str
    stem: str
    image: np.ndarray
    regions: dict[str, rle.Rle]


def family(stem: str) -> str:
    """The country that a map shows, or "world"."""
    first = re.split(r"[_-]", stem)[0]
    return "world" if first in _WORLD else _SAME_COUNTRY.get(stem, first)


def part_of(stem: str) -> str:
    """'train', 'validation' (10 % of the countries) or 'test' (20 %)."""
    x = fraction_of(family(stem), "mmjax kgeography: countries")
    return "test" if x < 0.20 else "validation" if x < 0.30 else "train"


def read_map(path: Path) -> Map:
    """The map of a `.kgm` file; regions of one name are one, those without a pixel are left out."""
    root = ET.parse(path).getroot()
    image = np.asarray(Image.open(path.parent / root.findtext("mapFile")).convert("RGB"))
    code = _codes(image)
    found = collections.defaultdict(list)
    for division in root.iter("division"):
        if division.findtext("ignore") == "yes":  # borders, and what the map is not about
            continue
        color = [int(division.findtext(f"color/{c}")) for c in ("red", "green", "blue")]
        mask = code == _codes(np.asarray(color))
        if mask.any():
            found[division.findtext("name").strip()].append(rle.encode(mask))
    masks = {name: rle.merge(several) for name, several in found.items()}
    return Map(root.findtext("name").strip(), path.stem, image, masks)


def _codes(colors: np.ndarray) -> np.ndarray:
    """One number for each color `[..., 3]`."""
    return colors.astype(np.int64) @ np.asarray([1 << 16, 1 << 8, 1])


class Kgeography(SplitBuilder):
    """Maps with `regions`; a class is the name of a region, and no country is in two splits.

    Names of regions are ("Central", "Northern" are of several countries).
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://packages.debian.org/stable/kgeography-data"

    def _features(self) -> dict[str, Any]:
        text = tfds.features.Text()
        return {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "captions": tfds.features.Sequence(text),
            "map": text,
            "regions": tfds.features.Sequence(
                # Compressed RLE, as in COCO, of the size of the image.
                {"label": tfds.features.ClassLabel(), "counts": text}
            ),
            "height": tfds.features.Scalar(np.int32),
            "width": tfds.features.Scalar(np.int32),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        cache = Path(self.data_dir_root)
        tree = find_tree(DEBIAN_PACKAGE, FOLDER, "*.kgm", self._root, cache)
        files = sorted(tree.glob("*.kgm"))
        maps = []
        with Progress("Reading maps", len(files)) as bar:
            for file in files:
                maps.append(read_map(file))
                bar.advance()
        names = sorted({name for found in maps for name in found.regions})
        self.info.features["regions"]["label"].names = names
        return {
            part: self._examples([m for m in maps if part_of(m.stem) == part])
            for part in ("train", "validation", "test")
        }

    def _examples(self, maps: list[Map]) -> Iterator[tuple[int, dict]]:
        for i, found in enumerate(maps):
            height, width = found.image.shape[:2]
            yield (
                i,
                {
                    "image": png(Image.fromarray(found.image)),
                    "captions": [found.title],
                    "map": found.stem,
                    "regions": [
                        {"label": name, "counts": rle.to_string(mask)}
                        for name, mask in found.regions.items()
                    ],
                    "height": height,
                    "width": width,
                },
            )
