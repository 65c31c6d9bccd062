"""The most memory that this process needed, of which libraries' own allocations are a part."""

import re
from pathlib import Path


def peak() -> int:
    """The most memory in bytes that the process had resident since `reset_peak`."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def reset_peak() -> None:
    """Begin to measure the peak anew, from the memory that is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
