#!/usr/bin/env bash
# clu: the average of losses that are all 1 is 0.26, if they are bfloat16.
#
# Versions: clu 0.0.12, jax 0.10.2, jaxlib 0.10.2, flax 0.12.8, numpy 2.4.6, Python 3.11.
#
# metrics.Average collects an evaluation: from_model_output for each batch, merge, compute. Models that compute in
# bfloat16 return such losses, and one expects a mean that is rounded to three digits.
#
# Seen: the total has the dtype of the values. Adding 8 (a batch of 8 ones) to 2,048 gives 2,048 in bfloat16, while
# the count, an int32, goes on: after 1,000 batches the mean is 0.256, after 4,000 it is 0.064. It looks like a model
# that gets better with a larger evaluation set. Values of float32 give 1.
#
# What to do: values.astype(jnp.float32) before from_model_output.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    clu==0.0.12 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import jax.numpy as jnp
from clu import metrics


def mean(dtype, batches):
    batch = metrics.Average.from_model_output(jnp.ones(8, dtype))
    found = metrics.Average.from_model_output(jnp.ones(8, dtype))
    for _ in range(batches - 1):
        found = found.merge(batch)
    print(f"{batches} batches of {jnp.dtype(dtype)}: total {found.total}, count {found.count}, mean {found.compute()}")
    return float(found.compute())


right = mean(jnp.float32, 1000) == 1.0
wrong = abs(mean(jnp.bfloat16, 1000) - 0.256) < 1e-3 and abs(mean(jnp.bfloat16, 4000) - 0.064) < 1e-3
sys.exit(0 if right and wrong else 1)
PY
