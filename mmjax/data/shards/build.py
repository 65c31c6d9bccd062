"""Indexes of shards in the cache, a file each: built where one is missing or its shard has changed.

Several processes may build at the same time, on several machines too if they share the cache: each
takes its part of the shards. A build that was killed goes on with the shards that are missing.
"""

import contextlib
import functools
import gc
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mmjax import storage
from mmjax.data import columns, tar_headers
from mmjax.data.shards.index import image_extensions, index_shard
from mmjax.data.shards.pattern import Shard, shuffled
from mmjax.process.progress import Progress

_VERSION = 1  # of the index files
URL_WINDOW = 1 << 20  # bytes that are read at once from a bucket, where a request takes long
URL_THREADS = 8  # requests at the same time, of each process
PATIENCE = 2.0  # seconds in this process, after which others are started

Part = tuple[int, int]  # number, and of how many


class Settings(NamedTuple):
    """What an index depends on besides its shard."""

    caption_key: str
    media: str

    def state(self) -> list[str]:
        """Values whose change makes an index invalid; another Pillow may read other files."""
        return [str(_VERSION), self.caption_key, self.media, *image_extensions()]


def file_name(shards: Sequence[Shard], settings: Settings) -> str:
    """A name for what is known of some shards, whatever their state."""
    names = [*settings]
    for shard in shards:
        folder, name = os.path.split(shard.path)
        names += _real(folder), name
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:24]


@functools.lru_cache(maxsize=1024)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def index_file(cache: Path, shard: Shard, settings: Settings) -> Path:
    """Where the index of a shard is."""
    return cache / f"{file_name([shard], settings)}.index"


def read_index(
    cache: Path, shard: Shard, settings: Settings
) -> tuple[dict[str, Any], columns.Arrays] | None:
    """(facts, arrays) of a shard's index; None if it is missing or of another state."""
    found = columns.read(index_file(cache, shard, settings))
    return None if found is None or found[0]["state"] != index_state(shard, settings) else found


def index_state(shard: Shard, settings: Settings) -> list[str]:
    """What an index is for."""
    return [*settings.state(), str(shard.size), shard.version]


def build(
    pattern: str,
    shards: Sequence[Shard],
    settings: Settings,
    cache: Path,
    part: Part = (0, 1),
    processes: int | None = None,
    advance: Callable[[], None] | None = None,
) -> None:
    """Write the missing indexes of a part of the shards, which may be all.

    Args:
      pattern: of the shards.
      part: (i, n): every n-th shard from the i-th on.
      processes: how many; None: one per CPU, if one is not done within `PATIENCE`.
      advance: called after each shard; None: a progress line is shown.

    Raises:
      ValueError: a shard that cannot be read; the indexes of others are kept.
    """
    first, step = part
    mine = shards[first::step]
    missing = [s for s in mine if read_index(cache, s, settings) is None]
    if not missing:
        return
    processes = (os.cpu_count() or 1) if processes is None else processes
    until = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack, _without_collector():
        if advance is None:
            advance = stack.enter_context(Progress(f"Indexing {pattern}", len(missing))).advance
        threads = URL_THREADS if storage.is_url(pattern) else 1
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for done in range(0, len(missing), threads):
            others = min(processes, len(missing) - done)
            if others > 1 and time.monotonic() > until:
                parts = [(first + step * k, step * others) for k in range(others)]
                in_processes(pattern, settings, cache, parts, advance)
                return
            work = functools.partial(_write_missing, cache, settings)
            for _ in pool.map(work, missing[done : done + threads]):
                advance()


def build_missing(
    pattern: str,
    shards: Sequence[Shard],
    settings: Settings,
    cache: Path,
    advance: Callable[[], None] | None = None,
) -> None:
    """Write the missing indexes of some shards in their order, in this process, looking again
    before each: others may be at work too.

    Raises:
      ValueError: as `build`.
    """
    missing = [s for s in shards if read_index(cache, s, settings) is None]
    if not missing:
        return
    with contextlib.ExitStack() as stack, _without_collector():
        if advance is None:
            advance = stack.enter_context(Progress(f"Indexing {pattern}", len(missing))).advance
        threads = URL_THREADS if storage.is_url(pattern) else 1
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for _ in pool.map(functools.partial(_write_missing, cache, settings), missing):
            advance()


