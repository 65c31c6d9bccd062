"""What must be set in a process before jax is imported: the allocator and the compile cache."""

import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path

_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def prepare() -> None:
    """Call first in every command, before the first `import jax`. It may restart the process.

    Environment variables that the user has set win over everything here.
    """
    use_huge_pages()
    cache = os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "mmjax" / "xla")
    )
    Path(cache).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of XLA's log only the errors


def use_huge_pages() -> None:
    """Let glibc's malloc ask for huge pages: replaces this process by itself, once.

    XLA on CPU allocates and frees its temporaries, gigabytes of them, in every step. In pages of
    4 KiB the page faults cost up to a quarter of a step; keeping freed memory in the heap instead
    fragments it to twice the size. glibc reads GLIBC_TUNABLES when a process starts, so this one
    executes itself again under the same pid, with the same arguments and open files.

    It does nothing where the user has set GLIBC_TUNABLES or MMJAX_STOCK_ALLOCATOR, where jax is
    imported already (a notebook, a test's server), and where the kernel or the C library has no
    such setting.
    """
    if "GLIBC_TUNABLES" in os.environ or os.environ.get("MMJAX_STOCK_ALLOCATOR"):
        return
    # A program that came by standard input cannot be read again.
    can_restart = sys.executable and sys.argv[0] not in ("", "-")
    if "jax" in sys.modules or not can_restart or not _huge_pages_on_request():
        return
    environment = os.environ | {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "MMJAX_STOCK_ALLOCATOR": "1",  # never a second time, even where GLIBC_TUNABLES is removed
    }
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def began() -> float:
    """When this process started, in seconds since the epoch; now, where Linux does not tell."""
    try:
        # The 22nd field; the 2nd may hold spaces and parentheses.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):
        age = 0.0
    return time.time() - age


def release_freed_memory() -> None:
    """Return the freed memory that malloc keeps to the kernel: after a compile that is a lot."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _huge_pages_on_request() -> bool:
    """Whether the kernel gives huge pages on request, and this glibc (2.35 or later) can request.

    A kernel that always gives them needs no request.
    """
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        major, minor = (int(n) for n in version.split(".")[:2])
        enabled = _THP.read_text()
    except (AttributeError, OSError, ValueError):  # another C library or kernel
        return False
    return name == "glibc" and (major, minor) >= (2, 35) and "[madvise]" in enabled
