"""Detection by text queries: average precision of a model's boxes, as COCO and LVIS define it."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from einops import rearrange

from mmjax.data.regions import out_of_frame
from mmjax.data.transforms.captions import get_templates
from mmjax.evals.evaluator import Evaluator, Results
from mmjax.evals.metrics.coco_ap import Detections, Truths, coco_ap, lvis_ap
from mmjax.evals.outputs import in_order
from mmjax.evals.zero_shot import classifier_weights
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True)
class Found:
    """What a model finds in the images of a source, in pixels of the stored images."""

    truths: Truths
    detections: Detections
    class_names: list[str]
    sizes: np.ndarray  # [N, 2], height and width


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection(Evaluator):
    """COCO's twelve numbers (LVIS's, of a source with class frequencies) of a model's boxes.

    Queries are the class names of the source, each the mean over its prompts; the score of a box
    for a class is the sigmoid of its logit. Boxes are taken back to the stored images, whose
    annotations, crowd regions included, are the truth. The transform ends with `regions(1)`: its
    `frame` says which part of the stored image the model sees.

    Settings:
      limit: boxes of an image that count, of all classes; None: 100, and 300 for LVIS.
    """

    kind = "detection"
    templates: str | tuple[str, ...] = "plain"
    limit: int | None = None

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"pred_boxes": ("image",), "query_logits": ("image", "text")}

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"templates": get_templates(self.templates)}

    def _check_source(self, source: Any) -> None:
        if not source.class_names:
            raise ValueError(
                "A 'detection' asks for the class names of its source, which has none: use one "
                "with names, such as 'coco' or 'scenes'."
            )

    def _check_row(self, batch: Mapping[str, np.ndarray]) -> None:
        if "frame" not in batch:
            raise ValueError(
                "A 'detection' needs to know which part of an image the model sees: end its "
                "transform with regions(1)."
            )
        super()._check_row(batch)

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        found = self.found(variables)
        classes = len(found.class_names)
        frequency = getattr(source, "frequency", None)
        if frequency is None:
            numbers = coco_ap(found.truths, found.detections, classes)
        else:
            pairs = (_pairs(source, name) for name in ("negative", "not_exhaustive"))
            limit = self._limit(source)
            numbers = lvis_ap(found.truths, found.detections, classes, *pairs, frequency, limit)
        # Without objects of a size or frequency there is no number.
        yield from ((name, value) for name, value in numbers.items() if not math.isnan(value))

    def found(self, variables: Variables, source: Any = None) -> Found:
        """Truths and detections of a source, that of the config if None."""
        source = self._open(self.source) if source is None else source
        names = list(source.class_names)
        limit = self._limit(source)

        def embed(texts: list[str]) -> np.ndarray:
            return self._queries(variables, texts)

        queries = classifier_weights(embed, names, self.templates)

        def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
            for batch in self._batches(source):
                given = {name: batch[name] for name in ("image", "example_id")}
                given["query_embed"] = np.broadcast_to(
                    queries, (len(batch["image"]), *queries.shape)
                )
                outputs = self.runner.apply(variables, given, ["pred_boxes", "query_logits"])
                best = best_boxes(outputs["pred_boxes"], outputs["query_logits"], limit)
                frames = self.runner.gather({"frame": batch["frame"]})
                yield batch, {**best, **frames}

        rows = in_order(self.runner, source, made(), "images")
        regions = [source.meta(i)["regions"] for i in range(len(source))]
        sizes = np.asarray([[r.height, r.width] for r in regions], np.float64)
        boxes = out_of_frame(rows["boxes"], rows["frame"][:, None].astype(np.float64)).clip(0, 1)
        number = rows["boxes"].shape[1]
        unit = sizes[:, None, [1, 0, 1, 0]]
        detections = Detections(
            np.repeat(np.arange(len(source)), number),
            rows["labels"].ravel(),
            rows["scores"].ravel().astype(np.float64),
            rearrange(boxes * unit, "n k c -> (n k) c"),
        )
        return Found(truths_of(regions), detections, names, sizes)

    def _limit(self, source: Any) -> int:
        plain = 100 if getattr(source, "frequency", None) is None else 300
        return plain if self.limit is None else self.limit

    def _queries(self, variables: Variables, texts: Sequence[str]) -> np.ndarray:
        """Query embeddings [M, E] of texts: each batch has as many as the model's spec."""
        runner, (queries, length) = self.runner, self.runner.spec["text"].shape[-2:]
        many, parts = queries * runner.batch_size, []
        for start in range(0, len(texts), many):
            chunk = list(texts[start : start + many])
            padded = chunk + chunk[-1:] * (many - len(chunk))
            text, mask = (np.asarray(x) for x in runner.tokenizer.encode(padded, length))
            batch = {
                name: rearrange(x, "(b q) l -> b q l", q=queries)[runner.rows]
                for name, x in (("text", text), ("text_mask", mask))
            }
            found = runner.apply(variables, batch, ["text_embed"])["text_embed"]
            parts.append(rearrange(np.asarray(found), "b q e -> (b q) e")[: len(chunk)])
        return np.concatenate(parts)


def best_boxes(boxes: np.ndarray, logits: np.ndarray, limit: int) -> dict[str, np.ndarray]:
    """The `limit` best pairs of a box and a class of each image, the best first.

    Args:
      boxes: [B, P, 4]; logits: [B, P, K].

    Returns:
      `boxes` [B, k, 4], `labels` [B, k] int64 and `scores` [B, k], with k at most P·K.
    """
    flat = rearrange(np.asarray(logits, np.float32), "b p k -> b (p k)")
    count = min(limit, flat.shape[1])
    some = np.argpartition(-flat, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(flat, some, 1), axis=1, kind="stable")
    best = np.take_along_axis(some, order, 1)
    place, label = np.divmod(best, logits.shape[2])
    scores = 1 / (1 + np.exp(-np.take_along_axis(flat, best, 1).astype(np.float64)))
    found = np.take_along_axis(np.asarray(boxes, np.float64), place[..., None], 1)
    return {"boxes": found, "labels": label, "scores": scores}


def truths_of(regions: Sequence[Any]) -> Truths:
    """The annotated boxes of images, without those that have no class, in pixels."""
    image = np.repeat(np.arange(len(regions)), [len(r) for r in regions])
    units = np.asarray([[r.width, r.height] * 2 for r in regions], np.float64).reshape(-1, 4)
    label = np.concatenate([r.labels for r in regions])
    kept = label >= 0
    return Truths(
        image[kept],
        label[kept].astype(np.int64),
        (np.concatenate([r.boxes for r in regions]) * units[image])[kept],
        np.concatenate([r.areas for r in regions])[kept],
        np.concatenate([r.crowd for r in regions])[kept],
    )


def _pairs(source: Any, name: str) -> np.ndarray:
    """[n, 2] of (image, class) in a field of the source's examples."""
    pairs = [(i, k) for i in range(len(source)) for k in source.meta(i).get(name, ())]
    return np.asarray(pairs, np.int64).reshape(-1, 2)
