"""Several examples of a source in each row, as `python -m mmjax.pack` has arranged them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import text_file
from mmjax.data.source import Source


def open_packed(source: Source, file: str | os.PathLike) -> "Packed":
    """The conversations or images of a source, several to an example, by a file of `mmjax.pack`.

    Raises:
      ValueError: no such file, or one of another source.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(
            f"There is no '{path}': write it with python -m mmjax.pack --config=... --out={path}."
        )
    try:
        found = text_file.parse_json(path.read_bytes())
        groups = [[int(i) for i in group] for group in found["groups"]]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        why = text_file.what_is_wrong(error)
        raise ValueError(f"'{path}' was not written by mmjax.pack: {why}.") from None
    members = sorted(i for group in groups for i in group)
    if members != list(range(len(source))):
        raise ValueError(
            f"'{path}' arranges {len(members)} examples and {source.name} has {len(source)}: "
            "write it again."
        )
    return Packed(source, groups)


class Packed(Source):
    """See `open_packed`: examples with `conversations`, each with `messages`, `images` (their
    number) and `key`, and `image`, the tuple of the images of all. Of a source without messages
    they have `members`, its examples, and `captions`, those of all: see the step `pack`."""

    def __init__(self, source: Source, groups: Sequence[Sequence[int]]):
        self.name = f"{source.name}, packed"
        self.corpus = source.corpus
        self._source, self._groups = source, groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._joined([self._source[i] for i in self._groups[index]])

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        found = self._joined([self._source.meta(i) for i in self._groups[index]])
        return {k: v for k, v in found.items() if k != "image"}

    def _joined(self, members: Sequence[dict[str, Any]]) -> dict[str, Any]:
        key = " + ".join(str(one.get("key", "")) for one in members)
        if not any("messages" in one for one in members):
            captions = [text for one in members for text in one.get("captions", ())]
            return {"key": key, "members": list(members), "captions": captions}
        images = [images_of(one) for one in members]
        conversations = [
            {**{k: v for k, v in one.items() if k != "image"}, "images": len(own)}
            for one, own in zip(members, images)
        ]
        return {
            "key": key,
            "conversations": conversations,
            "image": tuple(x for own in images for x in own),
        }


def images_of(example: dict[str, Any]) -> tuple:
    """The images of an example, none, one or several."""
    image = example.get("image", ())
    return image if isinstance(image, tuple) else (image,)


def first_fit(lengths: Sequence[int], images: Sequence[int], length: int, most: int):
    """Groups of examples that fit into rows of `length` tokens and `most` images.

    The longest comes first, and each goes to the first row that has room: at most 11/9 of the
    fewest rows and one more (Johnson 1973; Dósa 2007). The order of rows is that of their first
    members, which says nothing of their length.

    Raises:
      ValueError: an example that does not fit into a row of its own.
    """
    lengths, images = np.asarray(lengths), np.asarray(images)
    for i in np.flatnonzero((lengths > length) | (images > most)):
        raise ValueError(
            f"Example {i} has {lengths[i]} tokens and {images[i]} images, and a row has room "
            f"for {length} and {most}: raise them, or leave it out."
        )
    groups: list[list[int]] = []
    room = np.zeros((0, 2), np.int64)
    for i in np.argsort(-lengths, kind="stable"):
        need = (lengths[i], images[i])
        fits = np.flatnonzero((room >= need).all(1))
        if len(fits):
            groups[fits[0]].append(int(i))
            room[fits[0]] -= need
        else:
            groups.append([int(i)])
            room = np.concatenate([room, [[length - need[0], most - need[1]]]])
    return sorted((sorted(group) for group in groups), key=lambda group: group[0])
