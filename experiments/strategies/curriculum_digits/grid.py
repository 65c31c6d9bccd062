r"""Curricula on spoken and written digits, all of 400 steps of 64 rows.

    python -m experiments.ablate --grid=experiments/strategies/curriculum_digits/grid.py \
        --out=runs/curriculum_digits --report=experiments/strategies/curriculum_digits
"""

from configs.curriculum_digits import FIRST, HALF, THEN

PARTS = ("images", "recordings", "pairs", "hard_pairs")
WHOLE_FIRST = ((0, 1.0), (HALF - 1, 1.0), (HALF, 0.0))
HALF_THEN = ((0, 0.0), (HALF - 1, 0.0), (HALF, 0.5))
MASKED = {"model.mask_ratio": 0.3}
TASKS = ("masked_image", "masked_audio")


def mixture(**weights):
    """Settings with these weights of the parts; the others get none."""
    return {f"data.train.parts.{part}.weight": weights.get(part, 0.0) for part in PARTS}


def get_grid():
    """The grid of this study."""
    pairs = mixture(pairs=1.0)
    return {
        "config": "configs/curriculum_digits.py",
        "arms": {
            "pairs": pairs,
            "one modality, then pairs": mixture(images=FIRST, recordings=FIRST, pairs=THEN),
            "the same parts, mixed": mixture(images=0.25, recordings=0.25, pairs=0.5),
            "pairs, then one modality": mixture(
                images=HALF_THEN, recordings=HALF_THEN, pairs=WHOLE_FIRST
            ),
            "recordings, then + images": mixture(recordings=WHOLE_FIRST, pairs=THEN),
            "images, then + recordings": mixture(images=WHOLE_FIRST, pairs=THEN),
            "easy, then hard": mixture(pairs=WHOLE_FIRST, hard_pairs=THEN),
            "hard, then easy": mixture(hard_pairs=WHOLE_FIRST, pairs=THEN),
            "hard": mixture(hard_pairs=1.0),
            "masked prediction, then classes": {
                **pairs,
                **MASKED,
                "loss_weights.classification": THEN,
                **{f"loss_weights.{task}": WHOLE_FIRST for task in TASKS},
            },
            "masked prediction and classes": {
                **pairs,
                **MASKED,
                **{f"loss_weights.{task}": 0.5 for task in TASKS},
            },
        },
        "baseline": "pairs",
        "seeds": [0, 1, 2],
        "metrics": {
            "both/top1": "both",
            "audio_only/top1": "audio only",
            "image_only/top1": "image only",
        },
    }
