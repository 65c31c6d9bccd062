r"""Sampling of an imbalance of 1:10:100: by size, by its square root, and balanced.

    python -m experiments.ablate --grid=experiments/strategies/sampling_digits/grid.py \
        --out=runs/sampling_digits --report=experiments/strategies/sampling_digits
"""

PARTS = ("pairs", "recordings", "images")


def get_grid():
    """The grid of this study."""
    words = ("proportional", "sqrt", "balanced")
    return {
        "config": "configs/imbalanced_digits.py",
        "arms": {word: {f"data.train.parts.{p}.weight": word for p in PARTS} for word in words},
        "baseline": "proportional",
        "seeds": [0, 1, 2],
        "metrics": {
            "both/top1": "both",
            "audio_only/top1": "audio only",
            "image_only/top1": "image only",
        },
    }
