r"""BLIP's parts, each left out: 200 steps from encoders that contrast has trained.

    python -m mmjax.train --config=configs/blip_emoji.py --workdir=runs/blip_contrast \
        --config.loss_weights="{'contrastive': 1.0}" --config.evals="{}" --config.validation="()"
    python -m experiments.ablate --grid=experiments/blip_emoji/grid.py --out=runs/blip_emoji \
        --report=experiments/blip_emoji
"""

from configs.blip_emoji import captioning, emoji
from configs.clip_emoji import retrieval
from experiments.albef_emoji.grid import held_out_loss


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/blip_emoji.py",
        "fixed": {
            "init_from.path": "runs/blip_contrast",
            "total_steps": 200,
            "checkpoint.every": 200,
            "optim.learning_rate": 5e-4,
            "optim.warmup_steps": 20,
            "ema.decay": 0.98,
            "loss.queue_size": 512,
            "loss.alpha": 0.4,
            "evals": {
                "unseen_test": {**retrieval("unseen_test"), "rerank": 16},
                "captions": captioning(emoji("unseen_test"), emoji("train")),
                "losses": held_out_loss(),
            },
            "validation": (),
        },
        "arms": {
            "all": {},
            "no hard negatives": {"model.hard_negatives": False},
            "no distillation": {"loss.alpha": 0.0},
            "no queue": {"loss.queue_size": 0},
        },
        "baseline": "all",
        "seeds": [0, 1, 2],
        "metrics": {
            "unseen_test/text_to_image/recall@5": "text to image, recall@5",
            "unseen_test/image_to_text/recall@5": "image to text, recall@5",
            "unseen_test/reranked/text_to_image/recall@5": "text to image, re-ranked",
            "unseen_test/reranked/image_to_text/recall@5": "image to text, re-ranked",
            "losses/matching_accuracy": "matching, right",
            "captions/cider": "captions, CIDEr",
        },
    }
