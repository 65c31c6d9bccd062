"""Grounding of phrases: does a model find the object that a phrase means?"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from einops import rearrange

from mmjax.data.source import Source
from mmjax.evals.attention_rollout import patch_grid
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.grounding import grounding_accuracy, pointing_game, recall_at
from mmjax.evals.outputs import in_order
from mmjax.system import Variables

BOXES = 10  # of a phrase that are looked at


class Phrases(Source):
    """An example for each phrase of a source's images, with its region alone."""

    def __init__(self, source: Source):
        self.name, self.class_names, self._source = f"phrases of {source.name}", None, source
        self._places = [
            (i, k) for i in range(len(source)) for k in range(len(_phrases(source.meta(i))))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, place = self._places[index]
        return self._one(self._source[image], place)

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        image, place = self._places[index]
        return self._one(self._source.meta(image), place)

    def _one(self, example: dict[str, Any], place: int) -> dict[str, Any]:
        regions, phrase = example["regions"], example["phrases"][place]
        one = {"captions": [phrase], "phrases": [phrase], "regions": regions.at([place])}
        return {**example, **one}


def _phrases(example: Mapping[str, Any]) -> Sequence[str]:
    if "phrases" not in example:
        raise ValueError(
            "A 'grounding' needs phrases of regions: use a source of kind 'refcoco' or "
            "'visual_genome'."
        )
    return example["phrases"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grounding(Evaluator):
    """Accuracy at an IoU of 0.5, recall of the first 5 and 10 boxes, and the pointing game.

    The model gives a box per image token, and their logits for a query, which is the phrase. Boxes
    are compared in the image that the model sees: its transform ends with `regions(1) |
    first_caption | tokenize(16)`. A phrase whose region is cropped away is left out.

    Settings:
      tolerance: of the pointing game, as a fraction of the image's sides.
    """

    kind = "grounding"
    tolerance: float = 0.0

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"pred_boxes": ("image",), "query_logits": ("image", "text")}

    def _check_source(self, source: Any) -> None:
        _phrases(source.meta(0))

    def _check_row(self, batch: Mapping[str, np.ndarray]) -> None:
        lacking = [name for name in ("boxes", "text", "text_mask") if name not in batch]
        if lacking:
            raise ValueError(
                f"A 'grounding' needs {lacking[0]} and its transform gives "
                f"{', '.join(sorted(batch))}: end it with regions(1) | first_caption | "
                "tokenize(16)."
            )
        super()._check_row(_with_queries(batch))

    def _open(self, config: Mapping[str, Any]) -> Any:
        return Phrases(super()._open(config))

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)

        def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
            for batch in self._batches(source):
                given = _with_queries(batch)
                names = ("image", "text", "text_mask", "example_id")
                outputs = self.runner.apply(
                    variables,
                    {name: given[name] for name in names},
                    ["pred_boxes", "query_logits"],
                )
                scores = np.asarray(outputs["query_logits"], np.float32)[..., 0]
                best = np.argsort(-scores, axis=1, kind="stable")[:, :BOXES]
                boxes = np.asarray(outputs["pred_boxes"], np.float64)
                truth = {name: batch[name][:, 0] for name in ("boxes", "boxes_mask")}
                yield (
                    batch,
                    {
                        "found": np.take_along_axis(boxes, best[..., None], 1).clip(0, 1),
                        "map": _grid(scores, batch["image"].shape[1:3]),
                        **self.runner.gather(truth),
                    },
                )

        rows = in_order(self.runner, source, made(), "phrases")
        there = rows["boxes_mask"]
        if not there.any():
            raise ValueError("A 'grounding' has nothing to evaluate: its crops leave no region.")
        truth, found = rows["boxes"][there].astype(np.float64), rows["found"][there]
        yield "accuracy", grounding_accuracy(found[:, 0], truth)
        recall = recall_at(found, truth)
        for k in (5, 10):
            yield f"recall_{k}", float(recall[min(k, len(recall)) - 1])
        yield "pointing_game", pointing_game(rows["map"][there], truth, self.tolerance)
        yield from left_out(int((~there).sum()))


def _with_queries(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text of each row as its one query, [B, 1, L]."""
    return {**batch, "text": batch["text"][:, None], "text_mask": batch["text_mask"][:, None]}


def _grid(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scores [B, P] of patches as a map [B, rows, columns]."""
    _, rows, _ = patch_grid(scores.shape[1], *size)
    return rearrange(scores, "b (row column) -> b row column", row=rows)
