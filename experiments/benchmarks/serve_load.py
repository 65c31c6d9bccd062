"""Load on `mmjax.serve`: requests per second, latency, and ten times more than it admits.

    python -m mmjax.serve INDEX --port=8000            # elsewhere
    python experiments/benchmarks/serve_load.py --url=http://127.0.0.1:8000 --image=FILE

First --callers callers send requests one after another, of one kind at a time: a search by words, a
search by an image, a thumbnail. Then ten times as many callers as the server admits do so. Every
request must be answered by a result or by a 503; all are counted.
"""

import argparse
import asyncio
import collections
import itertools
import statistics
import sys
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from mmjax.serve.limits import REQUESTS

WORDS = ("red", "a cat", "two people", "a flag", "food", "a house by the sea", "music", "rain")


async def measure(url, kind, asks, callers, seconds):
    """Let callers send requests until the time is over; print the counts."""
    took, answers, ends = [], collections.Counter(), time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:

        async def caller(n):
            for ask in itertools.islice(itertools.cycle(asks), n, None):
                if time.perf_counter() > ends:
                    return
                start = time.perf_counter()
                try:
                    answer = await ask(client)
                except httpx.HTTPError as error:
                    answers[type(error).__name__] += 1
                    continue
                answers[answer.status_code] += 1
                if answer.status_code == 200:
                    took.append(time.perf_counter() - start)
                elif answer.status_code == 503:
                    assert "error" in answer.json()
                    await asyncio.sleep(0.05)

        start = time.perf_counter()
        await asyncio.gather(*(caller(n) for n in range(callers)))
        wall = time.perf_counter() - start
    cuts = statistics.quantiles(took, n=100)
    lost = {k: n for k, n in answers.items() if k not in (200, 503)}
    print(
        f"  {kind:28s} {callers:4d} callers  {len(took) / wall:6.0f} results/s  "
        f"p50 {1e3 * cuts[49]:5.0f} ms  p99 {1e3 * cuts[98]:5.0f} ms  "
        f"200: {answers[200]}  503: {answers[503]}  anything else: {lost or 0}",
        flush=True,
    )


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    data = args.image.read_bytes()
    name = httpx.post(f"{args.url}/api/search?k=1", files={"file": data}).json()[0]["image"]

    words = [lambda c, w=w: c.get("/api/search", params={"words": w, "k": 30}) for w in WORDS]
    by_image = [lambda c: c.post("/api/search?k=30", files={"file": data})]
    shown = [lambda c: c.get(f"/api/image/{name}")]
    kinds = {"search by words": words, "search by an image": by_image, "thumbnail": shown}
    for kind, asks in kinds.items():
        await measure(args.url, kind, asks, args.callers, args.seconds)
    many = 10 * REQUESTS
    await measure(args.url, "ten times what it admits", words + by_image, many, args.seconds)
    await measure(args.url, "words, afterwards", words, args.callers, args.seconds)


if __name__ == "__main__":
    asyncio.run(main())
