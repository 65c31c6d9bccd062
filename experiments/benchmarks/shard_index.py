"""The index of webdataset shards: CPU per record, bytes per record, and the start of a large set.

    python experiments/benchmarks/shard_index.py rates --before=DIR --webdataset=DIR
    python experiments/benchmarks/shard_index.py first --webdataset=DIR
    python experiments/benchmarks/shard_index.py merge --shards=300 --records=10000
    python experiments/benchmarks/shard_index.py laion

`rates`: contenders index the same shards in turn, each in a process of its own with one thread of
work; --before is a checkout of another version of mmjax, --webdataset a folder of `pip install
--target`. "pax" shards have a pax header for each file, as the webdataset library and with it
img2dataset write them; "ustar" shards have none. `first`: the first 256 images of shards that are
not indexed, decoded. `merge`: indexes of shards are made up (random hashes, short captions), merged
and opened. `laion`: 41,408 shards of 10,000 records, all of which are the same one: what
`configs/clip_b32_laion400m.py` needs until its first batch.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from workers import ROOT

WORDS = ("a", "red", "dog", "house", "on", "the", "green", "river", "with", "many", "people")
CODE = {
    "scan of headers": """
import os
for path in PATHS:
    file = os.open(path, os.O_RDONLY)
    at, end = 0, os.fstat(file).st_size
    while at < end:
        block = os.pread(file, 512, at)
        if not block[0]:
            break
        at += 512 + (int(block[124:135], 8) + 511 & -512)
""",
    "tarfile": """
import tarfile
for path in PATHS:
    with tarfile.open(path) as tar:
        for member in tar:
            member.name, member.offset_data, member.size
""",
    "webdataset": """
import webdataset
for sample in webdataset.WebDataset(PATHS, shardshuffle=False):
    sample["txt"]
""",
    "before": """
from mmjax.data.sources.webdataset import open_shards
open_shards(PATTERN, data_dir=CACHE, workdir=CACHE)
""",
    "mmjax": """
from pathlib import Path
from mmjax.data.shards import build, merged, pattern
shards, settings = pattern.find_shards(PATTERN), build.Settings("caption", "image")
build.build(PATTERN, shards, settings, Path(CACHE), processes=1)
merged.open_merged(PATTERN, shards, settings, Path(CACHE))
""",
}
FIRST = {  # 256 images and captions of shards that nobody has indexed; shuffled, from any of them
    "webdataset": """
import io
from PIL import Image
stream = iter(webdataset.WebDataset(PATHS, shardshuffle=100).shuffle(1000))
for _ in range(256):
    sample = next(stream)
    Image.open(io.BytesIO(sample["jpg"])).convert("RGB"), sample["txt"]
""",
}
for name, window in (("mmjax, all", 0), ("mmjax, window of 2", 2)):
    FIRST[name] = f"""
from mmjax.data import mixture, pipeline
from mmjax.data.transforms.decode import decode_image
train = {{"kind": "webdataset", "pattern": PATTERN, "data_dir": CACHE, "window": {window}}}
source = mixture.open_training({{"train": train}}, workdir=CACHE)
read = lambda example, rng: {{"image": decode_image(example["image"])}}
next(pipeline.train_batches(source, read, batch_size=256, seed=0))
"""
IMPORTS = {
    "webdataset": "import webdataset",
    "before": "import mmjax.data.sources.webdataset",
    "mmjax": """
