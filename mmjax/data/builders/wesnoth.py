"""The wesnoth set: animations of the units of a strategy game, from Debian's `wesnoth-1.16-data`.

Hand-drawn frames of 72 x 72 pixels and more, with the units' names and descriptions; GPL-2 and
later, as Debian's package says.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data.builders.debian import find_tree
from mmjax.data.builders.drawing import on_white
from mmjax.data.builders.emoji_names import fraction_of
from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.process.progress import Progress

SIZE = 72
DEBIAN_PACKAGE, FOLDER = "wesnoth-1.16-data", "usr/share/games/wesnoth/1.16/data/core"
LEAST_FRAMES = 3
_NUMBERED = re.compile(r"(.+?)-?(\d+)")
_FIELD = re.compile(r'^\s*(name|image|description)\s*=\s*_?\s*"([^"]*)"', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Animation:
    """Frames in order, of a unit in an action."""

    frames: tuple[str, ...]  # paths below images/units
    name: str  # "Elvish Archer"
    action: str  # "bow attack"
    description: str  # of the unit; may be empty
    folder: str  # of the frames, below images/units


def read_units(text: str) -> dict[str, tuple[str, str]]:
    """{path of the unit's image below images/units, without suffix: (name, description)}.

    A name of a woman's form, "female^Elvish Archer", is without its context.
    """
    found: dict[str, tuple[str, str]] = {}
    text = re.sub(r"\[attack\].*?\[/attack\]", "", text, flags=re.DOTALL)
    name = description = ""
    for part in re.split(r"(?=\[unit_type\]|\[female\]|\[male\]|\[variation\])", text):
        fields: dict[str, str] = {}
        for key, value in _FIELD.findall(part):
            fields.setdefault(key, value)
        if part.startswith("[unit_type]"):
            name, description = "", ""
        name = fields.get("name", name).rpartition("^")[2].strip()
        description = " ".join(fields.get("description", description).split())
        image = re.match(r"units/([^~:]+)\.png", fields.get("image", ""))
        if name and image:
            found.setdefault(image[1], (name, description))
    return found


def animations(files: Sequence[str], units: dict[str, tuple[str, str]]) -> list[Animation]:
    """The numbered sequences of `LEAST_FRAMES` frames or more, each with the unit whose image has
    the longest name that the frames' names begin with; sequences of no known unit are left out."""
    numbered = collections.defaultdict(dict)
    for path in files:
        match = _NUMBERED.fullmatch(path.removesuffix(".png"))
        if match:
            numbered[match[1]][int(match[2])] = path
    found = []
    for stem, frames in sorted(numbered.items()):
        if len(frames) < LEAST_FRAMES:
            continue
        known = [unit for unit in units if stem == unit or stem.startswith(f"{unit}-")]
        if not known:
            continue
        unit = max(known, key=len)
        name, description = units[unit]
        action = " ".join(re.findall(r"[a-z]+", stem[len(unit) :]))
        ordered = tuple(frames[i] for i in sorted(frames))
        found.append(Animation(ordered, name, action, description, stem.rpartition("/")[0]))
    return found


def split_by_folder(found: Sequence[Animation]) -> dict[str, list[Animation]]:
    """Train, validation and test; no folder of frames, and no name, is in two of them.

    Folders are split by a hash, 20 % to test and 10 % to validation. A name in several splits is
    kept in test, else in validation.
    """
    parts: dict[str, list[Animation]] = {"test": [], "validation": [], "train": []}
    for one in found:
        x = fraction_of(one.folder, "mmjax wesnoth: folders")
        parts["test" if x < 0.2 else "validation" if x < 0.3 else "train"].append(one)
    taken: set[str] = set()
    for part, members in parts.items():
        parts[part] = [one for one in members if one.name not in taken]
        taken |= {one.name for one in parts[part]}
    return {part: parts[part] for part in ("train", "validation", "test")}


class Wesnoth(SplitBuilder):
    """Animations of a game's units, 72 x 72 pixels on white: encoded frames in `video`, with the
    captions "<name>, <action>" and the beginning of the unit's description.

    No folder of frames and no name is in two of the splits train, validation and test.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://packages.debian.org/stable/wesnoth-1.16-data"

    def _features(self) -> dict[str, Any]:
        text = tfds.features.Text()  # also for bytes: TFDS's Video needs TensorFlow
        several = tfds.features.Sequence(text)
        return {
            "video": several,
            "captions": several,
            **dict.fromkeys(("name", "action", "folder"), text),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        cache = Path(self.data_dir_root)
        core = find_tree(DEBIAN_PACKAGE, FOLDER, "*.cfg", self._root, cache)
        units: dict[str, tuple[str, str]] = {}
        for path in sorted((core / "units").rglob("*.cfg")):
            units = read_units(path.read_text(encoding="utf-8", errors="replace")) | units
        images = core / "images" / "units"
        files = [p.relative_to(images).as_posix() for p in sorted(images.rglob("*.png"))]
        splits = split_by_folder(animations(files, units))
        return {split: self._examples(images, part) for split, part in splits.items()}

    def _examples(self, images: Path, part: Sequence[Animation]) -> Iterator[tuple[int, dict]]:
        with Progress("Reading wesnoth", len(part)) as bar:
            for i, one in enumerate(part):
                frames = [on_white(Image.open(images / path), SIZE) for path in one.frames]
                captions = [", ".join(filter(None, (one.name, one.action)))]
                sentence = re.match(r"[^.]{8,200}\.", one.description)
                captions += [sentence[0]] if sentence else []
                fields = {"name": one.name, "action": one.action, "folder": one.folder}
                yield i, {"video": frames, "captions": captions, **fields}
                bar.advance()
