"""Ordinary users of `mmjax.serve` beside clients that want to hurt it, and its memory afterwards.

    python experiments/benchmarks/serve_hostile.py --seconds=300 --hostile=1000

It starts the command on an index of a few images with a tiny CLIP, and connects on the loopback
interface alone, from many of its addresses. Six in ten hostile clients never complete a header,
three send a body a few bytes at a time, one uploads images of 31 megapixels with transparency, the
most that is decoded. Meanwhile eight users search by words or by an image, once a second, from a
process of their own, so that they do not wait for the hostile clients' work. Memory is resident, of
the server and its decoders together.
"""

import argparse
import asyncio
import collections
import contextlib
import io
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
USERS, WAIT = 8, 20.0  # seconds for memory to be given back
BOUNDARY = b"--x\r\n"


def png(side: int, mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def upload(data: bytes) -> tuple[bytes, bytes]:
    """Header and body of a search by an image."""
    body = BOUNDARY + b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body += data + b"\r\n--x--\r\n"
    head = b"POST /api/search?k=3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body), body


class Hostile:
    """Hostile clients of a server at a port, until a time."""

    def __init__(self, port: int, end: float):
        self.port, self.end = port, end
        self.large, self.long = upload(png(5600, "RGBA")), upload(png(64, "RGB") * 50)

    def _connect(self, number: int):
        address = f"127.0.{1 + number // 200}.{2 + number % 200}"
        return asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

    async def _repeat(self, number: int, once) -> None:
        while time.monotonic() < self.end:
            try:
                reader, writer = await self._connect(number)
            except OSError:
                await asyncio.sleep(1)
                continue
            with contextlib.suppress(OSError, TimeoutError):
                await once(reader, writer)
            writer.close()
            await asyncio.sleep(0.1)

    async def _drip(self, reader, writer, start: bytes, rest: bytes, size: int, pause: float):
        writer.write(start)
        for at in range(0, len(rest), size):
            writer.write(rest[at : at + size])
            await writer.drain()
            await asyncio.sleep(pause)
            if reader.at_eof() or time.monotonic() > self.end:
                return

    async def half_header(self, number: int) -> None:
        start = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "
        await self._repeat(number, lambda r, w: self._drip(r, w, start, b"a" * 1000, 1, 5))

    async def slow_body(self, number: int) -> None:
        head, body = self.long
        await self._repeat(number, lambda r, w: self._drip(r, w, head, body, 20, 3))

    async def large_image(self, number: int) -> None:
        async def once(reader, writer):
            writer.write(b"".join(self.large))
            await writer.drain()
            await asyncio.wait_for(reader.read(20_000), 60)
            await asyncio.sleep(10 + 20 * random.random())

        await self._repeat(number, once)

    async def run(self, count: int, memory: "Memory") -> tuple[float, float]:
        """Let all of them run; returns the most memory."""
        kinds = random.Random(0).choices(
            (self.half_header, self.slow_body, self.large_image), (6, 3, 1), k=count
        )
        tasks = [asyncio.create_task(kind(number)) for number, kind in enumerate(kinds)]
        most = (0.0, 0.0)
        while time.monotonic() < self.end:
            await asyncio.sleep(2)
            most = max(most, memory.now(), key=sum)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return most


class Users:
    """Ordinary users, and how long they waited."""

    def __init__(self, port: int, begun: float, end: float):
        self.port, self.begun, self.end = port, begun, end
        self.took: list[float] = []
        self.slowest: list[tuple[float, float, str]] = []  # seconds, when, what for
        self.answers: collections.Counter[str] = collections.Counter()
        self.small = upload(png(64, "RGB"))

    async def user(self, number: int) -> None:
        request = b"".join(self.small)
        if number % 2:
            request = b"GET /api/search?words=red&k=5 HTTP/1.1\r\n"
            request += b"Host: localhost\r\nConnection: close\r\n\r\n"
        while time.monotonic() < self.end:
            begun, connected = time.monotonic(), float("nan")
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                connected = time.monotonic() - begun
                writer.write(request)
                line = await asyncio.wait_for(reader.readline(), 30)
                writer.close()
                answer = line.split()[1].decode() if line else "closed"
            except (OSError, TimeoutError) as error:
                answer = type(error).__name__
            took = time.monotonic() - begun
            self.answers[answer] += 1
            self.took.append(took)
            what = f"{'words' if number % 2 else 'image'}, connected after {connected:.2f} s"
            self.slowest = sorted([*self.slowest, (took, begun - self.begun, what)])[-5:]
            await asyncio.sleep(1)

    async def run(self) -> None:
        await asyncio.gather(*(self.user(number) for number in range(USERS)))

    def __str__(self) -> str:
        middle, high = np.quantile(self.took, (0.5, 0.99))
        lines = [
            f"{len(self.took)} requests of users: {dict(self.answers)}",
            f"p50 {middle:.2f} s, p99 {high:.2f} s, at most {max(self.took):.2f} s; the slowest:",
        ]
        for took, when, what in reversed(self.slowest):
            lines.append(f"  {took:.2f} s, sent at {when:.0f} s: {what}")
        return "\n".join(lines)


def use(port: int, begun: float, end: float) -> None:
    """A process of users."""
    users = Users(port, begun, end)
    asyncio.run(users.run())
    print(users, flush=True)


def make_index(folder: Path) -> None:
    """An index of twelve small images."""
    from mmjax.embedder import open_embedder
    from mmjax.search import build
    from mmjax.search.index import Writer, create

    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from tiny_index import MODEL, draw

    for i in range(12):
        draw(folder / "images" / f"{i}.png", i)
    embedder, index = open_embedder(MODEL), folder / "index"
    create(index, folder / "images", str(MODEL), embedder.fingerprint, 16, "float32")
    build.update(Writer(index), embedder)


def start(index: Path) -> tuple[subprocess.Popen, int]:
    """The server and its port."""
    command = [sys.executable, "-m", "mmjax.serve", str(index), "--port=0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if found := re.match(r"http://\S+:(\d+)$", line.strip()):
            return server, int(found[1])
    raise SystemExit("the server ended")


class Memory:
    """Resident memory of a process and its children."""

    def __init__(self, pid: int):
        self._pid = pid

    def now(self) -> tuple[float, float]:
        """That of the process and that of its children together, in MB."""
        tasks = Path(f"/proc/{self._pid}/task").glob("*/children")
        children = [pid for task in tasks for pid in task.read_text().split()]
        return self._of(self._pid), sum(map(self._of, children))

    def _of(self, pid: int | str) -> float:
        try:
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        except OSError:  # it has just ended
            return 0.0
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def show(when: str, memory: tuple[float, float]) -> None:
    server, decoders = memory
    print(f"memory {when:8s}{server:6.0f} MB of the server, {decoders:6.0f} MB of its decoders")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hostile", type=int, default=1000)
    args = parser.parse_args()
    if not (0 < args.seconds <= 600 and 0 <= args.hostile <= 2000):
        raise SystemExit("at most 600 seconds and 2,000 hostile clients")
    with tempfile.TemporaryDirectory(prefix="mmjax-hostile-") as folder:
        make_index(Path(folder))
        server, port = start(Path(folder, "index"))
        try:
            memory = Memory(server.pid)
            show("before", memory.now())
            begun = time.monotonic()
            end = begun + args.seconds
            users = multiprocessing.get_context("spawn").Process(
                target=use, args=(port, begun, end)
            )
            users.start()
            hostile = Hostile(port, end)
            show("at most", asyncio.run(hostile.run(args.hostile, memory)))
            users.join()
            time.sleep(WAIT)
            show("after", memory.now())
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
