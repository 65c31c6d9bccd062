r"""Two frozen spaces, of EfficientNet-Lite0 and of MiniLM, aligned on emoji; the gap between them.

    python -m mmjax.photos.features --config=configs/align_emoji.py
    python -m mmjax.train --config=configs/align_emoji.py --workdir=runs/align_emoji

The first command keeps what the towers make of the drawings and names (those of the training set
are the ones of `lit_emoji`); the second trains heads on them, in seconds. Beside contrast: an
adversary (`model.discriminator`, `loss_weights.adversarial`), transport, translation with a cycle
(`model.space`, `model.cycle`). Tested on unseen concepts, before and after treatments of the gap.
Expected: see experiments/strategies/README.md.
"""

import math

from configs.clip_emoji import emoji
from configs.lit_emoji import COPIES, EVAL_TRANSFORM, IMAGE_MODEL, IMAGES
from mmjax.config import defaults
from mmjax.photos.features import TEXT_MODEL

TOWERS = {"image_model": IMAGE_MODEL, "text_model": TEXT_MODEL}


def features(split, root, **settings):
    """Features of a split of the emoji set."""
    return {"kind": "features", "root": root, "of": emoji(split), **TOWERS, **settings}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 256
    config.total_steps = 400
    config.log_every = 50
    config.checkpoint.every = 400

    copies = {"transform": IMAGES, "copies": COPIES}
    train = features("train", "data/emoji_features", **copies)
    config.data.train = train
    config.data.transform = "choose_features"

    config.model = {
        "name": "aligner",
        "image_width": 1280,
        "text_width": 384,
        "embed_dim": 256,
        "head": {"inner": 512, "dropout": 0.3},
        "logit_scale_init": math.log(20.0),
    }
    config.loss = {"mask_duplicates": True}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 30,
        "b2": 0.98,
        "weight_decay": 0.05,
    }

    for split in ("unseen_validation", "unseen_test"):
        fixed = {"transform": EVAL_TRANSFORM}
        config.evals[split] = {
            "kind": "modality_gap",
            "source": features(split, f"data/emoji_features_{split}", **fixed),
            "train_source": train,
            "transform": "first_features",
        }
    config.validation = ()
    return config
