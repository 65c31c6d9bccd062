"""Sort-of-CLEVR: images of six colored shapes, and questions about one of them or about relations.

Each image has a square or a circle of every color, at random places that do not overlap, and ten
questions of each kind, about a random color:

    non-relational  what shape it has, whether it is in the left half, and in the upper half
    relational      the shape of the nearest and of the farthest object, and how many others have
                    the same shape

An example's image and questions are a pure function of the seed and the image's number: sets of two
seeds are independent, so that one can train on one and test on the other.

Source: Santoro et al. 2017 (arXiv 1706.01427); sizes, places and answers as in github.com/
kimhc6028/relational-networks, sort_of_clevr_generator.py.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.draws import PLACES, row_rng
from mmjax.data.source import Source

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "orange": (255, 156, 0),
    "gray": (128, 128, 128),
    "yellow": (255, 255, 0),
}
SHAPES = ("square", "circle")
ANSWERS = ("yes", "no", *SHAPES, *map(str, range(len(COLORS))))
SIZE, RADIUS = 75, 5  # pixels
EACH = 10  # questions of a kind about an image
TYPES = {
    "non_relational": (
        "what is the shape of the {} object ?",
        "is the {} object on the left ?",
        "is the {} object at the top ?",
    ),
    "relational": (
        "what is the shape of the object nearest to the {} object ?",
        "what is the shape of the object farthest from the {} object ?",
        "how many other objects have the shape of the {} object ?",
    ),
}


class Scene(NamedTuple):
    """The objects of an image, by color: centers `[6, 2]` (x, y) and shapes `[6]`."""

    centers: np.ndarray
    shapes: np.ndarray


def open_sort_of_clevr(
    images: int, seed: int = 0, types: Sequence[str] = tuple(TYPES)
) -> "SortOfClevr":
    """The questions about `images` images, 10 of each of the `types` for each.

    Raises:
      ValueError: no images, or an unknown type.
    """
    unknown = sorted(set(types) - set(TYPES))
    if images < 1 or unknown or not types:
        raise ValueError(
            f"images is {images} and types {tuple(types)}: use 1 or more, and some of {[*TYPES]}."
        )
    return SortOfClevr(images, seed, tuple(types))


class SortOfClevr(Source):
    """See `open_sort_of_clevr`. An example has `image`, the question as its only caption, `label`
    (an index into `ANSWERS`), `answers` (that one) and `question_type`; the questions about an
    image follow each other."""

    class_names = list(ANSWERS)

    def __init__(self, images: int, seed: int, types: tuple[str, ...]):
        self.name = f"sort_of_clevr of seed {seed}"
        self._images, self._seed, self._types = images, seed, types
        self.corpus = [q.format(c) for kind in TYPES.values() for q in kind for c in COLORS]

    def __len__(self) -> int:
        return self._images * len(self._types) * EACH

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene, meta = self._read(index)
        return {**meta, "image": draw(scene)}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        return self._read(index)[1]

    def _read(self, index: int) -> tuple[Scene, dict[str, Any]]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} examples, not one numbered {index}")
        image, place = divmod(index, len(self._types) * EACH)
        rng = row_rng(self._seed, image, PLACES)
        scene = make_scene(rng)
        # Drawn for all types, so that the questions do not depend on which of them are asked.
        asked = rng.integers((len(COLORS), 3), size=(len(TYPES), EACH, 2))
        kind = self._types[place // EACH]
        color, form = asked[[*TYPES].index(kind), place % EACH].tolist()
        answer = answer_to(scene, kind, color, form)
        meta = {
            "key": f"{self.name}[{index}]",
            "captions": [TYPES[kind][form].format([*COLORS][color])],
            "label": ANSWERS.index(answer),
            "answers": [answer],
            "question_type": kind,
        }
        return scene, meta


def make_scene(rng: np.random.Generator) -> Scene:
    """An object of each color, the centers at least two radii apart."""
    centers: list[np.ndarray] = []
    while len(centers) < len(COLORS):
        center = rng.integers(RADIUS, SIZE - RADIUS, 2)
        if all(np.sum((center - c) ** 2) >= (2 * RADIUS) ** 2 for c in centers):
            centers.append(center)
    return Scene(np.stack(centers), rng.integers(len(SHAPES), size=len(COLORS)))


def answer_to(scene: Scene, kind: str, color: int, form: int) -> str:
    """The answer to the question of a kind in TYPES, by its number, about the object of a color."""
    center, shape = scene.centers[color], scene.shapes[color]
    if kind == "non_relational":
        return SHAPES[shape] if form == 0 else "yes" if center[form - 1] < SIZE / 2 else "no"
    if form == 2:
        return str(int(np.sum(scene.shapes == shape)) - 1)
    distance = np.sum((scene.centers - center) ** 2, axis=1)
    others = np.flatnonzero(np.arange(len(COLORS)) != color)
    pick = np.argmin if form == 0 else np.argmax
    return SHAPES[scene.shapes[others[pick(distance[others])]]]


def draw(scene: Scene) -> np.ndarray:
    """The image, uint8 `[SIZE, SIZE, 3]`: shapes on white."""
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    at = np.arange(SIZE)
    for color, (x, y), shape in zip(COLORS.values(), scene.centers, scene.shapes):
        dx, dy = np.abs(at - x)[None, :], np.abs(at - y)[:, None]
        inside = np.maximum(dx, dy) <= RADIUS if shape == 0 else dx**2 + dy**2 <= RADIUS**2
        image[inside] = color
    return image
