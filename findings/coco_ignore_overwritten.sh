#!/usr/bin/env bash
# pycocotools overwrites "ignore": a region to leave out counts as an object that was missed.
#
# Versions: pycocotools 2.0.11, numpy 2.4.6, Python 3.11.
#
# Ground truth may have regions that are neither to be found nor to be counted as wrong. The evaluator works with an
# annotation's "ignore" and reads it where the file has one, so one expects {"ignore": 1} to leave the box out.
#
# Seen: the line after the one that reads "ignore" sets it from "iscrowd". Of two boxes, one of them with "ignore": 1,
# a detector that finds the other one has AP 0.505 and AR 0.5, as without the key; with that box not in the file it has
# 1.0 and 1.0, and with "iscrowd": 1 as well. Converters that write "ignore" for difficult or occluded objects
# lower every score without a warning.
#
# What to do: remove such annotations, or write "iscrowd": 1, by which detections inside them are left out too.
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


def scores(*annotations):
    """AP and AR of a detector that finds the first box."""
    truth = COCO()
    truth.dataset = {"images": [{"id": 1, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "object"}]}
    box = {"image_id": 1, "category_id": 1, "area": 400, "iscrowd": 0}
    truth.dataset["annotations"] = [box | {"id": i} | x for i, x in enumerate(annotations, 1)]
    truth.createIndex()
    found = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": annotations[0]["bbox"], "score": 0.9}])
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return round(float(evaluation.stats[0]), 3), round(float(evaluation.stats[8]), 3)


first, second = {"bbox": [10, 10, 20, 20]}, {"bbox": [60, 60, 20, 20]}
with contextlib.redirect_stdout(io.StringIO()):
    found = {
        "both boxes": scores(first, second),
        "the second with ignore": scores(first, second | {"ignore": 1}),
        "the second with iscrowd": scores(first, second | {"iscrowd": 1}),
        "the first alone": scores(first),
    }
for name, (precision, recall) in found.items():
    print(f"{name}: AP {precision}, AR {recall}")
sys.exit(0 if list(found.values()) == [(0.505, 0.5), (0.505, 0.5), (1.0, 1.0), (1.0, 1.0)] else 1)
PY
