#!/usr/bin/env bash
# jax: NaN times a false boolean mask is 0 in float32 and float16, and NaN in bfloat16.
#
# Versions: jax 0.10.2, jaxlib 0.10.2 (CPU), numpy 2.4.6, Python 3.11.
#
# `loss * mask` is expected to keep a NaN whatever the mask is, as in NumPy and with a mask of numbers, so
# that a masked row's NaN is seen at once.
#
# Seen: [nan, 1] * [False, True] is [0, 1] in float32 and float16 with a boolean mask, eagerly and under jit
# (infinity becomes 0 too); in bfloat16 it is [nan, 1], and with the mask as float32 [nan, 1]. So a model that
# trains in float32 has a NaN loss in bfloat16. The gradient of log(x) * mask at 0 is NaN in every dtype: the
# float32 loss is finite and its gradient is not.
#
# What to do: choose valid inputs before the operation, jnp.where(mask, x, 1), and not its result after it.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np

mask = jnp.array([False, True])
seen, gradient = {}, {}
for dtype in ("float32", "float16", "bfloat16"):
    x = jnp.array([jnp.nan, 1.0]).astype(dtype)
    found = {
        "bool": x * mask,
        "jit": jax.jit(jnp.multiply)(x, mask),
        "number": x * mask.astype(dtype),
    }
    seen |= {(dtype, k): bool(jnp.isnan(v[0])) for k, v in found.items()}

    def loss(x):
        return (jnp.log(x) * mask).astype(jnp.float32).sum()

    slope = jax.grad(loss)(jnp.array([0.0, 1.0]).astype(dtype))
    gradient[dtype] = bool(jnp.isnan(slope[0]))
    print(dtype, {k: v.tolist() for k, v in found.items()}, "gradient", slope.tolist())
in_numpy = np.isnan(np.array([np.nan], np.float32) * np.array([False]))[0]
ok = all(seen[d, "bool"] == seen[d, "jit"] == (d == "bfloat16") for d in gradient)
ok &= all(seen[d, "number"] for d in gradient) and all(gradient.values()) and in_numpy
sys.exit(0 if ok else 1)
PY
