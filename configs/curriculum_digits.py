r"""Spoken and written digits in an order: single modalities before pairs, or other curricula.

    python -m mmjax.train --config=configs/curriculum_digits.py --workdir=runs/curriculum_digits \
        --config.data.train.parts.pairs.source.first.root=FSDD.tar.gz

The parts of the mixture are the same 4,000 pairs as in `fusion_digits`: whole, one modality alone,
and whole with more augmentation. Their weights by step are the curriculum; as it stands, the first
half of the steps is on single modalities. Expected: see experiments/strategies/README.md.
"""

from configs.fusion_digits import SOUND, TRAIN_SPEAKERS, digits
from configs.fusion_digits import get_config as fusion_digits

HALF = 200  # steps
FIRST = ((0, 0.5), (HALF - 1, 0.5), (HALF, 0.0))  # weights by step: in the first half
THEN = ((0, 0.0), (HALF - 1, 0.0), (HALF, 1.0))  # in the second


def get_config():
    """The config of this experiment."""
    config = fusion_digits()
    source = digits(TRAIN_SPEAKERS, "train[:4000]", 4000)
    crop = "random_crop(28, padding=2) | label"
    chains = {  # what is cached, what is random
        "images": ("decode", crop),
        "recordings": (SOUND, "label"),
        "pairs": (f"decode | {SOUND}", crop),
        "hard_pairs": (
            f"decode | {SOUND}",
            "random_affine(degrees=20, translate=0.1, scale=(0.8, 1.2))"
            " | spec_augment(time=0.3, frequency=0.3) | label",
        ),
    }
    weights = {"images": FIRST, "recordings": FIRST, "pairs": THEN, "hard_pairs": 0.0}
    config.data.train = {
        "kind": "mixture",
        "parts": {
            name: {
                "source": source,
                "cached_transform": cached,
                "transform": transform,
                "weight": weights[name],
            }
            for name, (cached, transform) in chains.items()
        },
    }
    config.data.cached_transform = ""
    config.data.transform = ""
    return config
