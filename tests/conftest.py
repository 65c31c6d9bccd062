"""Every test runs on 8 fake CPU devices, with strict dtypes and rank promotion an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile many tiny programs: a short compile beats a fast program. Without fusion emitters a
# step of CLIP compiles in a third of the time, and sums are rounded otherwise on another mesh.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
    ]
)
# Share the compile cache with later runs, and with the processes that tests start.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.expanduser("~/.cache/mmjax/test-xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import gc
import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Modules whose shape and dtype annotations are checked at every call.
CHECKED = [
    "mmjax.losses",
    "mmjax.sample",
    "mmjax.evals.metrics",
    "mmjax.decode.logits",
    "mmjax.decode.timestamps",
    "mmjax.decode.top_k",
]
install_import_hook(CHECKED, "typecheck.check")

# Tracing makes many small objects: collect garbage less often.
gc.set_threshold(10_000, 10, 10)

# A busy machine is slow, and no test asserts a time.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


SLOW = frozenset((Path(__file__).parent / "slow.txt").read_text().splitlines())


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items):
    """Run files that start whole commands first: a long one at the end would leave a core idle."""
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker("slow")
    items.sort(key=lambda item: not hasattr(item.module, "commands"))


def pytest_collection_finish():
    gc.freeze()  # the modules are never freed


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """Let pytest clean up the temporary files of libraries and commands, too.

    TFDS, for one, makes a folder for every builder of a set that is not built yet.
    """
    folder = str(tmp_path_factory.mktemp("t"))
    os.environ["TMPDIR"] = tempfile.tempdir = folder
