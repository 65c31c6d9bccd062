"""Average precision of `configs/owlvit_boards.py`, seen and held out, beside baselines.

    python -m experiments.owlvit_boards runs/owlvit_boards_*     # a JSON line per run and split

Baselines: template matching with the drawings themselves (--templates), and the model's own boxes
with names at random. Further: queries by one drawing of each name, and boxes of any object, by
objectness.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.owlvit_boards import SIZE, SPLITS, scenes
from mmjax.data.open_source import open_source
from mmjax.data.sources.scenes import Scenes
from mmjax.data.transforms import image_ops
from mmjax.detection.boxes import Detections, sigmoid, suppress
from mmjax.detection.detector import BATCH, Detector, open_detector
from mmjax.evals.metrics import coco_ap

IMAGES = 100
KEPT = 100  # detections of an image
# Of template matching: sides of windows and steps between them, in pixels; side of a template.
WINDOWS, STEP, SIDE = (16, 20, 25, 30, 35), 2, 8


def open_split(name: str) -> Scenes:
    """Scenes of a split that training has not seen."""
    return open_source(scenes(SPLITS[name], IMAGES, seed=2))


def resized(example: dict[str, Any]) -> np.ndarray:
    """The image at the size of the model."""
    return image_ops.resize(example["image"], (SIZE, SIZE))


def truths(examples: Sequence[dict[str, Any]], agnostic: bool) -> coco_ap.Truths:
    """The objects of all images, in pixels of the model's input."""
    regions = [example["regions"] for example in examples]
    boxes = np.concatenate([r.boxes for r in regions]) * SIZE
    labels = np.concatenate([r.labels for r in regions])
    return coco_ap.Truths(
        np.repeat(np.arange(len(regions)), [len(r) for r in regions]),
        np.zeros_like(labels) if agnostic else labels,
        boxes,
        (boxes[:, 2:] - boxes[:, :2]).prod(-1),
        np.zeros(len(boxes), bool),
    )


def measured(
    examples: Sequence[dict[str, Any]], found: Sequence[Detections], classes: int, agnostic=False
) -> dict[str, float]:
    """COCO's AP and AP at IoU 0.5 of boxes in fractions."""
    joined = coco_ap.Detections(
        np.repeat(np.arange(len(found)), [len(one.scores) for one in found]),
        np.concatenate([one.labels for one in found]).astype(np.int64),
        np.concatenate([one.scores for one in found]).astype(np.float64),
        np.concatenate([one.boxes for one in found]).clip(0, 1).astype(np.float64) * SIZE,
    )
    numbers = coco_ap.coco_ap(truths(examples, agnostic), joined, classes)
    return {k: round(numbers[k], 4) for k in ("ap", "ap50")}


def best_pairs(logits: np.ndarray, boxes: np.ndarray) -> Detections:
    """The best pairs of a token and a query [P, Q]."""
    order = np.argsort(-logits.ravel(), kind="stable")[:KEPT]
    token, query = np.divmod(order, logits.shape[1])
    return Detections(boxes[token], sigmoid(logits.ravel()[order]), query)


def drawings(split: str, names: Sequence[str]) -> Iterator[tuple[int, Image.Image]]:
    """(class, cut-out) of each object of a split."""
    source = open_source({"kind": "tfds", "name": "ktuberling", "split": split})
    for i in range(len(source)):
        meta = source.meta(i)
        if not meta["background"]:
            image = Image.open(io.BytesIO(source[i]["image"])).convert("RGBA")
            image = image.crop(image.getchannel("A").getbbox())
            yield list(names).index(source.class_names[meta["label"]]), image


