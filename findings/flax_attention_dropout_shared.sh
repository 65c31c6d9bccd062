#!/usr/bin/env bash
# Flax drops the same attention weights in every example of a batch and in every head.
#
# Versions: flax 0.12.8, jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6, Python 3.11.
#
# Dropout is expected to draw for each weight on its own, as the attention layers of PyTorch do, and as Flax's own
# Dropout layer does.
#
# Seen: broadcast_dropout is True by default in MultiHeadDotProductAttention of Linen and MultiHeadAttention of NNX:
# one mask of [queries, keys] is drawn for the whole batch and all heads. Four equal rows in training mode give four
# equal outputs, so that the noise of the gradient does not average out over the batch; with dropout 0.5 a question's
# token may be cut off from an image token in all examples at once. With broadcast_dropout=False the rows differ.
#
# What to do: broadcast_dropout=False where recipes with a dropout of attention weights are reproduced.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

x = jnp.tile(jax.random.normal(jax.random.key(0), (1, 5, 8)), (4, 1, 1))


def of_linen(**options):
    layer = nn.MultiHeadDotProductAttention(num_heads=4, dropout_rate=0.5, deterministic=False, **options)
    keys = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
    return layer.init_with_output(keys, x)[0]


def of_nnx(**options):
    streams = nnx.Rngs(params=1, dropout=2)
    layer = nnx.MultiHeadAttention(4, 8, dropout_rate=0.5, deterministic=False, decode=False, rngs=streams, **options)
    return layer(x)


found = []
for name, layer in (("linen", of_linen), ("nnx", of_nnx)):
    shared, own = (float(np.ptp(np.asarray(y), axis=0).max()) for y in (layer(), layer(broadcast_dropout=False)))
    print(f"{name}: four equal rows differ by {shared}; with broadcast_dropout=False by {own:.3f}")
    found.append(shared == 0 and own > 0.01)
plain = nn.Dropout(0.5, deterministic=False).apply({}, jnp.ones((4, 5, 8)), rngs={"dropout": jax.random.key(0)})
sys.exit(0 if all(found) and np.ptp(np.asarray(plain), axis=0).max() > 0 else 1)
PY
