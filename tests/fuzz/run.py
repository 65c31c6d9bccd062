"""Runs a fuzzed reader, with a bound on the time of an input and a watch on memory."""

import collections
import contextlib
import dis
import faulthandler
import math
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmjax.process.command import is_refusal
from tests.fuzz import media, records, runs, sets, texts, weights
from tests.fuzz.memory import peak, reset_peak
from tests.fuzz.reader import inputs

READERS = {
    **media.READERS,
    **sets.READERS,
    **records.READERS,
    **texts.READERS,
    **weights.READERS,
    **runs.READERS,
}
SECONDS = 2.0  # of the processor for an input, so that a busy machine makes none slow
# Seconds after which an input ends the process, if it waits or ignores the signal.
HANGS = 60.0
MEMORY_DISK = Path("/dev/shm")  # where there is one: most time would go to waiting for a disk
MEMORY = 2**30  # bytes above the idle process
MAPPED = 8 * 2**30  # bytes above the idle process, beyond which an allocation fails


class Fault(NamedTuple):
    """What an input did other than to be read or refused by one sentence of ours."""

    reader: str
    number: int
    what: str
    data: bytes


class Slow(BaseException):
    """The time of an input is over; no reader may catch it."""


def _over(number, frame) -> None:
    raise Slow("\n" + "".join(traceback.format_stack(frame)[-3:]))


def fault_of(read, data: bytes, seed, folder: Path, bound: float) -> str | None:
    """What is wrong with how a reader took an input; None if it was read or refused.

    A refusal is a ValueError that mmjax itself raises: one from inside a library, or from what our
    function calls, names neither the file nor what to do.
    """
    idle = peak() if reset_peak() is None else 0
    signal.setitimer(signal.ITIMER_PROF, bound)
    try:
        read(data, seed, folder)
    except Slow as slow:
        return f"took longer than {bound:g} s of the processor{slow}"
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        if not (is_refusal(error) and _raised(error)):
            last = traceback.extract_tb(error.__traceback__)[-3:]
            where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in last[::-1])
            return f"{type(error).__name__} at {where}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if peak() - idle > MEMORY:
        return f"needed {(peak() - idle) / 1e9:.1f} GB"
    return None


def _raised(error: Exception) -> bool:
    """Whether the function where an error comes from has a `raise` there."""
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries print of damaged files; ends the process where one hangs for good."""
    sys.stdout.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    before = signal.signal(signal.SIGPROF, _over)
    log = os.fdopen(os.dup(kept), "w")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    os.dup2(null, 2)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MAPPED, limits[1]))
        yield log
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, before)
        os.dup2(kept, 2)
        log.close()
        for one in (kept, null):
            os.close(one)


class Count(NamedTuple):
    """Of a reader: inputs, seconds of all and of the slowest, bytes above idle."""

    inputs: int
    seconds: float
    slowest: float
    memory: int


def fuzz(
    name: str,
    first: int = 0,
    count: int | None = None,
    seconds: float = math.inf,
    bound: float = SECONDS,
) -> tuple[Count, list[Fault]]:
    """Give a reader inputs until their count or the time is reached.

    Args:
      first: number of the first input.
      count: None: as many as fit the time.
      seconds: for all of them; bound: for one.
    """
    reader, faults, done, slowest, memory = READERS[name], [], 0, 0.0, 0
    folder = Path(
        tempfile.mkdtemp(prefix="fuzz", dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None)
    )
    began = time.monotonic()
    try:
        with _quiet() as log:
            seeds = reader.seeds(folder)
            valid = set()
            began, idle = time.monotonic(), peak() if reset_peak() is None else 0
            for number, data, seed in inputs(name, seeds, first):
                if done == count or time.monotonic() - began > seconds:
                    break
                if seed not in valid:  # which it must be
                    reader.read(seed.data, seed, folder)
                    valid.add(seed)
                start = time.process_time()
                faulthandler.dump_traceback_later(HANGS, exit=True, file=log)
                what = fault_of(reader.read, data, seed, folder, bound)
                slowest = max(slowest, time.process_time() - start)
                memory = max(memory, peak() - idle)
                done += 1
                if what is not None:
                    about = f" ({seed.about})" if isinstance(seed.about, str | Path) else ""
                    faults.append(Fault(name, number, what + about, data))
    finally:
        shutil.rmtree(folder)
    return Count(done, time.monotonic() - began, slowest, memory), faults


def summary(faults: list[Fault]) -> str:
    """The faults by what they are, with the number of an input that has each."""
    kinds: dict[str, list[Fault]] = collections.defaultdict(list)
    for fault in faults:
        kinds[re.sub(r": .*|\n.*", "", fault.what, flags=re.DOTALL)].append(fault)
    rows = sorted(kinds.values(), key=len, reverse=True)
    return "\n".join(f"{len(x):6} x {x[0].reader} {x[0].number}: {x[0].what}" for x in rows)
