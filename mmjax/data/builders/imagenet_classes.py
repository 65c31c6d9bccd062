"""The 1,000 classes of ImageNet in the order of its classifiers: names and definitions of WordNet.

From the text files in timm's wheel (Apache-2.0; the texts are WordNet's), downloaded at first use.
"""

import os
from typing import NamedTuple

from mmjax.data.builders.pypi import Member, Package, member_file

_TIMM = Package("timm", "1.0.31", 2_798_714)
_FOLDER = "timm/data/_info/"
_SYNSETS = Member(
    _TIMM,
    f"{_FOLDER}imagenet_synsets.txt",
    "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
)
_NAMES = Member(
    _TIMM,
    f"{_FOLDER}imagenet_synset_to_lemma.txt",
    "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f",
)
_DEFINITIONS = Member(
    _TIMM,
    f"{_FOLDER}imagenet_synset_to_definition.txt",
    "191e227d48fc8c7b7e2d2a3cac41fc8b2eb517d9d2819d0edbc91c5767250eed",
)


class ImageNetClass(NamedTuple):
    """A synset of WordNet, such as "n01440764", its names (the usual one first) and definition."""

    synset: str
    names: tuple[str, ...]
    definition: str


def imagenet_classes(data_dir: str | os.PathLike | None = None) -> list[ImageNetClass]:
    """The classes, by their number.

    Two pairs share their first name: 134 and 517 are "crane", 638 and 639 "maillot".

    Args:
      data_dir: see `mmjax.data.cache.data_root`.

    Raises:
      ValueError: the package cannot be downloaded, see `member_file`.
    """
    synsets = member_file(_SYNSETS, data_dir).read_text("utf-8").split()
    names, definitions = (_table(member, data_dir) for member in (_NAMES, _DEFINITIONS))
    return [ImageNetClass(s, tuple(names[s].split(", ")), definitions[s]) for s in synsets]


def synset_names(data_dir: str | os.PathLike | None = None) -> dict[str, tuple[str, ...]]:
    """The names of all 21,844 synsets of ImageNet, by synset; otherwise as `imagenet_classes`."""
    return {k: tuple(names.split(", ")) for k, names in _table(_NAMES, data_dir).items()}


def _table(member: Member, data_dir: str | os.PathLike | None) -> dict[str, str]:
    """synset -> text."""
    lines = member_file(member, data_dir).read_text("utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines)
