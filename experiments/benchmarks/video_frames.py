"""Eight frames of a video: decoded by seeking, against decoding it whole.

    python experiments/benchmarks/video_frames.py
    python experiments/benchmarks/video_frames.py --rounds 3 --size 360

A clip of 10 s at 25 frames per second and 720 lines: blocks that move under grain, in H.264 with
three B-frames, with every frame a key frame, or one every 0.5, 1, 2 and 10 s (x264's own default).
`whole`: PyAV decodes every frame in one thread and converts it to RGB, and eight are taken.
`sought`: `video_clips.open_clip(data).frames` of the same eight. The two take turns in every round;
the times are medians of CPU time, and the arrays are compared bit by bit. Needs mmjax[video].
"""

import argparse
import io
import statistics
import time

import av
import numpy as np

from mmjax.data.transforms.video_clips import open_clip, shown_at

RATE, SECONDS, COUNT = 25, 10, 8


def clip(height: int, gap: int) -> bytes:
    """The bytes of an MP4 with a key frame every `gap` frames."""
    rng, width = np.random.default_rng(0), height * 16 // 9 // 2 * 2
    coarse = rng.normal(size=(height // 16, width // 8, 3)).repeat(16, 0).repeat(16, 1)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"g": str(gap), "bf": "3", "crf": "23", "preset": "veryfast"}
        for i in range(RATE * SECONDS):
            part = np.roll(coarse, 3 * i, axis=1)[:, :width]
            part = np.pad(part, ((0, height - len(part)), (0, 0), (0, 0)), mode="edge")
            grain = rng.normal(size=(height, width, 1)) * 4
            image = (128 + 40 * part + grain).clip(0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()


def whole(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as file:
        file.streams.video[0].thread_type = "NONE"
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    times = (np.arange(COUNT) + 0.5) * len(frames) / COUNT
    return [frames[int(i)] for i in times]


def sought(data: bytes) -> list[np.ndarray]:
    found = open_clip(data)
    times = (np.arange(COUNT) + 0.5) * found.duration / COUNT
    return found.frames(shown_at(found, times))


def timed(f, data: bytes) -> tuple[float, list[np.ndarray]]:
    start = time.process_time()
    frames = f(data)
    return time.process_time() - start, frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=720, help="lines of a frame")
    args = parser.parse_args()
    for gap in (1, RATE // 2, RATE, 2 * RATE, RATE * SECONDS):
        data, ratios, both = clip(args.size, gap), [], []
        for _ in range(args.rounds):
            (a, all_frames), (b, some) = timed(whole, data), timed(sought, data)
            assert all((x == y).all() for x, y in zip(all_frames, some, strict=True))
            ratios.append(a / b)
            both.append((a, b))
        a, b = (statistics.median(times) for times in zip(*both))
        print(
            f"key frame every {gap / RATE:g} s, {len(data) / 1e6:.1f} MB: whole {1e3 * a:.0f} ms, "
            f"sought {1e3 * b:.0f} ms: {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
