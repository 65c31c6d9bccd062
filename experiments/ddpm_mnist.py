"""Whether digits that are sampled by class are the digits that were asked for.

    python -m experiments.ddpm_mnist --model=runs/ddpm_mnist --guidance=1,2,4 --count=200

The class of a sample is that of its nearest neighbor, by Euclidean distance, among 20,000 training
images of MNIST; beside it the same for test images, which is as good as it gets, and for test
images under labels at random. The median distance to that neighbor, over that of test images, is
below 1 for samples that are smoother than real ones, or copied.
"""

import argparse

import numpy as np

from mmjax import pretrained
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse
from mmjax.models.systems import make_system
from mmjax.sample.__main__ import draw

TRAIN, TEST = 20_000, 1_000


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 784] in 0..1 and labels of a split of MNIST."""
    source = open_source({"kind": "tfds", "name": "mnist_digits", "split": split})
    read, rng = parse("decode | label"), np.random.default_rng(0)
    rows = [read(source[i], rng) for i in range(len(source))]
    return flat(np.stack([x["image"] for x in rows])), np.asarray([x["label"] for x in rows])


def flat(images: np.ndarray) -> np.ndarray:
    """The first channel of images [N, H, W, 3], as rows of numbers in 0..1."""
    return images[..., 0].reshape(len(images), -1).astype(np.float32) / 255


def nearest(train: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest training row of each row, and its distance."""
    squared = (train**2).sum(1)[None] - 2 * rows @ train.T + (rows**2).sum(1)[:, None]
    index = squared.argmin(1)
    return index, np.sqrt(np.maximum(squared[np.arange(len(rows)), index], 0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--guidance", default="1,2,4")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, labels = digits(f"train[:{TRAIN}]")
    test, truth = digits(f"test[:{TEST}]")
    index, real = nearest(train, test)
    right = labels[index] == truth
    print(f"test images: {right.mean():.3f} of {TEST} by their nearest neighbor")
    shuffled = np.random.default_rng(0).permutation(truth)
    print(f"test images under labels at random: {(labels[index] == shuffled).mean():.3f}")
    loaded = pretrained.load(args.model)
    system = make_system({"model": loaded.config})
    given = {"label": np.arange(10, dtype=np.int32)}
    for guidance in map(float, args.guidance.split(",")):
        settings = {"steps": args.steps, "guidance": guidance, "sampler": "dpm_solver"}
        found = draw(
            system, loaded, given, args.count, seed=args.seed, batch_size=50, settings=settings
        )
        index, distance = nearest(train, flat(found["image"]))
        right = labels[index] == np.arange(args.count) % 10
        ratio = np.median(distance) / np.median(real)
        print(f"guidance {guidance:g}: {right.mean():.3f} of {args.count}, distance {ratio:.2f}")


if __name__ == "__main__":
    main()
