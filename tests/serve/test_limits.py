"""What the server does under load: queues, limits of requests and connections, decoding."""

import asyncio
import contextlib
import http.client
import io
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image
from png import png

pytest.importorskip("fastapi", reason="needs fastapi: pip install -e '.[demo]'")

from served import served

from mmjax.serve import limits
from mmjax.serve.batcher import Batcher, Busy
from mmjax.serve.decoders import Decoders
from mmjax.serve.limits import Limits


def test_what_waits_is_one_batch_and_errors_reach_all():
    calls, free = [], threading.Event()

    def work(items):
        calls.append(list(items))
        free.wait(10)
        if "bad" in items:
            raise ValueError("bad item")
        return [item * 2 for item in items]

    batcher = Batcher(work, most=4, waiting=6)
    first = batcher.submit(1)
    while not calls:
        time.sleep(0.001)
    rest = [batcher.submit(n) for n in range(2, 8)]
    with pytest.raises(Busy):
        batcher.submit(8)
    rest[0].cancel()
    free.set()
    assert first.result(10) == 2
    assert [f.result(10) for f in rest[1:]] == [6, 8, 10, 12, 14]
    assert calls[0] == [1] and calls[1] == [3, 4, 5] and calls[2] == [6, 7]
    with pytest.raises(ValueError, match="bad item"):
        batcher.submit("bad").result(10)
    assert batcher.submit(9).result(10) == 18  # it goes on


def test_at_ten_times_what_it_can_do_every_request_is_answered():
    """By its result, or by a 503 that says when to come again."""

    async def slow(scope, receive, send):
        await receive()
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def flood():
        transport = httpx.ASGITransport(Limits(slow, requests=5))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await asyncio.gather(*(client.post(f"/{n}", content=b"a") for n in range(50)))

    answers = asyncio.run(flood())
    kinds = [a.status_code for a in answers]
    assert kinds.count(200) == 5 and kinds.count(503) == 45
    assert all(a.text == f"/{n}" for n, a in enumerate(answers) if a.status_code == 200)
    assert all(a.headers["retry-after"] == "1" for a in answers if a.status_code == 503)
    assert "try again" in next(a for a in answers if a.status_code == 503).json()["error"]


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


def test_headers_that_do_not_end_and_slow_bodies_keep_nobody_out():
    """More half-sent headers than may be open, and more stalled uploads than requests may run."""
    limits = Limits(echo, requests=3, client=30, stalled=1.0)
    server, address = served(limits)
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    held = [socket.create_connection(address) for _ in range(60)]
    for one in held:
        with contextlib.suppress(OSError):
            one.send(begun)
    for one in held[-10:]:
        one.send(b"\r\nabc")
    for _ in range(5):
        answer = httpx.post(f"http://{address[0]}:{address[1]}/", content=b"four")
        assert answer.status_code == 200 and answer.text == "4"
    end = time.monotonic() + 20
    while limits.buffered or any(alive(one) for one in held):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert limits.running == 0
    server.should_exit = True


def test_connections_that_come_at_once_are_not_more_than_may_be_open():
    """As where the server was busy, and accepts all that came meanwhile."""

    async def busy(scope, receive, send):
        time.sleep(0.5)
        await echo(scope, receive, send)

    server, address = served(busy, seconds=60)
    first = socket.create_connection(address)
    first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.1)
    held = [socket.create_connection(address) for _ in range(300)]
    end = time.monotonic() + 10
    while sum(map(alive, held)) > 40:
        assert time.monotonic() < end
        time.sleep(0.05)
    first.close()
    server.should_exit = True


def alive(one):
    """Whether the server has not closed a connection."""
    one.setblocking(False)
    try:
        while data := one.recv(1000):
            assert data.startswith(b"HTTP/1.1 408") or b"too slow" in data
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def test_a_client_that_sends_before_it_reads_sees_why_it_is_refused():
    """As http.client does: a reset would hide the answer."""
    server, (host, port) = served(Limits(echo, size=1000))
    for size in (1001, 5_000_000):
        client = http.client.HTTPConnection(host, port, timeout=20)
        client.request("POST", "/", body=bytes(size))
        answer = client.getresponse()
        assert answer.status == 413 and b"more than 1,000 bytes" in answer.read()
        client.close()
    server.should_exit = True


def test_one_client_has_no_more_than_its_share_of_requests():
    async def slow(scope, receive, send):
        await asyncio.sleep(0.2)
        await echo(scope, receive, send)

    async def ask():
        limits = Limits(slow, client=2)

        async def one(address):
            transport = httpx.ASGITransport(limits, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return (await client.post("/", content=b"a")).status_code

        found = await asyncio.gather(*(one("a") for _ in range(4)), *(one("b") for _ in range(2)))
        return found, [await one("a")]

    assert asyncio.run(ask()) == ([200, 200, 503, 503, 200, 200], [200])


def test_decoding_gives_its_memory_back_and_survives_its_process():
    decoders = Decoders(1)
    image = png(3000, 3000)
    assert decoders.prepare(image, "decode | resize(8)").shape == (8, 8, 3)
    (process,) = [decoders._free.get()]
    decoders._free.put(process)

    def resident():
        return int(Path(f"/proc/{process._process.pid}/statm").read_text().split()[1]) * 4096

    first = resident()
    for _ in range(5):
        decoders.prepare(image, "decode | resize(8)")
    assert resident() < first + 20e6  # an image has 27 MB
    for data in (b"none", png(60_000, 60_000, b"")):
        with pytest.raises(ValueError, match="are no image|make it smaller"):
            decoders.prepare(data, "decode | resize(8)")
    process._process.kill()
    process._process.wait()
    assert decoders.thumbnail(image, 16)[:4] == b"RIFF"
    assert Image.open(io.BytesIO(decoders.reduced(image, 100))).size == (100, 100)
    small = Image.effect_noise((9, 7), 50).convert("RGB")
    file = io.BytesIO()
    small.save(file, "WEBP", lossless=True)
    assert Image.open(io.BytesIO(decoders.reduced(file.getvalue(), 9))).tobytes() == small.tobytes()


def test_memory_is_given_back_when_the_last_of_many_bodies_is_done(monkeypatch):
    released = []
    monkeypatch.setattr(limits.runtime, "release_freed_memory", lambda: released.append(1))
    monkeypatch.setattr(limits, "RELEASED", 1000)

    async def ask():
        transport = httpx.ASGITransport(Limits(echo))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for size, want in ((900, 0), (90, 0), (20, 1), (900, 1), (200, 2)):
                await client.post("/", content=bytes(size))
                end = time.monotonic() + 5
                while len(released) < want and time.monotonic() < end:
                    await asyncio.sleep(0.01)
                assert len(released) == want

    asyncio.run(ask())


def test_what_takes_too_long_is_given_up():
    async def never(scope, receive, send):
        await asyncio.sleep(60)

    async def ask():
        limits = Limits(never, seconds=0.05, longer={"/long": 0.1})
        transport = httpx.ASGITransport(limits)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/"), await client.get("/long"), limits.running

    *answers, running = asyncio.run(ask())
    assert running == 0
    for answer, seconds in zip(answers, ("0.05", "0.1")):
        assert answer.status_code == 504
        assert answer.json()["error"] == f"This took longer than {seconds} seconds."
