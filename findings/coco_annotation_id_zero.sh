#!/usr/bin/env bash
# pycocotools: an annotation whose id is 0 is never found, so that a perfect detector scores 0.25.
#
# Versions: pycocotools 2.0.11, numpy 2.4.6, Python 3.11.
#
# Ids are expected to be labels of any value; image ids may be 0, and files numbered from 0 are common.
#
# Seen: two images with one box each, and detections equal to them. With annotation ids 1 and 2 AP and AR are
# 1.0; with 0 and 1 AP is 0.2525 and AR 0.5, without a warning: the matrix of matches holds the id of the
# annotation that a detection matched, and 0 there means no match, so that this detection also counts as a
# false positive.
#
# What to do: number annotations from 1 before evaluating; the ids in a file need not be kept.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import contextlib
import io
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOXES = ([10.0, 10.0, 50.0, 50.0], [100.0, 20.0, 40.0, 60.0])


def perfect(first):
    """(AP, AR) of detections equal to the annotations, whose ids begin with `first`."""
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "width": 200, "height": 200} for i in (0, 1)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": first + i, "image_id": i, "category_id": 1, "bbox": b, "area": b[2] * b[3]}
            | {"iscrowd": 0}
            for i, b in enumerate(BOXES)
        ],
    }
    found = [{"image_id": i, "category_id": 1, "bbox": b, "score": 0.9} for i, b in enumerate(BOXES)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        scores = COCOeval(truth, truth.loadRes(found), "bbox")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    ap, ar = float(scores.stats[0]), float(scores.stats[8])
    print(f"annotation ids from {first}: AP {ap:.4f}, AR {ar:.4f}")
    return round(ap, 4), round(ar, 4)


sys.exit(0 if perfect(1) == (1.0, 1.0) and perfect(0) == (0.2525, 0.5) else 1)
PY
