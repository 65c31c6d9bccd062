"""The host's input pipeline for ViT-B/32 at 224 pixels: examples per core, and the cores needed.

    python experiments/benchmarks/host_input.py
    python experiments/benchmarks/host_input.py --photos=DIR     # your JPEGs, not synthetic ones

Every way is the training pipeline itself (`mmjax.data.pipeline.train_batches`): reading a record by
its index, decoding, cropping, tokenizing, stacking. The ways take turns in each round; CPU seconds
of the process are what counts, since a busy machine affects them less than wall time. A core's rate
is examples per CPU second, median over the rounds; ratios are medians of same-round ratios. Images
are synthetic (see decode.py) unless --photos names a folder.

Then the fraction of time that a device waits: a simulated device that sleeps for as long as a step
would take, at half and at twice the rate that the pipeline has just reached.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import decode as synthetic  # noqa: E402
import jax  # noqa: E402

from mmjax.data import convert, pipeline
from mmjax.data.open_source import open_source  # noqa: E402
from mmjax.data.prefetch import prefetch_to_device  # noqa: E402
from mmjax.data.transforms import parse as transforms  # noqa: E402
from mmjax.run import tokenizer as tokenizers

DEMAND = 8900  # images/s of B/32 on an H100 at 40 % MFU
BATCH, THREADS = 64, 2
CROP = "random_resized_crop(224, scale=(0.9, 1){}) | first_caption | tokenize(77)"
BILINEAR = CROP.format(", method='bilinear'")
BICUBIC = CROP.format("")
# name -> (set, transform); the second is what configs/clip_b32_laion400m.py says
WAYS = {
    "JPEG, whole": ("original", f"decode | {BICUBIC}"),
    "JPEG, draft mode": ("original", f"decode(min_size=224) | {BICUBIC}"),
    "JPEG, draft mode from 180 px, bilinear": ("original", f"decode(min_size=180) | {BILINEAR}"),
    "ArrayRecord, 256 px JPEG": ("jpeg", f"decode | {BICUBIC}"),
    "ArrayRecord, 256 px JPEG, bilinear": ("jpeg", f"decode | {BILINEAR}"),
    "ArrayRecord, 256 px raw": ("raw", f"decode | {BICUBIC}"),
    "ArrayRecord, 256 px raw, bilinear": ("raw", f"decode | {BILINEAR}"),
    "ArrayRecord, 256 px raw, random_crop": (
        "raw",
        "decode | random_crop(224) | first_caption | tokenize(77)",
    ),
}
BASELINE = "JPEG, draft mode"


class Counted:
    """A source that counts the bytes read from it."""

    def __init__(self, source):
        self.name, self.class_names, self._source, self.read = source.name, None, source, 0

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        self.read += 1
        return self._source[index]


def write_sets(jpegs, folder):
    """Webdataset shard of the JPEGs, and what `mmjax.data.convert` makes of it: {name: source}."""
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i, data in enumerate(jpegs):
            caption = f"a photo of {i % 97} things beside a table, taken on a bright day number {i}"
            for name, content in ((f"{i:05d}.jpg", data), (f"{i:05d}.txt", caption.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    original = {"kind": "webdataset", "pattern": str(folder / "0.tar"), "data_dir": str(folder)}
    found = {"original": original}
    for name, quality in (("jpeg", 90), ("raw", None)):
        convert.convert(original, folder / name, size=256, quality=quality)
        found[name] = {"kind": "array_record", "root": str(folder / name)}
    return {name: open_source(settings, workdir=folder) for name, settings in found.items()}


class Way:
    """One way from files to batches."""

    def __init__(self, source, transform, tokenizer):
        self.source = Counted(source)
        self.transform = transforms.parse(transform, tokenizer=tokenizer)

    def stream(self):
        return pipeline.train_batches(
            self.source, self.transform, batch_size=BATCH, seed=0, num_threads=THREADS
        )

    def rates(self, examples):
        """(examples per CPU second, examples per second) of one turn."""
        before, cpu, start = self.source.read, time.process_time(), time.perf_counter()
        with contextlib.closing(self.stream()) as stream:
            for _ in range(examples // BATCH):
                next(stream)
        read = self.source.read - before
        return read / (time.process_time() - cpu), read / (time.perf_counter() - start)

    def waited(self, per_second, seconds):
        """Fraction of its time that a device waits which takes this many examples per second."""
        lies = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        with prefetch_to_device(self.stream(), lies) as stream:
            next(stream)
            waited, start = stream.wait_seconds, time.perf_counter()
            while time.perf_counter() - start < seconds:
                next(stream)
                time.sleep(BATCH / per_second)
            return (stream.wait_seconds - waited) / (time.perf_counter() - start)


def report(ways, rounds, sizes, waits):
    """The tables, as Markdown."""
    lines = ["| way | kB an example | examples/s a core | against draft mode | cores for 8,900/s |"]
    lines.append("|---|---|---|---|---|")
    for name, (where, _) in ways.items():
        rate = statistics.median(r[name][0] for r in rounds)
        ratios = [r[name][0] / r[BASELINE][0] for r in rounds]
        lines.append(
            f"| {name} | {sizes[where]:.0f} | {rate:,.0f} | {statistics.median(ratios):.2f}× "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {DEMAND / rate:.0f} |"
        )
    lines += ["", "| a device that asks for | waits, median (range) |", "|---|---|"]
    for factor, shares in waits.items():
        each = f"{min(shares):.0%} to {max(shares):.0%}"
        lines.append(
            f"| {factor} × what the host makes | {statistics.median(shares):.0%} ({each}) |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--pixels", type=int, nargs=2, default=(500, 375), help="width, height")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs to use instead")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--examples", type=int, default=256, help="in a turn")
    args = parser.parse_args()
    if args.photos:
        files = sorted(p for p in args.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        jpegs = [p.read_bytes() for p in files[: args.images]]
        jpegs *= -(-args.images // len(jpegs))
    else:
        jpegs = synthetic.make_jpegs(args.images, tuple(args.pixels))
    with tempfile.TemporaryDirectory(prefix="mmjax-host-input-") as folder:
        sources = write_sets(jpegs, Path(folder))
        captions = [sources["original"][i]["captions"][0] for i in range(len(jpegs))]
        tokenizer = tokenizers.make_tokenizer(
            {"kind": "train_bpe", "vocab_size": 1000}, corpus=captions
        )
        ways = {n: Way(sources[where], chain, tokenizer) for n, (where, chain) in WAYS.items()}
        for way in ways.values():
            way.rates(BATCH)  # warms up
        rounds, waits = [], {0.5: [], 2.0: []}
        for _ in range(args.rounds):
            rounds.append({name: way.rates(args.examples) for name, way in ways.items()})
            for factor, shares in waits.items():
                _, makes = ways[BASELINE].rates(args.examples)
                shares.append(ways[BASELINE].waited(factor * makes, seconds=3))
        sizes = {"original": sum(map(len, jpegs)) / len(jpegs) / 1e3}
        for name in ("jpeg", "raw"):
            files = Path(folder, name).glob("*.array_record")
            sizes[name] = sum(f.stat().st_size for f in files) / len(jpegs) / 1e3
    load = os.getloadavg()[0]
    print(f"{len(jpegs)} images, {args.rounds} rounds, {THREADS} threads, load {load:.0f}\n")
    print(report(WAYS, rounds, sizes, waits))


if __name__ == "__main__":
    main()
