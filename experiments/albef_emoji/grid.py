r"""ALBEF's parts, each left out: 200 steps from encoders trained by contrast, as in the paper.

    python -m mmjax.train --config=configs/albef_emoji.py --workdir=runs/albef_contrast \
        --config.loss_weights="{'contrastive': 1.0}" --config.evals="{}" --config.validation="()"
    python -m experiments.ablate --grid=experiments/albef_emoji/grid.py --out=runs/albef_emoji \
        --report=experiments/albef_emoji
"""

from configs.clip_emoji import emoji, retrieval

ALL = {"contrastive": 1.0, "matching": 1.0, "masked_text": 1.0}


def held_out_loss():
    """The losses on drawings in the other vendor's style."""
    source = emoji("seen_validation")
    transform = "decode | resize(48) | first_caption | tokenize(16)"
    return {"kind": "loss", "source": source, "transform": transform}


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/albef_emoji.py",
        "fixed": {
            "init_from.path": "runs/albef_contrast",
            "total_steps": 200,
            "checkpoint.every": 200,
            "optim.learning_rate": 5e-4,
            "optim.warmup_steps": 20,
            "ema.decay": 0.98,
            "loss.queue_size": 512,
            "loss.alpha": 0.4,
            "evals": {
                "unseen_test": {**retrieval("unseen_test"), "rerank": 16},
                "losses": held_out_loss(),
            },
            "validation": (),
        },
        "arms": {
            "all": {},
            "no hard negatives": {"model.hard_negatives": False},
            "no distillation": {"loss.alpha": 0.0},
            "no queue": {"loss.queue_size": 0},
            "no masked text": {"loss_weights": {"contrastive": 1.0, "matching": 1.0}},
        },
        "baseline": "all",
        "seeds": [0, 1, 2],
        "metrics": {
            "unseen_test/text_to_image/recall@5": "text to image, recall@5",
            "unseen_test/image_to_text/recall@5": "image to text, recall@5",
            "unseen_test/reranked/text_to_image/recall@5": "text to image, re-ranked",
            "unseen_test/reranked/image_to_text/recall@5": "image to text, re-ranked",
            "losses/matching_accuracy": "matching, right",
        },
    }
