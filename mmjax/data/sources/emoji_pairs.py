"""Sentences about two images of the emoji set, true or false, in the manner of NLVR2.

Each sentence comes with two pairs of images for which it is true and two for which it is false, so
that the sentence alone tells nothing. Truth follows from Unicode's categories, the concept and the
drawing style. Splits are by concept, as in the emoji set: no concept has images in two of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.builders.emoji_names import fraction_of
from mmjax.data.draws import row_rng
from mmjax.data.source import Source
from mmjax.data.sources.emoji_questions import SPLITS
from mmjax.data.sources.joined import Joined
from mmjax.data.sources.memory import InMemory
from mmjax.data.sources.nlvr2 import LABELS
from mmjax.data.sources.tfds import open_tfds

# Sentences of each type; {} is a category of Unicode.
WORDINGS = {
    "same_thing": (
        "both images show the same thing",
        "the two images are of one thing",
        "left and right show the same thing",
    ),
    "same_style": (
        "both images are drawn in the same style",
        "one artist could have drawn both images",
        "left and right are of the same style",
    ),
    "both": (
        "both images belong to {}",
        "each image can be found under {}",
        "the two images are both of {}",
    ),
    "one": (
        "exactly one image belongs to {}",
        "one image can be found under {} and the other one cannot",
        "only one of the two images is of {}",
    ),
    "left": ("the left image belongs to {}", "the image on the left is of {}"),
    "right": ("the right image belongs to {}", "the image on the right is of {}"),
}


@dataclasses.dataclass(frozen=True)
class Statement:
    """A sentence about the images `left` and `right`, two indices.

    `sentence_id` is equal for the four pairs that are judged by one sentence.
    """

    left: int
    right: int
    type: str
    text: str
    true: bool
    sentence_id: str


def state(images: Sequence[Mapping[str, Any]]) -> list[Statement]:
    """All statements about these images, four for each sentence, of which two are true.

    Args:
      images: `codepoints`, `category`, `skin_tone`, `group` and `style` of each.

    Every image without a skin tone has a sentence of each type, unless a partner that makes it true
    or false is missing. The draws depend on the image's name and the type alone.
    """
    plain = np.asarray([i for i, image in enumerate(images) if not image["skin_tone"]], np.int64)
    columns = {
        name: np.unique([images[i][name] for i in plain], return_inverse=True)[1]
        for name in ("codepoints", "category", "group", "style")
    }
    found = []
    for place, i in enumerate(plain):
        for kind, wordings in WORDINGS.items():
            key = f"{images[i]['codepoints']}:{images[i]['style']}:{kind}"
            draw = row_rng(0, int(2**32 * fraction_of(key, "mmjax emoji pairs")))
            pairs = _pairs(kind, place, functools.partial(_pick, columns, draw, place))
            if any(None in pair for pair in pairs):
                continue
            if kind not in ("left", "right"):
                pairs = [pair if draw.random() < 0.5 else pair[::-1] for pair in pairs]
            text = wordings[draw.integers(len(wordings))].format(images[i]["category"].lower())
            for true, (left, right) in zip((True, True, False, False), pairs, strict=True):
                pair = int(plain[left]), int(plain[right])
                found.append(Statement(*pair, kind, text, true, key))
    return found


def _pairs(
    kind: str, i: int, pick: Callable[..., int | None]
) -> list[tuple[int | None, int | None]]:
    """Two pairs for which the sentence about image i is true, then two for which it is false.

    Args:
      pick: an image, given of fields whether they equal those of image i.
    """
    other = functools.partial(pick, group=False)
    if kind == "same_thing":
        twin = pick(codepoints=True, style=False)
        return [(i, twin), (twin, i), (i, other(style=False)), (i, other(style=False))]
    if kind == "same_style":
        return [(i, other(style=same)) for same in (True, True, False, False)]
    if kind == "both":
        return [(i, other(category=same)) for same in (True, True, False, False)]
    if kind == "one":
        one = [(i, other(category=False)) for _ in range(2)]
        neither = other(category=False)
        none = (neither, other(category=False, but=neither))
        return [*one, (i, other(category=True)), none]
    first = [(i, other(category=False)) for _ in range(2)]
    second = [pair[::-1] for pair in first]
    return first + second if kind == "left" else second + first


def _pick(
    columns: Mapping[str, np.ndarray],
    draw: np.random.Generator,
    i: int,
    but: int | None = None,
    **same: bool,
) -> int | None:
    """A random image for which each of these fields equals that of image i or not; None: none.

    Args:
      but: an image that it must not be.
    """
    fits = [(columns[name] == columns[name][i]) == equal for name, equal in same.items()]
    places = np.flatnonzero(np.logical_and.reduce(fits))
    places = places[places != but]
    return int(places[draw.integers(len(places))]) if len(places) else None


class EmojiPairs(Source):
    """The statements of a split as a source, with the fields of `NLVR2` and `statement_type`."""

    class_names = LABELS

    def __init__(self, name: str, sources: Sequence[Source], types: Sequence[str]):
        self.name, self.inputs = name, sources
        # Encoded images take a few MB, and each is in many pairs.
        self._images = InMemory(Joined(sources), lambda example, rng: example)
        metas = [self._images.meta(i) for i in range(len(self._images))]
        self.statements = [s for s in state(metas) if s.type in types]

    def __len__(self) -> int:
        return len(self.statements)

    def __getitem__(self, index: int) -> dict[str, Any]:
        asked = self.statements[index]
        pair = tuple(self._images[i]["image"] for i in (asked.left, asked.right))
        return {**self.meta(index), "image": pair}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        asked = self.statements[index]
        return {
            "key": f"{self.name}[{index}]",
            "captions": [asked.text],
            "label": int(asked.true),
            "sentence_id": asked.sentence_id,
            "statement_type": asked.type,
        }


def open_emoji_pairs(
    split: str, types: Sequence[str] = tuple(WORDINGS), data_dir: Any = None
) -> EmojiPairs:
    """The statements of a split.

    Args:
      split: 'train', 'validation' or 'test'.
      types: those to include, of `WORDINGS`.

    Raises:
      ValueError: an unknown split or type.
    """
    if split not in SPLITS:
        raise ValueError(f"The emoji pairs have no split '{split}'; they have {[*SPLITS]}.")
    unknown = sorted(set(types) - set(WORDINGS))
    if unknown or not types:
        raise ValueError(f"The emoji pairs' types are {unknown or 'none'}: use {[*WORDINGS]}.")
    sources = [open_tfds("emoji", part, data_dir) for part in SPLITS[split]]
    return EmojiPairs(f"emoji_pairs/{split}", sources, types)
