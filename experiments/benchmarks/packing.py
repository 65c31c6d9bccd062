"""Padded rows of patches against packed ones: fraction of valid patches, time of a training step.

    python -m experiments.benchmarks.packing [FOLDER] [--rounds=3] [--images=32]

FOLDER has PNG files; the default is that of Tux Paint's stamps, which the source `tuxpaint`
downloads. Their sizes alone are read; pixels are random. Step time is that of a forward and
backward pass of a small NaFlex tower, in turns, for the same images at their own sizes. Results are
in packing.md.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mmjax.data.sources.packed import first_fit
from mmjax.data.transforms.patch_steps import size_in_patches
from mmjax.models.naflex import NaFlex
from mmjax.process import runtime

STAMPS = "~/.cache/mmjax/data/tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
PATCH, BUDGET, MOST = 16, 256, 16
ROWS = (256, 512)
BUCKETS = (64, 128, 256)
TOWER = {"width": 192, "depth": 4, "heads": 3, "mlp_dim": 768}


def sizes_of(folder):
    """(height, width) of every PNG file below a folder, from its header."""
    files = sorted(Path(folder).expanduser().rglob("*.png"))
    if not files:
        raise SystemExit(f"There is no PNG file in '{folder}': open the source tuxpaint once.")
    return [Image.open(file).size[::-1] for file in files]


def grids_of(sizes, enlarge):
    """Rows and columns of patches [N, 2] of images."""
    found = [size_in_patches(*size, PATCH, BUDGET, enlarge) for size in sizes]
    return np.asarray(found, np.int32) // PATCH


def layouts(grids):
    """name -> batches [(grids [B, M, 2], patches of a row)], which together hold all images."""
    counts = grids.prod(1)
    bucket = np.searchsorted(BUCKETS, counts)
    kinds = [(grids[bucket == b][:, None], n) for b, n in enumerate(BUCKETS) if (bucket == b).any()]
    found = {"padded": [(grids[:, None], BUDGET)], f"buckets {BUCKETS}": kinds}
    for length in ROWS:
        groups = first_fit(counts, np.ones_like(counts), length, MOST)
        packed = np.zeros((len(groups), max(map(len, groups)), 2), np.int32)
        for row, group in enumerate(groups):
            packed[row, : len(group)] = grids[group]
        found[f"packed in {length}"] = [(packed, length)]
    return found


def filled(batches):
    """Valid patches of all."""
    return sum(g.prod(-1).sum() for g, _ in batches) / sum(len(g) * n for g, n in batches)


def make_step():
    """(batch) -> gradient of the sum of the features of all images; one tower for all layouts."""
    tower = NaFlex(**TOWER, patch_size=PATCH)
    init = {
        "image": jnp.zeros((1, 4, 3 * PATCH**2), jnp.uint8),
        "image_grid": jnp.full((1, 1, 2), 2, jnp.int32),
    }
    variables = jax.jit(tower.init)(jax.random.key(0), init)

    @jax.jit
    def step(batch):
        def total(variables):
            features = tower.apply(variables, batch)["image_features"]
            return jnp.square(features).sum(where=(batch["image_grid"] > 0).all(-1)[..., None])

        return jax.grad(total)(variables)

    return step


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=STAMPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=32)
    args = parser.parse_args()
    runtime.prepare()
    sizes = sizes_of(args.folder)
    long = np.asarray([max(s) / min(s) for s in sizes])
    print(f"{len(sizes)} images; longer by shorter side: ", end="")
    print(", ".join(f"{p} %: {np.percentile(long, p):.2f}" for p in (10, 50, 90, 99)))
    valid = {}
    for enlarge in (True, False):
        valid = {name: filled(x) for name, x in layouts(grids_of(sizes, enlarge)).items()}
        print(f"enlarge={enlarge}: ", end="")
        print(
            ", ".join(f"{name} {fraction:.1%} valid" for name, fraction in valid.items()),
            flush=True,
        )

    step, rng = make_step(), np.random.default_rng(0)
    chosen = rng.choice(len(sizes), args.images, replace=False)
    made, times = {}, {name: [] for name in valid}
    for name, batches in layouts(grids_of([sizes[i] for i in chosen], False)).items():
        made[name] = [
            {"image": rng.integers(0, 256, (len(g), n, 3 * PATCH**2), np.uint8), "image_grid": g}
            for g, n in batches
        ]
    for turn in range(args.rounds + 1):  # the first compiles
        for name, batches in made.items():
            start = time.perf_counter()
            for batch in batches:
                jax.block_until_ready(step(batch))
            if turn:
                times[name].append(time.perf_counter() - start)
        if turn:
            print(", ".join(f"{name} {x[-1]:.2f} s" for name, x in times.items()), flush=True)
    for name in times:
        ratios = sorted(a / b for a, b in zip(times["padded"], times[name]))
        print(f"{name}: {statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
