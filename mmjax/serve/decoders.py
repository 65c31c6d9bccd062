"""Images decoded in processes of bounded memory, which is the system's again when they have gone.

    python -m mmjax.serve.decoders NICE      # such a process; `Decoders` starts them

Allocators keep a part of what large images needed, in every thread. Here that is a part of a small
process, which has no model, gives its memory back after a large image, and is replaced if it dies.
"""

import asyncio
import contextlib
import io
import json
import os
import queue
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

import mmjax
from mmjax.data.image_files import check_image
from mmjax.data.prepared_image import prepared
from mmjax.data.transforms.decode import decode_image, decoded_size, formats, opened
from mmjax.process import runtime
from mmjax.serve.batcher import Busy

PROCESSES, LARGE_PROCESSES = 2, 1
WAITING, LARGE_WAITING = 32, 2  # images that may wait for them
LARGE_PIXELS = 25_000_000  # more than these take a second or more
MEMORY = 1536 * 2**20  # bytes above the idle process
SECONDS = 20.0  # for an image
LARGE_NICE = 10  # priority below that of the server, whose users have small images
_LARGE = 4 * 2**20  # bytes of a decoded image from which on memory is given back


class Decoders:
    """Decodes images for many threads, each of which waits until a process is free.

    Args:
      count: processes, which are started when they are first used; nice: their niceness.
    """

    def __init__(self, count: int = PROCESSES, nice: int = 0):
        self._nice = nice
        self._free: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def prepare(self, data: bytes, transform: str) -> np.ndarray:
        """As `prepared_image.prepared`."""
        shape, content = self._ask({"transform": transform}, data)
        return np.frombuffer(content, np.uint8).reshape(shape)

    def thumbnail(self, data: bytes, size: int) -> bytes:
        """The image as WebP, its longer side at most `size` pixels.

        Raises:
          ValueError: see `check_image`; or the image is damaged.
        """
        return self._ask({"size": size}, data)[1]

    def reduced(self, data: bytes, size: int) -> bytes:
        """The image as PNG, with its own pixels if its longer side has at most `size`, else reduced
        to that.

        Raises:
          ValueError: as `thumbnail`.
        """
        return self._ask({"size": size, "lossless": True}, data)[1]

    def start(self) -> None:
        """Start all processes, so that no image waits for it."""
        processes = [_Process(self._nice) for _ in range(self._free.qsize())]
        for process in processes:
            process.ask({"size": 16}, b"")
            self._free.get()
            self._free.put(process)

    def _ask(self, order: dict, data: bytes) -> tuple[list[int], bytes]:
        process = self._free.get()
        try:
            if process is None or process.ended:
                process = _Process(self._nice)
            answer, content = process.ask(order, data)
        finally:
            self._free.put(process)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["shape"], content


class Lanes:
    """Decoding for the event loop: large images, which take long, wait for a process of their own.

    Raises:
      Busy: too many wait already.
    """

    def __init__(self):
        self._lanes = {
            large: (Decoders(count, nice), ThreadPoolExecutor(count), count + waiting)
            for large, count, waiting, nice in (
                (False, PROCESSES, WAITING, 0),
                (True, LARGE_PROCESSES, LARGE_WAITING, LARGE_NICE),
            )
        }
        self._inside = {False: 0, True: 0}

    @property
    def small(self) -> Decoders:
        """Those for images that are not large, for threads."""
        return self._lanes[False][0]

    def start(self) -> None:
        """Start all processes, so that no image waits for it."""
        formats()  # Pillow imports its plugins
        for decoders, *_ in self._lanes.values():
            decoders.start()

    async def prepare(self, data: bytes, transform: str) -> np.ndarray:
        """As `prepared_image.prepared`."""
        return await self._decode(Decoders.prepare, data, transform)

    async def reduced(self, data: bytes, size: int) -> bytes:
        """As `Decoders.reduced`."""
        return await self._decode(Decoders.reduced, data, size)

    async def _decode(self, method: Callable, data: bytes, *args: Any) -> Any:
        large = await asyncio.to_thread(_is_large, data)
        decoders, pool, _ = self._lanes[large]
        return await self._run(large, pool, method, decoders, data, *args)

    async def work(self, function: Callable, *args: Any) -> Any:
        """A function that uses `small`."""
        return await self._run(False, self._lanes[False][1], function, *args)

    async def _run(self, large: bool, pool: ThreadPoolExecutor, function, *args) -> Any:
        if self._inside[large] >= self._lanes[large][2]:
            raise Busy
        self._inside[large] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *args)
        finally:
            self._inside[large] -= 1


def _is_large(data: bytes) -> bool:
    """Whether an image is large by its header; raises ValueError as `decode.opened`."""
    with opened(data) as image:
        return image.size[0] * image.size[1] > LARGE_PIXELS


class _Process:
    """One process, and what it is asked."""

    def __init__(self, nice: int):
        root = str(Path(mmjax.__file__).parents[1])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mmjax.serve.decoders", str(nice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, order: dict, data: bytes) -> tuple[dict, bytes]:
        """Its answer, or an error where it died or took too long."""
        late = threading.Timer(SECONDS, self._process.kill)
        late.start()
        try:
            _write(self._process.stdin, order, data)
            return _read(self._process.stdout)
        except (OSError, EOFError):
            self._process.kill()
            self._process.wait()
            return {
                "error": f"the image takes more than {SECONDS:g} s or {MEMORY >> 20:,} MB to decode"
            }, b""
        finally:
            late.cancel()


def _write(file: BinaryIO, head: dict, content: bytes) -> None:
    line = json.dumps({**head, "bytes": len(content)}).encode()
    file.write(line + b"\n")
    file.write(content)
    file.flush()


def _read(file: BinaryIO) -> tuple[dict, bytes]:
    line = file.readline()
    if not line:
        raise EOFError
    head = json.loads(line)
    content = file.read(head["bytes"])
    if len(content) < head["bytes"]:
        raise EOFError
    return head, content


def _thumbnail(data: bytes, size: int) -> bytes:
    check_image(data)
    image = Image.fromarray(decode_image(data, size))
    image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return file.getvalue()


def _reduced(data: bytes, size: int) -> bytes:
    check_image(data)
    large = max(decoded_size(data)) > size
    image = Image.fromarray(decode_image(data, size if large else None))
    image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _answer(order: dict, data: bytes) -> tuple[dict, bytes]:
    try:
        if "size" in order:
            make = _reduced if "lossless" in order else _thumbnail
            return {"shape": None}, make(data, order["size"])
        image = np.ascontiguousarray(prepared(data, order["transform"]))
    except ValueError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"error": f"the image takes more than {MEMORY >> 20:,} MB to decode"}, b""
    return {"shape": image.shape}, image.tobytes()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _trim() -> None:
    """Give the system the memory that the allocators of Pillow and of C keep."""
    Image.core.clear_cache()
    runtime.release_freed_memory()


def main() -> None:
    """Answer until the input ends, as it does with the server."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    os.nice(int(sys.argv[1]))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    idle = _resident()
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # with the server
        while True:
            answer = _answer(*_read(requests))
            if _resident() > idle + _LARGE:
                _trim()
            _write(answers, *answer)


if __name__ == "__main__":
    main()
