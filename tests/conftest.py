"""Every test runs on 8 fake CPU devices, with strict dtypes and rank promotion an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile many tiny programs: a short compile beats a fast program.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)

import hypothesis
import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/mmjax/test-xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# A busy machine is slow, and no test is about time.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
