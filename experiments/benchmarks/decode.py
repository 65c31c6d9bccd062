"""JPEG decode + resize to 224 pixels: images per second, ours against its peers.

    python experiments/benchmarks/decode.py             # ours and Pillow
    python experiments/benchmarks/decode.py --peers     # and OpenCV, torch's DataLoader

256 synthetic photos (500 x 375, quality 90, 4:2:0) in memory, 2 threads. The contenders take turns
within every round, and the ratios are medians of same-round ratios, so that a busy machine affects
all alike. Images per CPU second (user and system time of all threads and processes), times the
number of cores, estimate the rate of an idle machine. `error` is the mean absolute difference, in
levels of 255, from the reference: accurate full-size decode, then Pillow's antialiased bicubic.
`--peers` makes a virtual environment with the peers' packages in the user's cache, once; they run
in a process of their own.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, WORKERS, IMAGES = 224, 2, 256
REFERENCE = "Pillow bicubic, threads"
PEERS_ENV = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mmjax/peers-decode"
PEERS = ("simplejpeg", "opencv-python-headless", "pillow", "numpy")


def make_jpegs(number, size=(500, 375)):
    """Bytes of `number` images: broad and fine color patches with a little sensor noise.

    `size` is (width, height).
    """
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(number):
        layers = [
            np.asarray(
                Image.fromarray(rng.integers(0, 256, (*grid, 3), np.uint8)).resize(
                    size, Image.Resampling.BICUBIC
                ),
                np.float32,
            )
            for grid in ((12, 16), (60, 80))
        ]
        noise = rng.normal(0, 3, (*size[::-1], 3)).astype(np.float32)
        picture = np.clip(0.7 * layers[0] + 0.3 * layers[1] + noise, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=90)
        jpegs.append(file.getvalue())
    return jpegs


# ---- contenders: {name: bytes -> uint8 [224, 224, 3]} --------------------------------------------


def ours():
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from mmjax.data.transforms.parse import parse

    def chain(spec):
        transform = parse(spec)
        return lambda data: transform({"image": data}, None)["image"]

    specs = {
        f"mmjax {m}": f"decode(min_size=224) | resize(224, {m!r})"
        for m in ("box", "bilinear", "bicubic")
    }
    specs["mmjax bilinear, min_size=180"] = "decode(min_size=180) | resize(224, 'bilinear')"
    specs["mmjax bicubic, full size"] = "decode | resize(224)"
    return {name: chain(spec) for name, spec in specs.items()}


def pillow():
    def decode(data):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))

    return {REFERENCE: decode}


def opencv():
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)

    def scaled(data):
        return simplejpeg.decode_jpeg(
            data, fastdct=True, fastupsample=True, min_height=SIZE, min_width=SIZE, min_factor=1
        )

    def whole(data):
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)

    def resize(image, method):
        return cv2.resize(image, (SIZE, SIZE), interpolation=method)

    return {
        "cv2 decode, area": lambda data: resize(whole(data), cv2.INTER_AREA),
        "simplejpeg scaled + cv2 area": lambda data: resize(scaled(data), cv2.INTER_AREA),
        "simplejpeg scaled + cv2 linear": lambda data: resize(scaled(data), cv2.INTER_LINEAR),
    }


def cpu_seconds():
    """User and system time of this process, its threads, and its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def threaded(decode, jpegs, pool):
    """Runs `decode` over all; (seconds, CPU seconds)."""
    start, cpu = time.perf_counter(), cpu_seconds()
    for _ in pool.map(decode, jpegs):
        pass
    return time.perf_counter() - start, cpu_seconds() - cpu


