"""What has to be set in a process before jax is imported: the allocator and the compile cache."""

import ctypes
import os
import sys
from pathlib import Path


def prepare() -> None:
    """Call first in every command, before the first `import jax`.

    Environment variables that the user has set win over everything here.
    """
    _keep_freed_memory()
    cache = os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "mmjax" / "xla")
    )
    Path(cache).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's warnings, not its chatter


def _keep_freed_memory() -> None:
    """Make glibc keep freed pages.

    XLA on CPU allocates and frees its temporaries every step; giving them back to the kernel each
    time costs up to 1.45x in page faults. The price is a higher resident size.
    """
    if not sys.platform.startswith("linux") or os.environ.get("MMJAX_STOCK_ALLOCATOR"):
        return
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, -1)  # never
    mallopt(m_arena_max, 1)
    mallopt(m_top_pad, 2**28)
