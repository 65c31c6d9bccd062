"""The config of the default model; see configs/lit_photos.py."""

import math

from mmjax.config import defaults
from mmjax.models.efficientnet import lite_fields
from mmjax.photos.features import IMAGE_MODEL, LENGTHS, TEXT_MODEL

WIDTH = 1280  # of EfficientNet-Lite's features, and so of the shared space


def get_config():
    """The config, for the data set that `mmjax.photos.features` has written to data.train.root."""
    config = defaults()
    config.name = "lit_photos"
    config.batch_size = 512
    config.total_steps = 800
    config.log_every = 50
    config.checkpoint.every = 800
    config.checkpoint.keep = 1

    config.data.train = {"kind": "array_record", "root": "data/photo_names"}
    config.data.transform = "choose_features(0.3)"
    config.tokenizer = {"kind": "pretrained", "path": TEXT_MODEL}

    config.init_from.path = IMAGE_MODEL
    config.init_from.only = ("image/.*",)
    config.init_from.language_model = TEXT_MODEL
    text = {"width": 384, "depth": 6, "heads": 12, "mlp_dim": 1536, "vocab_size": 30_522}
    config.model = {
        "name": "clip",
        "embed_dim": WIDTH,
        "lock_image": True,
        "image_proj": False,
        "proj_bias": True,
        "text_map": 1024,
        "given": {"image_features": WIDTH, "text_features": text["width"]},
        "logit_scale_init": math.log(20.0),
        "image": {"kind": "efficientnet", **lite_fields("lite2")},
        "text": {
            **text,
            "kind": "bert",
            "length": LENGTHS[-1],
            "pool": "mean",
            "pooler": True,
        },
    }
    config.loss = {"kind": "softmax", "mask_duplicates": True, "alignment": True}
    config.loss_weights = {"alignment": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 20,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
        "freeze": ("image/.*", "text/.*", "logit_scale"),  # of which `alignment` is independent
    }
    return config
