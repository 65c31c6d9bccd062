#!/usr/bin/env bash
# ROUGE-L of the COCO caption code is 1 for a caption that equals none of its references.
#
# Versions: pycocoevalcap 1.2, pycocotools 2.0.11, numpy 2.4.6, Python 3.11.
#
# With several references a score is expected to be that of the best one: the largest F of precision and recall.
#
# Seen: the largest precision and the largest recall are taken each over all references, and F is made of the two. "a
# dog" against "dog" is 0.709 and against "a dog runs fast in the park" 0.404; against both it is 1.0, precision from
# the long one and recall from the short one. A short and a long reference together reward short captions, and the
# number is not comparable with other implementations of ROUGE-L.
#
# What to do: compare ROUGE-L only with scores of this code, and look at CIDEr beside it.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pycocoevalcap==1.2 pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

from pycocoevalcap.rouge.rouge import Rouge

caption, long, short = "a dog", "a dog runs fast in the park", "dog"
found = {}
for references in ([long], [short], [long, short], [caption]):
    score, _ = Rouge().compute_score({1: references}, {1: [caption]})
    print(f"'{caption}' against {references}: {score:.3f}")
    found[len(references), references[0]] = round(float(score), 3)
sys.exit(0 if list(found.values()) == [0.404, 0.709, 1.0, 1.0] else 1)
PY
