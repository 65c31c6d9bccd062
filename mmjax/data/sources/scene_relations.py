"""What is left of what in synthetic scenes, with the mirrored scene for the swapped caption."""

from typing import Any

import numpy as np

from mmjax.data.draws import PLACES, row_rng
from mmjax.data.source import Source
from mmjax.data.sources.scenes import Scenes

CAPTION = "{} to the left of {}"


def open_scene_relations(source: Source, seed: int = 0) -> "SceneRelations":
    """Two examples of each scene: "A to the left of B", and, mirrored, "B to the left of A".

    A and B are two objects of the scene, each the only one of its name, drawn from those whose
    centers are at least a quarter of the image apart, or the two farthest apart; a scene without
    such objects is replaced by the next one that has them. The fields are those of
    `open_caption_swaps`: the swap has the same words, so that only their order tells.

    Args:
      source: of kind `scenes`, with two or more objects in each.

    Raises:
      ValueError: another source.
    """
    if not isinstance(source, Scenes):
        raise ValueError(f"{source.name} is not of kind 'scenes', whose objects have boxes.")
    return SceneRelations(source, seed)


class SceneRelations(Source):
    """See `open_scene_relations`."""

    def __init__(self, source: Scenes, seed: int):
        self.name = f"relations in {source.name}"
        self._source, self._seed = source, seed
        self.corpus = [CAPTION.format(a, a) for a in source.class_names]

    def __len__(self) -> int:
        return 2 * len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} examples, not one numbered {index}")
        scene, mirrored = divmod(index, 2)
        example, (left, right) = self._scene(scene)
        texts = [CAPTION.format(left, right), CAPTION.format(right, left)]
        own, other = texts[::-1] if mirrored else texts
        image = example["image"][:, ::-1] if mirrored else example["image"]
        swap = {"swapped_captions": [other], "swap_kind": "relation", "group": str(scene)}
        key = f"{self.name}[{index}]"
        return {"key": key, "image": np.ascontiguousarray(image), "captions": [own], **swap}

    def _scene(self, scene: int) -> tuple[dict[str, Any], tuple[str, str]]:
        """The first scene from this one on with two names, and these, the left one first."""
        count = len(self._source)
        for number in range(scene, scene + count):
            example = self._source[number % count]
            pair = self._pair(scene, example["regions"])
            if pair is not None:
                return example, pair
        raise ValueError(
            f"No scene of {self._source.name} has two objects of different names: set its "
            "per_scene to more, or give it more objects."
        )

    def _pair(self, scene: int, regions: Any) -> tuple[str, str] | None:
        """The names of two objects, the left one first; None: no two have names of their own."""
        centers = np.asarray(regions.boxes, np.float64)[:, [0, 2]].mean(axis=1)
        names = [self._source.class_names[label] for label in regions.labels]
        # Of two dogs one can be left and one right of a cat: both captions would be true.
        only = [i for i, name in enumerate(names) if names.count(name) == 1]
        found = [
            (centers[j] - centers[i], i, j) for i in only for j in only if centers[j] > centers[i]
        ]
        if not found:
            return None
        far = [x for x in found if x[0] >= 0.25 * regions.width] or [max(found)]
        _, i, j = far[int(row_rng(self._seed, scene, PLACES).integers(len(far)))]
        return names[i], names[j]