def torch_loader(decode, jpegs):
    """As `threaded`, for torch's DataLoader in its usual form: worker processes, batches of 64."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Pictures(Dataset):
        def __len__(self):
            return 4 * len(jpegs)  # the start of the processes is spread over more images

        def __getitem__(self, i):
            return torch.from_numpy(decode(jpegs[i % len(jpegs)]))

    loader = DataLoader(Pictures(), batch_size=64, num_workers=WORKERS, prefetch_factor=4)
    start, cpu = time.perf_counter(), cpu_seconds()
    for _ in loader:
        pass
    return (time.perf_counter() - start) / 4, (cpu_seconds() - cpu) / 4


class Contenders:
    """Runs contenders by name, in this process."""

    def __init__(self, functions, jpegs):
        self.jpegs, self.pool = jpegs, ThreadPoolExecutor(WORKERS)
        self.runs = {
            name: lambda f=f: threaded(f, self.jpegs, self.pool) for name, f in functions.items()
        }
        self.functions = dict(functions)

    def add_torch(self, name):
        decode = self.functions[name]
        label = f"torch DataLoader, {name}"
        self.functions[label] = decode
        self.runs[label] = lambda: torch_loader(decode, self.jpegs)

    def error(self, name):
        reference = pillow()[REFERENCE]
        differences = [
            np.abs(self.functions[name](data).astype(int) - reference(data)).mean()
            for data in self.jpegs[:32]
        ]
        return float(np.mean(differences))


def serve(folder):
    """The peers' process: reads a name per line, answers with a line of JSON."""
    jpegs = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    contenders = Contenders(opencv(), jpegs)
    try:
        import torch  # noqa: F401

        contenders.add_torch("simplejpeg scaled + cv2 area")
    except ImportError:
        pass
    print(json.dumps({name: contenders.error(name) for name in contenders.runs}), flush=True)
    for line in sys.stdin:
        print(json.dumps(contenders.runs[line.strip()]()), flush=True)


class PeerProcess:
    """The contenders of another environment, with the interface of `Contenders`."""

    def __init__(self, python, folder):
        self.process = subprocess.Popen(
            [python, __file__, "--serve", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.errors = json.loads(self.process.stdout.readline())
        self.runs = {name: lambda name=name: self.ask(name) for name in self.errors}

    def ask(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def error(self, name):
        return self.errors[name]


def peers_python(with_torch):
    """The peers' interpreter; creates its environment if it is missing."""
    python = PEERS_ENV / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS_ENV], check=True)
    packages = [*PEERS, "torch"] if with_torch else list(PEERS)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(python)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", action="store_true", help="OpenCV and torch, in their own venv")
    parser.add_argument("--no-torch", action="store_true", help="peers without torch (3 GB)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)

    jpegs = make_jpegs(IMAGES)
    groups = [Contenders({**ours(), **pillow()}, jpegs)]
    if args.peers:
        folder = tempfile.mkdtemp(prefix="mmjax-decode-")
        for i, data in enumerate(jpegs):
            Path(folder, f"{i:04d}.jpg").write_bytes(data)
        groups.append(PeerProcess(peers_python(not args.no_torch), folder))

    runs = {name: (group, run) for group in groups for name, run in group.runs.items()}
    seconds = {name: [] for name in runs}
    for i in range(args.rounds + 1):
        for name, (_, run) in runs.items():
            taken = run()
            if i:  # the first round warms up
                seconds[name].append(taken)
    mean_bytes = sum(map(len, jpegs)) / len(jpegs) / 1e3
    print(f"{len(jpegs)} JPEGs of {mean_bytes:.0f} kB, {WORKERS} workers, {args.rounds} rounds")
    print("| contender | images/s | ratio | images per CPU second | ratio | error |")
    print("|---|---|---|---|---|---|")
    for name, (group, _) in runs.items():
        cells = []
        for mine, reference in zip(zip(*seconds[name]), zip(*seconds[REFERENCE])):
            cells.append(f"{len(jpegs) / statistics.median(mine):.0f}")
            cells.append(f"{statistics.median(a / b for a, b in zip(reference, mine)):.2f}")
        print(f"| {name} | {' | '.join(cells)} | {group.error(name):.2f} |")
    return None


if __name__ == "__main__":
    main()
