r"""Curricula on stamps with image, sound and caption, all of 300 steps of 64 rows.

    python -m experiments.ablate --grid=experiments/strategies/curriculum_stamps/grid.py \
        --out=runs/curriculum_stamps --report=experiments/strategies/curriculum_stamps
"""

from configs.curriculum_stamps import PARTS, during, get_config

SINGLE, PAIRS = ("image", "text", "audio"), ("image_text", "image_audio", "audio_text")
ALL = "image_audio_text"
WHOLE = ("image_text", ALL)  # all modalities that a stamp has


def mixture(**weights):
    """Settings with these weights of the parts; the others get none."""
    return {f"data.train.parts.{part}.weight": weights.get(part, 0.0) for part in PARTS}


def stages(*parts):
    """A mixture with these parts in each of three stages, as often as each other."""
    of = {part: [i for i in range(3) if part in parts[i]] for part in PARTS}
    return mixture(**{part: during(*found) for part, found in of.items() if found})


def get_grid():
    """The grid of this study."""
    # The means over steps of the curriculum's, times 18.
    mixed = {**dict.fromkeys((*SINGLE, *PAIRS), 2.0), "image_text": 5.0, ALL: 3.0}
    return {
        "config": "configs/curriculum_stamps.py",
        "arms": {
            "all that a stamp has": mixture(image_text=0.5, image_audio_text=0.5),
            "one modality, then two, then all": stages(SINGLE, PAIRS, WHOLE),
            "the same parts, mixed": mixture(**mixed),
            "all, then two, then one modality": stages(WHOLE, PAIRS, SINGLE),
            "captions, then + images, then + sounds": stages(("text",), ("image_text",), WHOLE),
            "sounds, then + images, then + captions": stages(("audio",), ("image_audio",), (ALL,)),
        },
        "baseline": "all that a stamp has",
        "seeds": [0, 1, 2],
        "metrics": {f"{name}/top1": name.replace("_", ", ") for name in get_config().evals},
    }
