r"""Alignment beyond contrast, the modality gap, and retrieval, on the features of emoji.

    python -m mmjax.photos.features --config=configs/align_emoji.py
    python -m experiments.ablate --grid=experiments/strategies/alignment/grid.py \
        --out=runs/alignment --report=experiments/strategies/alignment
"""

import math

CONTRAST = {"loss_weights.contrastive": 1.0}
NO_CONTRAST = {"loss_weights.contrastive": 0.0}
ADVERSARY = {"model.discriminator": 128, "loss_weights.adversarial": 0.3}
LINEAR = {"model.head.inner": 0}
TO_TEXT = {"model.space": "text", "loss_weights.translation": 1.0}
CYCLE = {"model.cycle": True, "loss_weights.cycle": 0.5}
FROM_300 = ((0, 0.0), (299, 0.0), (300, 1.0))


def fixed(scale):
    """A temperature of 1 / scale, not learned."""
    return {"model.logit_scale_init": math.log(scale), "optim.freeze": ("logit_scale",)}


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/align_emoji.py",
        "arms": {
            "contrast": CONTRAST,
            "contrast, temperature 0.5": fixed(2.0),
            "contrast, temperature 0.1": fixed(10.0),
            "contrast, temperature 0.01": fixed(100.0),
            "contrast + adversary": {**CONTRAST, **ADVERSARY},
            "contrast + transport": {**CONTRAST, "loss_weights.transport": 1.0},
            "contrast + centroids": {**CONTRAST, "loss_weights.centroids": 1.0},
            "contrast + alignment": {**CONTRAST, "loss_weights.alignment": 1.0},
            "contrast, fine-tuned with centroids": {
                **CONTRAST,
                "loss_weights.centroids": FROM_300,
            },
            "adversary alone": {**NO_CONTRAST, **ADVERSARY},
            "transport alone": {**NO_CONTRAST, "loss_weights.transport": 1.0},
            "translation to text, linear": {**NO_CONTRAST, **TO_TEXT, **LINEAR},
            "translation to text": {**NO_CONTRAST, **TO_TEXT},
            "translation to text, cycle": {**NO_CONTRAST, **TO_TEXT, **CYCLE},
            "contrast in text space": {**CONTRAST, "model.space": "text"},
        },
        "baseline": "contrast",
        "seeds": [0, 1, 2],
        "metrics": {
            "unseen_test/none/gap": "gap",
            "unseen_test/none/separability": "separability",
            "unseen_test/none/recall@1": "recall@1",
            "unseen_test/none/recall@5": "recall@5",
        },
    }
