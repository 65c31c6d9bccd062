r"""Stamps of tuxpaint in an order: single modalities, then pairs, then all three.

    python -m mmjax.train --config=configs/curriculum_stamps.py --workdir=runs/curriculum_stamps

The parts of the mixture are the stamps of `fusion_stamps` with some of their modalities; their
weights by step are the curriculum, which as it stands is three stages of 100 steps. Tested as
`fusion_stamps`. Expected: see experiments/strategies/README.md.
"""

from configs.fusion_stamps import IMAGE, SOUND, stamps
from configs.fusion_stamps import get_config as fusion_stamps

STAGE = 100  # steps


def during(*stages):
    """The weight by step of a part that is in these stages, of 0, 1 and 2: 1 there, else 0."""
    weights = [float(i in stages) for i in range(3)]
    ends = ((i * STAGE, (i + 1) * STAGE - 1) for i in range(3))
    return tuple((step, w) for w, both in zip(weights, ends) for step in both)


# Part -> the set, and the modalities of it.
PARTS = {
    "image": ("tuxpaint", ("image",)),
    "text": ("tuxpaint", ("text",)),
    "audio": ("tuxpaint_sounds", ("audio",)),
    "image_text": ("tuxpaint", ("image", "text")),
    "image_audio": ("tuxpaint_sounds", ("image", "audio")),
    "audio_text": ("tuxpaint_sounds", ("audio", "text")),
    "image_audio_text": ("tuxpaint_sounds", ("image", "audio", "text")),
}
# In the last stage are all modalities that a stamp has.
STAGES = {name: (len(modalities) - 1,) for name, (_, modalities) in PARTS.items()}
STAGES["image_text"] = (1, 2)


def get_config():
    """The config of this experiment."""
    config = fusion_stamps()
    cached = {"image": IMAGE, "audio": SOUND}
    random = {
        "image": "random_resized_crop(48, scale=(0.6, 1)) | flip",
        "text": "first_caption | tokenize(12)",
    }
    config.data.train = {
        "kind": "mixture",
        "parts": {
            name: {
                "source": stamps(kind, "train"),
                "cached_transform": " | ".join(cached[m] for m in modalities if m in cached),
                "transform": " | ".join([*(random[m] for m in modalities if m in random), "label"]),
                "weight": during(*STAGES[name]),
            }
            for name, (kind, modalities) in PARTS.items()
        },
    }
    return config
