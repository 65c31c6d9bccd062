"""Make coco.json: masks and average precision by pycocotools, and LVIS's by its own code.

    python tests/golden/make_coco.py

Made with pycocotools 2.0.11, lvis 0.5.3 and NumPy 2.4. Ids count from 1: an object of id 0 never
counts as matched there.
"""

import contextlib
import io
import json
import logging
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
from pycocotools import mask as cocomask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# What draws needs OpenCV and matplotlib, and is not used here.
sys.modules["lvis.vis"] = types.SimpleNamespace(LVISVis=None)
np.float = float  # a name that NumPy no longer has
from lvis import LVIS, LVISEval, LVISResults  # noqa: E402

SIDE = 120
LVIS_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR@")


def mask_cases(rng):
    """Polygons and bitmaps with their RLE, area, box, unions and overlaps."""
    cases = []
    for case in range(24):
        height, width = rng.integers(1, 40, 2).tolist()
        polygons = []
        for _ in range(3):
            points = rng.uniform(-5, 45, 2 * rng.integers(3, 10))
            points = np.round(points, int(rng.integers(0, 3)))
            if case % 4 == 0:
                points[2:4] = points[:2]  # the same point twice
            polygons.append(points.tolist())
        density = rng.choice([0.0, 0.05, 0.5, 0.95, 1.0])
        bitmap = (rng.random((height, width)) < density).astype(np.uint8)
        if case % 3 == 0:
            bitmap[:, width // 2 :] = 1
        rles = cocomask.frPyObjects(polygons, height, width)
        rles.append(cocomask.encode(np.asfortranarray(bitmap)))
        crowd = [0, 1, 0, 1]
        cases.append(
            {
                "size": [height, width],
                "polygons": polygons,
                "bitmap": bitmap.tolist(),
                "counts": [rle["counts"].decode() for rle in rles],
                "area": cocomask.area(rles).tolist(),
                "box": cocomask.toBbox(rles).tolist(),
                "union": cocomask.merge(rles)["counts"].decode(),
                "common": cocomask.merge(rles[:2], intersect=True)["counts"].decode(),
                "iou": cocomask.iou(rles, rles, crowd).tolist(),
                "crowd": crowd,
            }
        )
    return cases


def ap_case(rng, kind):
    """Objects and detections of a few images, and COCO's twelve numbers."""
    images, classes = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    count = int(rng.integers(1, 25))

    def boxes(n):
        corner, side = rng.uniform(0, 0.6 * SIDE, (n, 2)), rng.uniform(3, SIDE, (n, 2))
        low, high = corner, np.minimum(corner + side, SIDE)
        return np.round(np.concatenate([low, high - low], 1), 1)

    truth = boxes(count)
    area = truth[:, 2] * truth[:, 3] * rng.choice([1.0, 0.5], count)
    area[rng.random(count) < 0.2] = 32**2
    annotations = [
        {
            "id": i + 1,
            "image_id": int(rng.integers(images)),
            "category_id": int(rng.integers(classes)),
            "bbox": truth[i].tolist(),
            "area": float(area[i]),
            "iscrowd": int(rng.random() < 0.15),
        }
        for i in range(count)
    ]
    results = []
    for _ in range(int(rng.integers(0, 60 if kind == "bbox" else 25))):
        near = annotations[rng.integers(count)]
        shifted = np.asarray(near["bbox"]) + rng.normal(0, 4, 4)
        shifted[2:] = np.maximum(shifted[2:], 2)
        results.append(
            {
                "image_id": near["image_id"] if rng.random() < 0.8 else int(rng.integers(images)),
                "category_id": near["category_id"],
                "bbox": np.round(shifted, 1).tolist(),
                "score": round(float(rng.random()), 1),
            }
        )
    if kind == "segm":
        for record in annotations + results:
            x, y, w, h = record["bbox"]
            angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            outline = np.stack(
                [x + w / 2 * (1 + np.cos(angle)), y + h / 2 * (1 + np.sin(angle))], 1
            )
            (rle,) = cocomask.frPyObjects([np.round(outline, 1).ravel().tolist()], SIDE, SIDE)
            record["segmentation"] = {"size": [SIDE, SIDE], "counts": rle["counts"].decode()}
        for record in results:  # with both, the area is that of the box
            del record["bbox"]
    data = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in range(classes)],
    }
    given = json.loads(json.dumps({"data": data, "results": results}))  # pycocotools changes them
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind) if results else None
        if evaluation is None:
            return None
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"kind": kind, **given, "stats": evaluation.stats.tolist()}


def lvis_case(rng, limit):
    """A case of boxes with classes known not to be in an image, and LVIS's numbers."""
    given = ap_case(rng, "bbox")
    data, results = given["data"], given["results"]
    pairs = {(a["image_id"], a["category_id"]) for a in data["annotations"]}
    for record in data["annotations"]:
        record |= {"iscrowd": 0, "segmentation": []}
    classes = range(len(data["categories"]))
    for image in data["images"]:
        there = [k for k in classes if (image["id"], k) in pairs]
        image["not_exhaustive_category_ids"] = [k for k in there if rng.random() < 0.3]
        image["neg_category_ids"] = [k for k in classes if k not in there and rng.random() < 0.5]
    for category in data["categories"]:
        category |= {"frequency": str(rng.choice(list("rcf"))), "image_count": 1}
        category["instance_count"] = 1
    kept = json.loads(json.dumps({"data": data, "results": results}))
    with tempfile.NamedTemporaryFile("w") as file:
        json.dump(data, file)
        file.flush()
        truth = LVIS(file.name)
    evaluation = LVISEval(truth, LVISResults(truth, results, max_dets=limit), "bbox")
    evaluation.params.max_dets = limit
    evaluation.run()
    found = evaluation.get_results()
    stats = [found[f"AR@{limit}" if name == "AR@" else name] for name in LVIS_NAMES]
    return {"kind": "bbox", "limit": limit, **kept, "stats": [float(x) for x in stats]}


def main():
    """Write the file."""
    logging.disable(logging.ERROR)
    rng = np.random.default_rng(0)
    cases = [ap_case(rng, kind) for kind in ("bbox", "segm") for _ in range(6)]
    found = {"masks": mask_cases(rng), "ap": [case for case in cases if case]}
    found["lvis"] = [lvis_case(rng, limit) for limit in (10, 20, 300, 300)]
    path = Path(__file__).parent / "coco.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
