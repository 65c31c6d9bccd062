r"""Images per second of indexing photographs of 12 megapixels on CPU: mmjax.search beside PyTorch.

    python experiments/benchmarks/index_photos.py --peers=PYTHON --photos=100 --rounds=3

Synthetic photographs (smooth noise, JPEG at quality 90, about as large as a camera's) are written
to --folder. Ours is `mmjax.search.build.update` with the default model into a new index, reading,
hashing, decoding, embedding and writing included. The peer is a loop over a DataLoader with two
workers: Pillow decodes and resizes, timm's tf_efficientnet_lite2 computes the features. PYTHON has
torch, torchvision, timm and Pillow. Each is a process of its own, warmed up; they take turns, and
ratios are medians of same-round ratios.

At the end, the time of a query alone among --vectors random ones, as `mmjax.search query` asks it.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from workers import ROOT, Process, answer, peak_memory

SIDE, BATCH = 260, 32


def write_photos(folder, number):
    """Photographs of 4000 x 3000 pixels, four scenes shifted; those that are there stay."""
    import simplejpeg

    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(number) if not (folder / f"{i:04d}.jpg").exists()]
    scenes = [scene(seed) for seed in range(4)] if missing else []
    for i in missing:
        shifted = np.roll(scenes[i % 4], 37 * i, axis=1)
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(shifted), 90, colorsubsampling="420")
        (folder / f"{i:04d}.jpg").write_bytes(data)


def scene(seed):
    """Smooth noise at several scales, [3000, 4000, 3] uint8."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    whole = np.full((3000, 4000, 3), 128, np.float32)
    for side, weight in ((8, 60), (40, 30), (200, 15), (1000, 8)):
        coarse = rng.standard_normal((3 * side // 4, side, 3)).astype(np.float32)
        for c in range(3):
            part = Image.fromarray(coarse[..., c]).resize((4000, 3000), Image.Resampling.BILINEAR)
            whole[..., c] += weight * np.asarray(part)
    return np.clip(whole, 0, 255).astype(np.uint8)


def ours(folder):
    """mmjax.search index."""
    from mmjax.embedder import open_embedder
    from mmjax.photos.default import default_model
    from mmjax.search import build
    from mmjax.search.index import Writer, create

    embedder = open_embedder(default_model())
    index = folder.parent / "index"

    def run():
        shutil.rmtree(index, ignore_errors=True)
        dim = embedder.loaded.config["embed_dim"]
        create(index, folder, "default", "fingerprint", dim, "float16")
        return build.update(Writer(index), embedder).embedded

    return run


def torch(folder):
    """A loop over a DataLoader."""
    import timm
    import torch
    from PIL import Image

    torch.set_num_threads(2)
    model = timm.create_model("tf_efficientnet_lite2", num_classes=0).eval()

    class Photos(torch.utils.data.Dataset):
        def __init__(self):
            self.paths = sorted(folder.glob("*.jpg"))

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, i):
            image = Image.open(self.paths[i]).convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
            return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() - 127) / 128

    loader = torch.utils.data.DataLoader(Photos(), batch_size=BATCH, num_workers=2)

    def run():
        with torch.inference_mode():
            found = torch.cat([model(batch) for batch in loader])
        return len(torch.nn.functional.normalize(found))

    return run


def serve(name, folder):
    """A contender's process: indexes the folder at every line that comes in."""
    if name == "ours":
        from mmjax.process import runtime

        runtime.prepare()
    run = {"ours": ours, "torch": torch}[name](folder)
    run()
    answer({"build": peak_memory()})
    for _ in sys.stdin:
        start = time.perf_counter()
        number = run()
        answer({"wall": time.perf_counter() - start, "images": number, "rss": peak_memory()})


def query_seconds(vectors, dim, storage):
    """The median time of a single query among random vectors in a file, after the first."""
    from mmjax.search.storage import encode
    from mmjax.search.top_k import Gallery

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((vectors, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stored, scales = encode(rows, storage)
    with tempfile.NamedTemporaryFile() as file:
        stored.tofile(file.name)
        # Mapped as an index maps it: an array that is not aligned as XLA needs would be copied.
        mapped = np.memmap(file.name, stored.dtype, "r", shape=stored.shape)
        gallery, times = Gallery(mapped, scales), []
        for i in range(20):
            start = time.perf_counter()
            gallery.search(rows[i : i + 1], 10)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", required=True)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "photos")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vectors", type=int, default=100_000)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    write_photos(args.folder / "photos", args.photos)
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    folder = str(args.folder / "photos")
    contenders = [
        Process(name, [python, __file__, "--serve", name, folder], env)
        for name, python in (("ours", sys.executable), ("torch", args.peers))
    ]
    results = []
    for r in range(args.rounds):
        turn = contenders[:: 1 if r % 2 else -1]
        results.append({one.name: one.time() for one in turn})
        print(json.dumps(results[-1]), flush=True)
    for one in contenders:
        one.close()
    ratios = [r["torch"]["wall"] / r["ours"]["wall"] for r in results]
    for name in ("ours", "torch"):
        seconds = statistics.median(r[name]["wall"] for r in results)
        memory = max(r[name]["rss"] for r in results)
        print(f"{name}: {args.photos / seconds:.1f} images/s, {memory:,.0f} MiB")
    print(f"ours is {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")
    for storage in ("float32", "float16"):
        found = query_seconds(args.vectors, 1280, storage)
        print(f"a query among {args.vectors:,} vectors of 1,280 in {storage}: {1e3 * found:.0f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
