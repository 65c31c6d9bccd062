#!/usr/bin/env bash
# optax's Muon trains no attention matrix of Flax: they have three axes, and Adam takes them.
#
# Versions: optax 0.2.8, flax 0.12.8, jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6, Python 3.11.
#
# Muon (Jordan et al. 2024) is for the matrices inside a transformer, attention and MLP alike; embeddings are left to
# Adam. optax.contrib.muon documents that it takes parameters with two axes.
#
# Seen: the kernels of MultiHeadDotProductAttention are matrices by meaning and [width, heads, head] or [heads, head,
# width] by shape, so query, key, value and output go to Adam. Their biases, [heads, head], and an embedding, [tokens,
# width], have two axes and get Muon. The split is the reverse of the intended one for all of these, nothing says so,
# and a comparison of Muon with Adam compares the MLPs.
#
# What to do: muon_weight_dimension_numbers, with MuonDimensionNumbers((0,), (1, 2)) for query, key and value,
# ((0, 1), (2,)) for the output and None for embeddings.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    optax==0.2.8 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from optax import contrib


class Block(nn.Module):
    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(10, 8, name="embedding")(ids)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(x)
        return x + nn.Dense(8, name="mlp")(x)


def taken(optimizer, params):
    """By rule, the parameters for which it keeps a moment."""
    inner = optimizer.init(params).inner_states
    found = {}
    for rule in ("muon", "adam"):
        moments = traverse_util.flatten_dict(inner[rule].inner_state[0].mu, sep="/")
        found[rule] = {name for name, value in moments.items() if hasattr(value, "shape")}
    return found


def axes(params):
    """As the paper has it: attention and MLP, no embedding."""
    flat = {path: None for path in traverse_util.flatten_dict(params)}
    last = contrib.MuonDimensionNumbers((0, 1), (2,))
    first = contrib.MuonDimensionNumbers((0,), (1, 2))
    for name in ("query", "key", "value"):
        flat["attention", name, "kernel"] = first
    flat["attention", "out", "kernel"] = last
    flat["mlp", "kernel"] = contrib.MuonDimensionNumbers((0,), (1,))
    return traverse_util.unflatten_dict(flat)


params = Block().init(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))["params"]
default = taken(contrib.muon(1e-3), params)
told = taken(contrib.muon(1e-3, muon_weight_dimension_numbers=axes), params)
print(f"by default: {sorted(default['muon'])}; told the axes: {sorted(told['muon'])}")
kernels = {f"attention/{name}/kernel" for name in ("query", "key", "value", "out")}
biases = {f"attention/{name}/bias" for name in ("query", "key", "value")}
wrong = default["muon"] == {"mlp/kernel", "embedding/embedding", *biases} and kernels <= default["adam"]
sys.exit(0 if wrong and told["muon"] == {*kernels, "mlp/kernel"} else 1)
PY
