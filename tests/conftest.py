"""Every test runs on 8 fake CPU devices, with strict dtypes and rank promotion an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile many tiny programs: a short compile beats a fast program.
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/mmjax/test-xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
