#!/usr/bin/env bash
# The standard deviation of clu fails with JAX 0.10: it is the one metric that passes a removed argument.
#
# Versions: clu 0.0.12 (the newest), jax 0.10.2, flax 0.12.8, numpy 2.4.6, Python 3.11.
#
# pip installs both together without a complaint, `import clu.metrics` works, and so do all other metrics; a training
# loop finds out at the end of its first evaluation.
#
# Seen: `Std.compute` calls jnp.clip(x, a_min=0.0). JAX has removed `a_min` and `a_max` in favor of `min` and `max`:
# TypeError: clip() got an unexpected keyword argument 'a_min'. `Average` of the same values works.
#
# What to do: take the standard deviation of the per-example values by NumPy.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check clu==0.0.12 jax==0.10.2 jaxlib==0.10.2 \
    flax==0.12.8 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import jax.numpy as jnp
from clu import metrics

values = jnp.arange(4.0)
mean = float(metrics.Average.from_model_output(values).compute())
deviation = metrics.Std.from_model_output(values)
try:
    found = str(deviation.compute())
except TypeError as error:
    found = str(error)
print(f"Average: {mean}; Std: {found}")
sys.exit(0 if mean == 1.5 and "unexpected keyword argument 'a_min'" in found else 1)
PY
