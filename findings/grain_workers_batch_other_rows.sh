#!/usr/bin/env bash
# grain: the number of worker processes changes which rows are batched together, and how many are dropped.
#
# Versions: grain 0.2.18, numpy 2.4.6, Python 3.11.
#
# mp_prefetch is expected to move work to other processes and to leave the elements and their order as
# they are: its workers' results are interleaved again in order, and batch comes before it.
#
# Seen: the slice w, w + W, w + 2W, ... that each of W workers gets is taken of the dataset's beginning,
# not of its batches. range(10) in an IterDataset in batches of 2 gives [0 1] [2 3] ... without workers and
# [0 2] [1 3] [4 6] [5 7] [8] [9] with two: other batches, partial ones in the middle, 6 of them instead
# of 5, and with drop_remainder=True two rows of ten are lost that were a whole batch. A run that resumes
# with another number of workers continues on other batches. Batches made in the MapDataset
# (range(10).batch(2).to_iter_dataset()) stay as they are. The docstring warns of "many-to-one
# transformations (such as filter)"; that batch is one of them is not said.
#
# What to do: batch before to_iter_dataset, or after mp_prefetch.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18 numpy==2.4.6
cd "$folder"
cat > rows.py <<'PY'
import sys

import grain
from absl import flags


def batches(workers, *, on_map=False, drop=False):
    rows = grain.MapDataset.range(10)
    if on_map:
        made = rows.batch(2, drop_remainder=drop).to_iter_dataset()
    else:
        made = rows.to_iter_dataset().batch(2, drop_remainder=drop)
    if workers:
        made = made.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    found = [batch.tolist() for batch in made]
    print(f"{workers} workers, on_map={on_map}, drop_remainder={drop}: {found}")
    return found


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()  # mp_prefetch reads absl's flags
    pairs = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    ok = batches(0) == pairs
    ok &= batches(2) == [[0, 2], [1, 3], [4, 6], [5, 7], [8], [9]]
    ok &= batches(2, drop=True) == [[0, 2], [1, 3], [4, 6], [5, 7]]
    ok &= batches(2, on_map=True) == pairs
    sys.exit(0 if ok else 1)
PY
"$folder/venv/bin/python" rows.py