import mmjax.data.mixture, mmjax.data.pipeline
from mmjax.data.shards.index import image_extensions
image_extensions()
""",
}


def photo() -> bytes:
    from PIL import Image

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
    noise = np.asarray(small.resize((256, 256))).astype(int) + rng.integers(-9, 9, (256, 256, 3))
    out = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def write_shards(folder: Path, form: str, shards: int, records: int) -> None:
    rng, image = np.random.default_rng(0), photo()
    facts = {"url": "http://example.org/" + "x" * 60, "status": "success", "sha256": "0" * 64}
    facts |= {"width": 256, "height": 256, "original_width": 800, "exif": "{}"}
    kind = tarfile.PAX_FORMAT if form == "pax" else tarfile.USTAR_FORMAT
    for s in range(shards):
        with tarfile.open(folder / f"{s:05d}.tar", "w", format=kind) as tar:
            for i in range(records):
                key, caption = f"{s:05d}{i:04d}", " ".join(rng.choice(WORDS, 10))
                files = {"jpg": image, "json": json.dumps({**facts, "caption": caption})}
                for extension, data in (files | {"txt": caption}).items():
                    data = data.encode() if isinstance(data, str) else data
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size, member.mtime = len(data), 1.7e9 + i / 7 if form == "pax" else 0
                    tar.addfile(member, io.BytesIO(data))


def run_once(name: str, code: str, clock: str, folder: Path, args: argparse.Namespace) -> float:
    """Seconds, by a clock of `time`."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    pattern, paths = str(folder / "*.tar"), sorted(map(str, folder.glob("*.tar")))
    code = f"""
import time
PATTERN, PATHS, CACHE = {pattern!r}, {paths!r}, {str(cache)!r}
{IMPORTS.get(name.partition(",")[0], "")}
start = time.{clock}()
{code}
print(time.{clock}() - start)
"""
    path = {"before": args.before, "webdataset": args.webdataset}.get(name, ROOT)
    environ = {**os.environ, "PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def rates(args: argparse.Namespace) -> None:
    names = [n for n in CODE if n not in ("before", "webdataset") or getattr(args, n)]
    for form in ("ustar", "pax"):
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            write_shards(Path(folder), form, args.shards, args.records)
            found = {name: [] for name in names}
            for _ in range(args.rounds):
                for name in names:
                    seconds = run_once(name, CODE[name], "process_time", Path(folder), args)
                    found[name].append(1e6 * seconds / (args.shards * args.records))
        for name, values in found.items():
            ratio = statistics.median(v / o for v, o in zip(values, found["mmjax"]))
            print(
                f"{form:6s} {name:16s} {statistics.median(values):7.1f} µs CPU per record "
                f"({min(values):.1f} to {max(values):.1f}), {ratio:.1f} times mmjax's"
            )


def first(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        write_shards(Path(folder), "pax", args.shards, args.records)
        found = {name: [] for name in FIRST}
        for _ in range(args.rounds):
            for name, code in FIRST.items():
                found[name].append(run_once(name, code, "perf_counter", Path(folder), args))
    for name, values in found.items():
        print(
            f"{name:20s} {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
        )


def memory() -> str:
    facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    named = {"anonymous": "RssAnon", "mapped files": "RssFile", "peak of both": "VmHWM"}
    return ", ".join(f"{k} {int(facts[v].split()[0]) / 1024:,.0f} MB" for k, v in named.items())


class Clock:
    """Prints wall time, CPU time and memory of what is between two calls."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __call__(self, what: str) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        print(f"{what}: {wall:.3f} s, {cpu:.3f} CPU s; {memory()}", flush=True)
        self.__init__()


def merge(args: argparse.Namespace) -> None:
    from mmjax.data import columns
    from mmjax.data.shards import build, merged, pattern

    settings, rng = build.Settings("caption", "image"), np.random.default_rng(0)
    number = args.records
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        cache, name = Path(folder) / "cache", f"{folder}/{{00000..{args.shards - 1:05d}}}.tar"
        for s in range(args.shards):
            Path(folder, f"{s:05d}.tar").touch()
        for s, shard in enumerate(pattern.find_shards(name)):
            lines = b"".join(b'["%05d%05d","%s"]\n' % (s, i, b"x" * 60) for i in range(number))
            arrays = {k: np.arange(number, dtype=np.uint32) for k in ("block", "size")}
            arrays["text"] = np.arange(number, dtype=np.uint32) * (len(lines) // number)
            arrays["hash"] = rng.integers(0, 2**64, number, np.uint64)
            arrays["texts"] = np.frombuffer(lines, np.uint8)
            facts = {"state": build.index_state(shard, settings), "bad": [], "skipped": {}}
            path = build.index_file(cache, shard, settings)
            columns.write(path, facts | {"several": [0, ""]}, arrays)
        size = sum(path.stat().st_size for path in cache.iterdir()) / (args.shards * number)
        print(f"on the disk: {size:.1f} bytes per record in the indexes of the shards")
        clock = Clock()
        merged.open_merged(name, pattern.find_shards(name), settings, cache)
        clock("merging")
        found = merged.open_merged(name, pattern.find_shards(name), settings, cache)
        clock(f"opening {len(found):,} records")
        (file,) = cache.glob("*.merged")
        print(f"on the disk: {file.stat().st_size / len(found):.2f} bytes per record merged")
        rows = rng.integers(0, len(found), 20_000).tolist()
        for row in rows:
            found.place(row)
        clock("20,000 places")
        for row in range(min(20_000, len(found))):
            found.text(row)
        clock("20,000 captions in order")
        for row in rows[:2000]:
            found.text(row)
        clock("2,000 captions anywhere")


def laion(args: argparse.Namespace) -> None:
    from mmjax import config as configs
    from mmjax.data import columns, mixture, pipeline
    from mmjax.data.shards import build, merged, pattern
    from mmjax.data.transforms import parse

    settings, number = build.Settings("caption", "image"), args.records
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        write_shards(Path(folder), "pax", 1, 1)
        cache = merged.cache_folder(Path(folder) / "data")
        first = Path(folder, "00000.tar")
        build.build("", pattern.find_shards(str(first)), settings, cache)
        (index,) = cache.iterdir()
        for s in range(1, args.shards):
            os.link(first, Path(folder, f"{s:05d}.tar"))
        name = f"{folder}/{{00000..{args.shards - 1:05d}}}.tar"
        shards = pattern.find_shards(name)
        for shard in shards[1:]:
            os.link(index, build.index_file(cache, shard, settings))
        _, one = columns.read(index)
        facts = {"state": merged._state(shards, settings), "bad": [], "skipped": {}}
        total = number * len(shards)
        kinds = {"ends": (np.int64, len(shards)), "records": (np.uint32, 3 * total)}

        def fill(views):
            views["ends"][:] = number * np.arange(1, len(shards) + 1)
            views["records"].reshape(-1, 3)[:] = [one[k][0] for k in ("block", "size", "text")]

        path = merged._file(cache, shards, settings)
        columns.write_with(path, facts | {"several": [0, ""]}, kinds, fill)
        config = configs.load("configs/clip_b32_laion400m.py", [])
        config.data.train.pattern, data = name, config.data
        os.environ["MMJAX_DATA_DIR"] = str(Path(folder) / "data")
        transform = (
            "decode(min_size=224) | random_resized_crop(224, scale=(0.9, 1)) | first_caption"
        )
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        print(f"before: {memory()}")
        clock = Clock()
        source = mixture.open_training(data, workdir=Path(folder) / "run")
        clock(f"opening {len(source):,} records")
        batches = pipeline.train_batches(source, parse.parse(transform), batch_size=256, seed=0)
        next(batches)
        clock("the first batch of 256")
        for _ in range(3):
            next(batches)
        clock("three more batches")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("rates", "first", "merge", "laion"))
    parser.add_argument("--before", help="a checkout of another version of mmjax")
    parser.add_argument("--webdataset", help="a folder that has the package webdataset")
    parser.add_argument("--scratch", help="where the shards are written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=None)
    parser.add_argument("--records", type=int, default=None, help="of each shard")
    given = parser.parse_args()
    sizes = {"rates": (2, 2000), "first": (20, 1000), "merge": (300, 10_000)}
    shards, records = sizes.get(given.what, (41_408, 10_000))
    given.shards, given.records = given.shards or shards, given.records or records
    globals()[given.what](given)
