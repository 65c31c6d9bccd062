"""The process that starts anew for its allocator: what it keeps, and when it does not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmjax.process import runtime

ROOT = Path(__file__).parents[2]

# Says at every start who it is, then what came by stdin after the last one.
PROGRAM = """
import os, sys
from mmjax.process import runtime
runtime._huge_pages_on_request = lambda: True  # whatever the machine that tests has
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
runtime.use_huge_pages()
print("stdin:", sys.stdin.read())
sys.exit(3)
"""
HUGE = "glibc.malloc.hugetlb=1"


def run(*args, stdin="", **variables):
    """(exit code, pid, lines of stdout) of `python ARGS`."""
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])} | variables
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, *args], stdin=pipe, stdout=pipe, text=True, env=environment
    )
    stdout, _ = process.communicate(stdin, timeout=60)
    return process.returncode, process.pid, stdout.splitlines()


@pytest.mark.parametrize("form", ["module", "file", "code"])
def test_it_starts_anew_once_with_all_that_it_was_given(form, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = {
        "module": ("-m", "program"),
        "file": (str(tmp_path / "program.py"),),
        "code": ("-c", PROGRAM),
    }[form]
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    code, pid, lines = run(*words, "a b", "--c=*", stdin="words", PYTHONPATH=path)
    arguments = ["a b", "--c=*"]
    assert lines == [f"{pid} None {arguments}", f"{pid} {HUGE} {arguments}", "stdin: words"]
    assert code == 3


@pytest.mark.parametrize(
    "variables", [{"GLIBC_TUNABLES": "glibc.malloc.check=0"}, {"MMJAX_STOCK_ALLOCATOR": "1"}]
)
def test_the_users_environment_wins(variables):
    code, pid, lines = run("-c", PROGRAM, **variables)
    assert lines == [f"{pid} {variables.get('GLIBC_TUNABLES')} []", "stdin: "]
    assert code == 3


def test_it_goes_on_where_jax_is_there_or_the_program_cannot_be_read_again():
    imported = "import sys; sys.modules['jax'] = None\n"
    assert len(run("-c", imported + PROGRAM)[2]) == 2
    for words in ((), ("-",)):
        assert len(run(*words, stdin=PROGRAM)[2]) == 2


def test_a_signal_reaches_the_run():
    code = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
signal.pause()
"""
    started = PROGRAM.partition("print")[0] + "runtime.use_huge_pages()\n" + code
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", started],
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 7


@pytest.mark.parametrize(
    ("library", "kernel", "wanted"),
    [
        ("glibc 2.35", "always [madvise] never", True),
        ("glibc 2.100", "always [madvise] never", True),
        ("glibc 3.0", "always [madvise] never", True),
        ("glibc 2.34", "always [madvise] never", False),
        ("musl 2.36", "always [madvise] never", False),
        ("glibc 2.36", "[always] madvise never", False),
        ("glibc 2.36", "always madvise [never]", False),
        (None, "always [madvise] never", False),
        ("glibc 2.36", None, False),
    ],
)
def test_which_machines_have_the_setting(library, kernel, wanted, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "confstr", lambda name: library)
    monkeypatch.setattr(runtime, "_THP", tmp_path / "enabled")
    if kernel is not None:
        (tmp_path / "enabled").write_text(kernel + "\n")
    assert runtime._huge_pages_on_request() == wanted


@pytest.mark.skipif(not runtime._huge_pages_on_request(), reason="neither this kernel nor glibc")
def test_large_blocks_are_marked_for_huge_pages():
    code = """
from mmjax.process import runtime
runtime.use_huge_pages()
import ctypes, re
block = ctypes.create_string_buffer(2**26)
at = ctypes.addressof(block)
for line in open("/proc/self/smaps"):
    if found := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
        inside = int(found[1], 16) <= at < int(found[2], 16)
    elif inside and line.startswith("VmFlags"):
        print("hg" in line.split())
"""
    assert run("-c", code)[2] == ["True"]
    assert run("-c", code, MMJAX_STOCK_ALLOCATOR="1")[2] == ["False"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_is_released():
    code = """
from mmjax.process import runtime

def resident():
    (line,) = (x for x in open("/proc/self/status") if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

blocks = [bytes([1]) * 100_000 for _ in range(2000)]  # in the heap, too small for a map each
last = bytes(100_000)  # keeps the end of the heap
del blocks
before = resident()
runtime.release_freed_memory()
print(before - resident() > 100)
"""
    assert run("-c", code, MMJAX_STOCK_ALLOCATOR="1")[2] == ["True"]