def one_shot(detector: Detector, split: str, names: Sequence[str]) -> np.ndarray:
    """Query embeddings [K, E] of the first drawing of each name, on white."""
    queries = {}
    for label, image in drawings(split, names):
        if label not in queries:
            square = Image.new("RGBA", (max(image.size),) * 2, (255, 255, 255, 255))
            place = [(side - length) // 2 for side, length in zip(square.size, image.size)]
            square.alpha_composite(image, tuple(place))
            pixels = np.asarray(square.convert("RGB").resize((SIZE, SIZE)))
            queries[label] = detector.object_in(pixels)[0][0]
    return np.stack([queries[k] for k in range(len(names))])


def by_model(
    detector: Detector, split: str, examples: Sequence[dict[str, Any]], names: Sequence[str]
) -> dict[str, list[Detections]]:
    """Detections of names, those with random names, those by a drawing, and those of any object."""
    queries = np.concatenate([detector.texts(names, ["{}"]), one_shot(detector, split, names)])
    shuffled = np.random.default_rng(0).permutation(len(names))
    named, random, shown, objects = [], [], [], []
    for start in range(0, len(examples), BATCH):
        images = [resized(example) for example in examples[start : start + BATCH]]
        outputs = detector.outputs(images, queries)
        for i in range(len(images)):
            boxes = outputs["pred_boxes"][i]
            of_texts, of_drawings = np.split(outputs["query_logits"][i], 2, axis=-1)
            named.append(best_pairs(of_texts, boxes))
            random.append(named[-1]._replace(labels=shuffled[named[-1].labels]))
            shown.append(best_pairs(of_drawings, boxes))
            objects.append(best_pairs(outputs["objectness_logits"][i][:, None], boxes))
    return {
        "named": named,
        "random_names": random,
        "by_drawing": shown,
        "any_object": objects,
    }


def templates(split: str, names: Sequence[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(class, colors [S, S, 3], alpha [S, S]) of each object of a split, and mirrored."""
    for label, image in drawings(split, names):
        canvas = np.zeros((SIDE, SIDE, 4), np.float32)
        longest = max(image.size)
        width, height = (max(1, round(SIDE * side / longest)) for side in image.size)
        canvas[:height, :width] = np.asarray(image.resize((width, height)))
        mirrored = np.concatenate([canvas[:, :width][:, ::-1], canvas[:, width:]], 1)
        for part in (canvas, mirrored):
            yield label, part[..., :3] / 255, part[..., 3] / 255


def by_templates(split: str, examples: Sequence[dict[str, Any]], names: Sequence[str]):
    """Detections by the mean squared distance of colors from each drawing, where it is opaque."""
    labels, colors, alphas = (np.asarray(x) for x in zip(*templates(split, names), strict=True))
    shape = np.stack([(alphas > 0.2).any(1).sum(1), (alphas > 0.2).any(2).sum(1)], 1) / SIDE
    mask = np.repeat(alphas[..., None], 3, -1).reshape(len(labels), -1)
    flat = colors.reshape(len(labels), -1)
    found = []
    for example in examples:
        image = resized(example)
        windows, corners = [], []
        for side in WINDOWS:
            padded = np.pad(image, ((0, side), (0, side), (0, 0)))
            for top in range(0, SIZE - side // 2, STEP):
                for left in range(0, SIZE - side // 2, STEP):
                    part = np.ascontiguousarray(padded[top : top + side, left : left + side])
                    windows.append(image_ops.resize(part, (SIDE, SIDE), "bilinear"))
                    corners.append((left, top, side))
        w = np.asarray(windows, np.float32).reshape(len(windows), -1) / 255
        distance = w**2 @ mask.T - 2 * w @ (mask * flat).T + (mask * flat**2).sum(1)
        distance /= mask.sum(1)
        corner = np.asarray(corners, np.float32)[:, None]
        low = np.broadcast_to(corner[..., :2], (*distance.shape, 2))
        boxes = np.concatenate([low, low + corner[..., 2:] * shape[None]], -1) / SIZE
        best = np.argsort(distance.ravel())[:1000]
        scores = np.exp(-50 * np.maximum(distance.ravel()[best], 0))
        window, which = np.divmod(best, len(labels))
        every = Detections(boxes[window, which], scores.astype(np.float32), labels[which])
        every = suppress(every, 0.5)
        found.append(every.kept(np.argsort(-every.scores)[:KEPT]))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", help="workdirs")
    parser.add_argument("--templates", action="store_true", help="the baseline of the drawings")
    args = parser.parse_args()
    for name, split in SPLITS.items():
        source = open_split(name)
        examples = [source[i] for i in range(len(source))]
        names = source.class_names
        print(json.dumps({"split": name, "images": len(examples), "names": len(names)}))
        if args.templates:
            numbers = measured(examples, by_templates(split, examples, names), len(names))
            print(json.dumps({"split": name, "by": "templates", **numbers}), flush=True)
        for run in args.runs:
            found = by_model(open_detector(Path(run)), split, examples, names)
            for by, detections in found.items():
                agnostic = by == "any_object"
                classes = 1 if agnostic else len(names)
                numbers = measured(examples, detections, classes, agnostic)
                print(json.dumps({"split": name, "run": run, "by": by, **numbers}), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
