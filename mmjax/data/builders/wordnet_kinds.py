"""What classes of ImageNet have in common, by WordNet: "dog" is a name of 118 of the 1,000.

From Debian's package wordnet-base (WordNet 3.0, whose numbers ImageNet's synsets have).
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmjax.data.builders.debian import find_tree
from mmjax.data.builders.imagenet_classes import ImageNetClass
from mmjax.data.cache import data_root

DEBIAN_PACKAGE, FOLDER = "wordnet-base", "usr/share/wordnet"
MOST = 150  # classes of a kind; above are words such as "artifact"


class Kind(NamedTuple):
    """A hypernym of classes: synset, names (the usual one first), definition, and their numbers."""

    synset: str
    names: tuple[str, ...]
    definition: str
    members: tuple[int, ...]


class _Noun(NamedTuple):
    names: tuple[str, ...]
    definition: str
    hypernyms: tuple[str, ...]


def kinds(classes: Sequence[ImageNetClass], root: str | os.PathLike | None = None) -> list[Kind]:
    """The hypernyms of two to `MOST` of the classes, in the order of their synsets.

    Args:
      root: the package, unpacked by hand; None: it is downloaded.

    Raises:
      ValueError: the package is not there, see `find_tree`.
    """
    folder = find_tree(DEBIAN_PACKAGE, FOLDER, "data.noun", root, data_root())
    nouns = _read(folder / "data.noun")
    members: dict[str, list[int]] = {}
    for number, one in enumerate(classes):
        for synset in _above(nouns, one.synset):
            members.setdefault(synset, []).append(number)
    return [
        Kind(synset, nouns[synset].names, nouns[synset].definition, tuple(numbers))
        for synset, numbers in sorted(members.items())
        if 2 <= len(numbers) <= MOST
    ]


def _read(path: Path) -> dict[str, _Noun]:
    """synset -> noun. Source of the format: WordNet's manual page wndb(5)."""
    nouns = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith(" "):  # the license
            continue
        data, _, gloss = line.partition("|")
        fields = data.split()
        after = 4 + 2 * int(fields[3], 16)
        names = tuple(name.replace("_", " ") for name in fields[4:after:2])
        pointers = zip(*(fields[after + 1 + i :: 4] for i in range(3)))
        above = tuple(f"n{to}" for kind, to, of in pointers if kind in ("@", "@i") and of == "n")
        nouns[f"n{fields[0]}"] = _Noun(names, gloss.split('; "')[0].strip(), above)
    return nouns


def _above(nouns: dict[str, _Noun], synset: str) -> Iterator[str]:
    """All hypernyms of a synset, each once."""
    seen, found = set(), [synset]
    while found:
        for one in nouns[found.pop()].hypernyms:
            if one not in seen:
                seen.add(one)
                found.append(one)
                yield one


def apart(given: Sequence[Kind], most: int, least: int = 4) -> list[Kind]:
    """Kinds of `least` to `most` classes that have no class in common, the largest ones first.

    A kind is taken with the classes that no larger one has, if those are most of its own.
    """
    taken: set[int] = set()
    found = []
    for kind in sorted(given, key=lambda kind: -len(kind.members)):
        free = tuple(i for i in kind.members if i not in taken)
        if len(kind.members) <= most and len(free) >= max(least, 0.8 * len(kind.members)):
            taken.update(free)
            found.append(kind._replace(members=free))
    return found
