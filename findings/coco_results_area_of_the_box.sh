#!/usr/bin/env bash
# pycocotools: results with a box beside their mask get the area of the box, and change AP by size.
#
# Versions: pycocotools 2.0.11, numpy 2.4.6, Python 3.11.
#
# A result's area, by which AP of small, medium and large objects sorts out detections, is expected to be that
# of its mask where it has one: so it is for annotations, and for results with a mask alone.
#
# Seen: a diagonal line of 100 pixels has the area 100 from {"segmentation": ...}, and 10000 as soon as the
# same result also has "bbox", which models that predict both write. A small object is found, and a wrong
# detection has a higher score: AP of small objects is 0.5. With boxes in the results it is 1.0, as the wrong
# detection is now a large one and left out.
#
# What to do: leave bbox out of the results when masks are evaluated.
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

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def encoded(pixels):
    return mask.encode(np.asfortranarray(pixels.astype(np.uint8)))


line, wrong = np.eye(100), np.eye(100)[::-1]


def evaluated(**box):
    """(areas of the results, AP of small objects)."""
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "line"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 100.0}
            | {"segmentation": encoded(line), "bbox": [0, 0, 100, 100]}
        ],
    }
    found = [
        {"image_id": 1, "category_id": 1, "score": score, "segmentation": encoded(pixels), **box}
        for pixels, score in ((wrong, 0.9), (line, 0.8))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(found)
        scores = COCOeval(truth, results, "segm")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    seen = [int(a["area"]) for a in results.dataset["annotations"]], round(float(scores.stats[3]), 3)
    print(f"{', '.join(box) or 'no box'}: areas {seen[0]}, AP of small objects {seen[1]}")
    return seen


without, beside = evaluated(), evaluated(bbox=[0, 0, 100, 100])
sys.exit(0 if without == ([100, 100], 0.5) and beside == ([10000, 10000], 1.0) else 1)
PY
