#!/usr/bin/env bash
# A misspelled logical axis replicates a parameter on all devices, without a word from Flax.
#
# Versions: flax 0.12.8, jax 0.10.2, numpy 2.4.6, Python 3.11.
#
# Flax names the axes of a parameter, and rules map those names to axes of the mesh. A name without a rule is most
# often a mistake, since an axis that is to stay whole has a rule with None, so one expects an error, as from
# jax.sharding for an unknown axis of the mesh.
#
# Seen: with_logical_partitioning, get_partition_spec and logical_to_mesh_sharding accept the name "mpl" for "mlp"; the spec
# becomes PartitionSpec(None, None), and each of 8 devices holds the whole kernel instead of an eighth. Nothing is printed:
# the first sign is memory that does not fit.
#
# What to do: compare the names of all boxed parameters with those of the rules before initialization.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 \
    numpy==2.4.6
cd "$folder"
XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W error - <<'PY'
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp

mesh = jax.make_mesh((8,), ("tensor",))
rules = (("embed", None), ("mlp", "tensor"))


def placed(name):
    """(elements of the kernel on one device, its PartitionSpec)."""
    init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", name))
    dense = nn.Dense(64, kernel_init=init, use_bias=False)
    boxed = jax.eval_shape(dense.init, jax.random.key(0), jnp.ones((1, 16)))
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, rules)
    make = jax.jit(lambda key: nn.unbox(dense.init(key, jnp.ones((1, 16)))), out_shardings=nn.unbox(shardings))
    kernel = make(jax.random.key(0))["params"]["kernel"]
    return kernel.addressable_shards[0].data.size, kernel.sharding.spec


for name in ("mlp", "mpl"):
    print(name, *placed(name))
sys.exit(0 if placed("mlp")[0] == 128 and placed("mpl")[0] == 1024 else 1)
PY
