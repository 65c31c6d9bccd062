#!/usr/bin/env bash
# optax: AdamW under inject_hyperparams gives NaN at the first step where all parameters are bfloat16.
#
# Versions: optax 0.2.8, jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6, Python 3.11.
#
# inject_hyperparams is the known way to log or to change the learning rate of a run. It is expected to compute what
# the optimizer that it wraps computes.
#
# Seen: it keeps every hyperparameter as an array of the parameters' dtype (the highest among them). In bfloat16 b2 =
# 0.999 is 1, so the second moment stays 0, its bias correction divides 0 by 0, and all updates are NaN. b1 = 0.9 is
# 0.8984, and the learning rate has three digits. AdamW alone is right: its numbers are Python's. One float32 leaf
# anywhere in the tree (a scale, a bias) makes the dtype float32 and the NaN go away.
#
# What to do: inject_hyperparams(..., hyperparam_dtype=jnp.float32).
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import jax.numpy as jnp
import numpy as np
import optax


def first_update(optimizer, params):
    state = optimizer.init(params)
    updates, state = optimizer.update(params, state, params)
    return np.asarray(updates["kernel"], np.float32), state


half = {"kernel": jnp.full(2, 0.5, jnp.bfloat16)}
mixed = half | {"scale": jnp.ones(2)}
injected = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3)
in_float32 = optax.inject_hyperparams(optax.adamw, hyperparam_dtype=jnp.float32)(learning_rate=1e-3)
plain, _ = first_update(optax.adamw(1e-3), half)
nan, state = first_update(injected, half)
print(f"adamw {plain}; injected {nan}, with b1 {state.hyperparams['b1']} and b2 {state.hyperparams['b2']}")
right = [first_update(injected, mixed)[0], first_update(in_float32, half)[0]]
print(f"with a float32 leaf {right[0]}; with hyperparam_dtype {right[1]}")
close = all(np.allclose(x, -1e-3, rtol=0.01) for x in (plain, *right))
sys.exit(0 if close and np.isnan(nan).all() and state.hyperparams["b2"] == 1 else 1)
PY
