"""Grounding in text: are the boxes and points that a model answers with where the thing is?"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.source import Source
from mmjax.data.sources.grounded_instructions import TASKS
from mmjax.data.text.locations import read_box, read_point, write_places
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.grounding import grounding_accuracy, pair_overlaps, point_accuracy
from mmjax.evals.outputs import in_order, select
from mmjax.evals.question_answering import OtherImages
from mmjax.evals.vqa import most_frequent, soft_accuracy
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True)
class Truth:
    """What N questions ask: task, true box [N, 4], name of the thing, group of the image."""

    task: np.ndarray
    box: np.ndarray
    thing: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, source: Source) -> "Truth":
        """Of all questions of a source; boxes are in the coordinates of its stored images."""
        rows = [source.meta(i) for i in range(len(source))]
        task, thing, group = (
            np.asarray([str(row[field]) for row in rows], object)
            for field in ("question_type", "thing", "group")
        )
        boxes = np.asarray([row["regions"].boxes[0] for row in rows], np.float64)
        return cls(task, boxes, thing, group)

    def at(self, which: np.ndarray) -> "Truth":
        """Some of the questions."""
        return Truth(*(column[which] for column in (self.task, self.box, self.thing, self.group)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroundedAnswers(Evaluator):
    """Generated answers to questions of the source `grounded_instructions`.

    - `where/accuracy`: of boxes at an IoU of 0.5; `where/iou`, its mean; `where/read`, the fraction
      of answers that have a box. `point/accuracy`: of points in the true box; `point/read`.
      `what/accuracy`: of names.
    - `group_.../where/accuracy`, ...: of the images of one board or map.
    - `other_image/...`: the same, with the image of another question.
    - `prior/...`: the median of the training boxes of the same name, or of all where there is none,
      and its middle; the most frequent training name. A baseline that does not use the image.

    The transform ends with `regions(1) | write_boxes | converse(..., prompt=True)`. A question
    whose region is cropped away is refused by `write_boxes`.

    Settings:
      decode: settings of decoding; train_source: training questions of the baseline.
    """

    kind = "grounded_answers"
    decode: Mapping[str, Any]
    train_source: Mapping[str, Any]

    def __post_init__(self):
        self.runner.generate(self.decode)  # reports wrong settings before training

    def _check_source(self, source: Any) -> None:
        found = source.meta(0)
        if found.get("question_type") not in TASKS or "thing" not in found:
            raise ValueError(
                f"A '{self.kind}' needs questions about regions: use a source of kind "
                "'grounded_instructions'."
            )

    def _check_row(self, batch: Mapping[str, np.ndarray]) -> None:
        super()._check_row(batch)
        if "boxes" not in batch or "text" not in batch:
            raise ValueError(
                f"A '{self.kind}' needs boxes and text and its transform gives "
                f"{', '.join(sorted(batch))}: end it with regions(1) | write_boxes | converse(...)."
            )

    def run(self, variables: Variables) -> Results:
        source, train = self._open(self.source), Truth.of(self._open(self.train_source))
        texts, box, there = self._answers(variables, source)
        asked = Truth.of(source).at(there)
        seen = dataclasses.replace(asked, box=box[there])
        yield from answer_metrics(texts[there], seen)
        for group in sorted(set(seen.group) - {""}):
            own = seen.group == group
            found = answer_metrics(texts[there][own], seen.at(own))
            yield from _named(f"group_{group}", found)
        other, box, there = self._answers(variables, OtherImages(source))
        found = answer_metrics(other[there], dataclasses.replace(asked, box=box[there]))
        yield from _named("other_image", found)
        yield from _named("prior", prior_metrics(train, asked))
        yield from left_out(int((~there).sum()))

    def _answers(
        self, variables: Variables, source: Source
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The answer to each question, the true box [N, 4] in the model's image, and whether it has
        both [N]."""
        generate = self.runner.generate(self.decode)

        def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
            for batch in self._batches(source):
                given, present = select(batch, ("image", "text"), every=True)
                texts = np.asarray(list(generate(variables, given).texts), object)
                truth = {"box": batch["boxes"][:, 0], "there": batch["boxes_mask"][:, 0] & present}
                yield batch, {"text": texts, **self.runner.gather(truth)}

        rows = in_order(self.runner, source, made(), "answers")
        return rows["text"], rows["box"].astype(np.float64), rows["there"]


def answer_metrics(texts: Sequence[str], asked: Truth) -> Results:
    """The metrics of the answers to each task that is asked."""
    for task in sorted(set(asked.task)):
        own = np.flatnonzero(asked.task == task)
        given, true = [texts[i] for i in own], asked.box[own]
        if task == "what":
            scores = [soft_accuracy(a, [thing]) for a, thing in zip(given, asked.thing[own])]
            yield "what/accuracy", float(np.mean(scores))
            continue
        read = read_box if task == "where" else read_point
        found = [read(text) for text in given]
        # A box without area, and a point outside of all boxes, where none can be read.
        none = np.zeros(4) if task == "where" else np.full(2, -1.0)
        places = np.stack([none if place is None else place for place in found])
        if task == "where":
            yield "where/accuracy", grounding_accuracy(places, true)
            yield "where/iou", float(pair_overlaps(places[:, None], true).mean())
        else:
            yield "point/accuracy", point_accuracy(places, true)
        yield f"{task}/read", float(np.mean([place is not None for place in found]))


def prior_metrics(train: Truth, asked: Truth) -> Results:
    """Those of the answers of training, for the same name where it has one."""
    median = {thing: np.median(train.box[train.thing == thing], 0) for thing in set(train.thing)}
    every = np.median(train.box, 0)
    usual = most_frequent(list(train.thing))
    texts = []
    for task, thing in zip(asked.task, asked.thing):
        box = median.get(thing, every)
        place = box if task == "where" else (box[:2] + box[2:]) / 2
        texts.append(usual if task == "what" else write_places(place, "bins"))
    for name, value in answer_metrics(texts, asked):
        if not name.endswith("/read"):
            yield name, value


def _named(prefix: str, found: Results) -> Results:
    yield from ((f"{prefix}/{name}", value) for name, value in found)
