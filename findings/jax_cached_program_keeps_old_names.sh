#!/usr/bin/env bash
# A program from JAX's compile cache has the names of the code that compiled it first, not of this code.
#
# Versions: jax 0.10.2 (jaxlib 0.10.2), Python 3.11, CPU.
#
# jax.named_scope, and the modules of Flax, leave names in each instruction's metadata. Profilers read them to say
# which part of a model the time went to.
#
# Seen: the key of the persistent compile cache leaves metadata out. Code in which only a scope was renamed gets the
# old program, whose as_text() (and so every trace) has the old names: after a refactoring the time is booked under
# modules that no longer exist. Nothing warns.
#
# What to do: for a run that is profiled, set jax_compilation_cache_include_metadata_in_key=True.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > run.py <<'PY'
import sys

import jax
import jax.numpy as jnp

scope, cache, in_key = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_compilation_cache_include_metadata_in_key", in_key == "yes")


def step(x):
    with jax.named_scope(scope):
        return x @ x + 1.25


text = jax.jit(step).lower(jnp.ones((64, 64))).compile().as_text()
print(" ".join(name for name in ("encoder", "decoder") if f"/{name}/" in text))
PY
export JAX_PLATFORMS=cpu
run() { "$folder/venv/bin/python" run.py "$@"; }
first=$(run encoder "$folder/a" no); second=$(run decoder "$folder/a" no)
run encoder "$folder/b" yes > /dev/null; with=$(run decoder "$folder/b" yes)
echo "compiled in the scope encoder: $first; then in the scope decoder: $second; with metadata in the key: $with"
[ "$first $second $with" = "encoder encoder decoder" ]
