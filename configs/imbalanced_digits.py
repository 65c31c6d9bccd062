r"""Digits of which few are paired: 2,000 images, 200 recordings, and 20 pairs of both.

    python -m mmjax.train --config=configs/imbalanced_digits.py --workdir=runs/imbalanced_digits \
        --config.data.train.parts.pairs.source.first.source.root=FSDD.tar.gz

A set of modalities is sampled by its size (`weight` "proportional"), by the square root of its
size ("sqrt"), or as often as the others ("balanced"); no image and no recording is in two parts.
Tested as `fusion_digits`, on another speaker. Expected: see experiments/strategies/README.md.
"""

from configs.fusion_digits import SOUND, TRAIN_SPEAKERS
from configs.fusion_digits import get_config as fusion_digits

CROP = "random_crop(28, padding=2) | label"


def recordings(start, stop):
    """From `start` to `stop`, as fractions, of the training speakers' 2,000 recordings."""
    fsdd = {"kind": "tfds", "name": "fsdd", "split": TRAIN_SPEAKERS, "root": "data/fsdd.tar.gz"}
    return {"kind": "part", "source": fsdd, "start": start, "stop": stop}


def images(first, last):
    """MNIST's training images `first` to `last`."""
    return {"kind": "tfds", "name": "mnist_digits", "split": f"train[{first}:{last}]"}


def get_config():
    """The config of this experiment."""
    config = fusion_digits()
    pairs = {
        "kind": "paired",
        "first": recordings(0.0, 0.01),
        "second": images(0, 1000),
        "length": 20,
    }
    parts = {
        "pairs": {
            "source": pairs,
            "cached_transform": f"decode | {SOUND}",
            "transform": CROP,
        },
        "recordings": {
            "source": recordings(0.01, 0.11),
            "cached_transform": SOUND,
            "transform": "label",
        },
        "images": {
            "source": images(1000, 3000),
            "cached_transform": "decode",
            "transform": CROP,
        },
    }
    config.data.train = {
        "kind": "mixture",
        "parts": {name: {**part, "weight": "proportional"} for name, part in parts.items()},
    }
    config.data.cached_transform = ""
    config.data.transform = ""
    return config