def build_windows(
    pattern: str,
    shards: Sequence[Shard],
    settings: Settings,
    cache: Path,
    window: int,
    part: Part,
    advance: Callable[[], None] | None,
) -> None:
    """Write the missing indexes of all shards, window by window in the order of `shuffled`.

    Args:
      part: (i, n): of each block of shards, every n-th from the i-th on comes first, and what the
        others have not done, as they may have another cache, one block later.

    Raises:
      ValueError: as `build`.
    """
    first, step = part
    ordered = [shards[i] for i in shuffled(len(shards))]
    size = max(window, 8 * step)
    blocks = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    for mine, before in zip([*blocks, []], [[], *blocks], strict=True):
        some = [*mine[first::step], *before]
        build_missing(pattern, some, settings, cache, advance)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Without Python's search for cycles: an index is many small objects and has none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write_missing(cache: Path, settings: Settings, shard: Shard) -> None:
    if read_index(cache, shard, settings) is None:
        _write_index(cache, settings, shard)


def _write_index(cache: Path, settings: Settings, shard: Shard) -> None:
    with _reading(shard) as (read, window):
        try:
            found = index_shard(read, window, shard.size, shard.name, *settings)
        except storage.StorageError:
            raise
        except ValueError as error:
            raise ValueError(
                f"The shard {shard.path} cannot be read ({error}): it must be a complete, "
                "uncompressed tar file; download or write it again."
            ) from None
    facts = {
        "state": index_state(shard, settings),
        "bad": found.bad,
        "skipped": found.skipped,
        "several": [found.several, found.first_several],
    }
    columns.write(index_file(cache, shard, settings), facts, found.arrays)


@contextlib.contextmanager
def _reading(shard: Shard) -> Iterator[tuple[tar_headers.Read, int]]:
    """How a shard is read, and how many bytes at once."""
    if storage.is_url(shard.path):
        yield functools.partial(_read_object, shard), URL_WINDOW
        return
    file = os.open(shard.path, os.O_RDONLY)
    try:
        yield lambda offset, size: os.pread(file, size, offset), tar_headers.WINDOW
    finally:
        os.close(file)


def _read_object(shard: Shard, offset: int, size: int) -> bytes:
    size = max(0, min(size, shard.size - offset))
    return storage.read_version(shard.path, shard.version, offset, size)


def in_processes(
    pattern: str,
    settings: Settings,
    cache: Path,
    parts: Sequence[Part],
    advance: Callable[[], None],
    window: int = 0,
) -> None:
    """Build each part by a process of its own, which prints a line per shard.

    Args:
      window: see `build_windows`; 0: `build`.

    Raises:
      ValueError: as `build`.
    """
    command = [sys.executable, "-m", "mmjax.data.shards", f"--pattern={pattern}"]
    command += [f"--caption_key={settings.caption_key}", f"--media={settings.media}"]
    command += [f"--cache={cache}", "--processes=1", f"--window={window}"]
    root = str(Path(__file__).parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    workers = [
        subprocess.Popen(
            [*command, f"--part={i}/{n}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environ,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which ends them
        )
        for i, n in parts
    ]
    lock = threading.Lock()

    def follow(worker: subprocess.Popen) -> None:
        for _ in worker.stdout:
            with lock:
                advance()

    threads = [threading.Thread(target=follow, args=(w,), daemon=True) for w in workers]
    try:
        for thread in threads:
            thread.start()
        for worker in workers:
            said = worker.stderr.read().strip()
            if worker.wait():
                _, refused, sentence = said.rpartition("error: ")
                why = sentence or "it was killed, perhaps as memory ran out"
                raise ValueError(
                    sentence if refused else f"A process that indexes {pattern} has failed: {why}"
                )
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            worker.kill()
