"""COCO's average precision of drawn detections on CPU: ours beside pycocotools 2.0.11.

    python experiments/benchmarks/coco_ap.py
    python experiments/benchmarks/coco_ap.py --masks --images 1000

5,000 images, 80 classes, 36,335 objects (as many as val2017 has) and 100 detections of each image.
In each round the two take turns on the same arrays, already loaded: pycocotools evaluates and
accumulates. A ratio is the median over rounds of (its time / ours in the same round), above 1 where
ours is faster. The twelve numbers are compared, too. pycocotools is installed to build/coco.
"""

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mmjax.data import rle
from mmjax.evals.metrics.coco_ap import Detections, Truths, coco_ap

PEER, FOLDER = "pycocotools==2.0.11", Path(__file__).parents[2] / "build" / "coco"
CLASSES, OBJECTS, FOUND, WIDTH, HEIGHT = 80, 7.267, 100, 640, 480


def drawn(images, masks):
    """Objects, and detections that are every second time an object moved a little."""
    rng = np.random.default_rng(0)
    size = np.asarray([WIDTH, HEIGHT] * 2)

    def boxes(n):
        low, side = rng.uniform(0, 0.8, (n, 2)), np.exp(rng.uniform(-4, -0.5, (n, 2)))
        return np.concatenate([low, np.minimum(low + side, 1)], 1) * size

    def ellipses(boxes):
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        around = np.stack([np.cos(angle), np.sin(angle)], 1)
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        outlines = middle[:, None] + half[:, None] * around
        return [rle.from_polygon(outline.ravel(), HEIGHT, WIDTH) for outline in outlines]

    count = round(OBJECTS * images)
    popularity = rng.dirichlet(np.full(CLASSES, 0.5))
    truth = boxes(count)
    sides = truth[:, 2:] - truth[:, :2]
    truths = Truths(
        np.sort(rng.integers(0, images, count)),
        rng.choice(CLASSES, count, p=popularity),
        truth,
        sides[:, 0] * sides[:, 1] * 0.7,
        rng.random(count) < 0.01,
        ellipses(truth) if masks else None,
    )
    n = FOUND * images
    image = np.repeat(np.arange(images), FOUND)
    first = np.searchsorted(truths.image, np.arange(images + 1))
    number = np.diff(first)[image]
    near = (rng.random(n) < 0.5) & (number > 0)
    of = np.minimum(first[image] + (rng.random(n) * number).astype(int), count - 1)
    moved = truth[of] + rng.normal(0, 8, (n, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 2)
    box = np.where(near[:, None], moved, boxes(n)).clip(0, size)
    label = np.where(near, truths.label[of], rng.integers(0, CLASSES, n))
    found = Detections(image, label, rng.random(n), box, ellipses(box) if masks else None)
    return truths, found


def peer(truths, found, images):
    """A function that evaluates by pycocotools and returns the twelve numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def records(arrays, **columns):
        wide = np.concatenate([arrays.boxes[:, :2], arrays.boxes[:, 2:] - arrays.boxes[:, :2]], 1)
        made = []
        for i, box in enumerate(wide.tolist()):
            made.append(
                {"id": i + 1, "image_id": int(arrays.image[i]), "category_id": int(arrays.label[i])}
                | {name: column[i].item() for name, column in columns.items()}
            )
            if arrays.masks is None or "area" in columns:
                made[-1]["bbox"] = box
            if arrays.masks is not None:
                counts = rle.to_string(arrays.masks[i])
                made[-1]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
        return made

    objects = records(truths, area=truths.area, iscrowd=truths.crowd.astype(int))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(images)],
            "annotations": objects,
            "categories": [{"id": i, "name": str(i)} for i in range(CLASSES)],
        }
        coco.createIndex()
        results = coco.loadRes(records(found, score=found.score))

    def evaluate():
        with contextlib.redirect_stdout(io.StringIO()):
            kind = "bbox" if truths.masks is None else "segm"
            evaluation = COCOeval(coco, results, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    return evaluate


def main():
    """Print the times, their ratio and the largest difference of a number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--masks", action="store_true", help="of masks instead of boxes")
    args = parser.parse_args()
    if not FOLDER.exists():
        install = ["pip", "install", "-q", "--no-deps", "--target", FOLDER, PEER]
        subprocess.run([sys.executable, "-m", *install], check=True)
    sys.path.append(str(FOLDER))
    truths, found = drawn(args.images, args.masks)
    theirs = peer(truths, found, args.images)
    ours_times, their_times, difference = [], [], 0.0
    for _ in range(args.rounds):
        start = time.perf_counter()
        mine = np.asarray(list(coco_ap(truths, found, CLASSES).values()))
        middle = time.perf_counter()
        other = theirs()
        their_times.append(time.perf_counter() - middle)
        ours_times.append(middle - start)
        difference = max(difference, np.abs(np.nan_to_num(mine, nan=-1) - other).max())
    ratios = [b / a for a, b in zip(ours_times, their_times)]
    print(
        f"{args.images:,} images, {len(found.score):,} detections, "
        f"{'masks' if args.masks else 'boxes'}, {args.rounds} rounds\n"
        f"  ours        {statistics.median(ours_times):6.1f} s\n"
        f"  pycocotools {statistics.median(their_times):6.1f} s, {statistics.median(ratios):.1f}x "
        f"({min(ratios):.1f} to {max(ratios):.1f}); largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
