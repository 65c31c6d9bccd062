"""Instructions about regions of images: where a thing is, what is in a box, a point on a thing.

Made from images whose regions have names, such as scenes of ktuberling's objects and kgeography's
maps. The messages have "<box>" and "<point>" for the region of the example, which the step
`write_boxes` replaces.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.builders.emoji_names import fraction_of
from mmjax.data.draws import PLACES, row_rng
from mmjax.data.regions import Regions
from mmjax.data.source import Source, without_media
from mmjax.data.sources.phrasings import Task, check, conversation

TASKS = {
    "where": Task(
        (
            "Where is the {}?",
            "Find the {}.",
            "Give the box of the {}.",
            "Locate the {}.",
            "Draw a box around the {}.",
            "In which box is the {}?",
        ),
        ("What part of the image has the {}?", "Show where the {} is."),
    ),
    "point": Task(
        (
            "Point to the {}.",
            "Put a point on the {}.",
            "Give a point of the {}.",
            "Which point is on the {}?",
            "Point at the {}.",
            "Click on the {}.",
        ),
        ("Touch the {}.", "Name a point that belongs to the {}."),
    ),
    "what": Task(
        (
            "What is at <box>?",
            "What is in <box>?",
            "Name what is in the box <box>.",
            "What does the box <box> show?",
            "Which thing is at <box>?",
            "Tell me what is in <box>.",
        ),
        ("What do you see in <box>?", "The box <box> is around what?"),
    ),
}
ANSWERS = {"where": "<box>", "point": "<point>"}
NAMES = ("all", "known", "unseen")
UNSEEN = 0.2  # of the names


def is_unseen(name: str) -> bool:
    """Whether nothing with this name is asked about where names are "known"."""
    return fraction_of(name.casefold(), "mmjax grounded instructions") < UNSEEN


def open_grounded_instructions(
    source: Source,
    length: int,
    names: str = "all",
    phrasings: str = "known",
    tasks: Sequence[str] = tuple(TASKS),
    min_side: float = 0.0,
    seed: int = 0,
) -> "GroundedInstructions":
    """`length` questions, the i-th about a region of image i mod N.

    A question is about a region that is the only one of its name in the image; an image without
    such a region is replaced by the next one that has it.

    Args:
      source: images with `regions` and class names; `board` or `map` of an example is its group.
      names: what is asked about: "all" names, those that are "known" or those that are "unseen",
        a fifth of them.
      phrasings: "known", or "unseen" for those that are held out.
      min_side: the shortest longer side of a region, as a fraction of the image's.

    Raises:
      ValueError: unknown tasks, phrasings or names, a length below 1, a source without regions or
        names, or without anything to ask about.
    """
    check(phrasings, tasks, TASKS, "the grounded instructions")
    if names not in NAMES:
        raise ValueError(f"The names of the grounded instructions are '{names}': use {NAMES}.")
    if length < 1 or not len(source):
        raise ValueError(f"{length} instructions for {len(source)} images: use 1 or more of each.")
    if source.class_names is None or not isinstance(source.meta(0).get("regions"), Regions):
        raise ValueError(
            f"{source.name} has no regions with names: use a source such as scenes of ktuberling's "
            "objects, or kgeography."
        )
    return GroundedInstructions(source, length, names, phrasings, tasks, min_side, seed)


class GroundedInstructions(Source):
    """See `open_grounded_instructions`; `regions` of an example are the one that it is about, and
    `thing` is its name."""

    def __init__(
        self,
        source: Source,
        length: int,
        names: str,
        phrasings: str,
        tasks: Sequence[str],
        min_side: float,
        seed: int,
    ):
        self.name = f"grounded_instructions of {source.name}"
        self._source, self._length, self._seed = source, length, seed
        self._phrasings, self._tasks, self._min_side = phrasings, tuple(tasks), min_side
        wanted = {"all": (False, True), "known": (False,), "unseen": (True,)}[names]
        self._asked = np.asarray([is_unseen(name) in wanted for name in source.class_names])
        known = [q for task in tasks for q in TASKS[task].known]
        self.corpus = [*source.class_names, *(q.replace("<box>", "") for q in known)]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._example(index, self._source.__getitem__)

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        return without_media(self._example(index, self._source.meta))

    def _example(self, index: int, read: Any) -> dict[str, Any]:
        if not 0 <= index < self._length:
            raise IndexError(f"{self.name} has {self._length} examples, not one numbered {index}")
        count = len(self._source)
        for number in range(index, index + count):
            example = read(number % count)
            choices = self._choices(example["regions"])
            if len(choices):
                return self._about(index, example, choices)
        raise ValueError(
            f"{self.name} has no region to ask about: lower min_side, or ask about all names."
        )

    def _choices(self, regions: Regions) -> np.ndarray:
        """Indices of the regions that can be asked about."""
        found, times = np.unique(regions.labels, return_counts=True)
        only = np.isin(regions.labels, found[(times == 1) & (found >= 0)])
        sides = (regions.boxes[:, 2:] - regions.boxes[:, :2]).max(-1)
        return np.flatnonzero(only & self._asked[regions.labels] & (sides >= self._min_side))

    def _about(self, index: int, example: dict[str, Any], choices: np.ndarray) -> dict[str, Any]:
        rng = row_rng(self._seed, index, PLACES)
        region = int(rng.choice(choices))
        task = self._tasks[rng.integers(len(self._tasks))]
        name = self._source.class_names[example["regions"].labels[region]]
        key = f"{self.name}[{index}]"
        question = TASKS[task].worded(self._phrasings, key, name)
        group = str(example.get("board", example.get("map", "")))
        about = {"key": key, "thing": name, "group": group}
        about["regions"] = example["regions"].at([region])
        image = {k: v for k, v in example.items() if k == "image"}
        return {**about, **image, **conversation(question, ANSWERS.get(task, name), task)}
