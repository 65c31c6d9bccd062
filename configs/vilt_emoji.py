r"""ViLT on questions about emoji: one transformer over words and linear patches, from scratch.

    python -m mmjax.train --config=configs/vilt_emoji.py --workdir=runs/vilt_emoji

The questions, splits and baselines are those of configs/vqa_emoji.py. Expected on the test split:
0.51 (one seed); the words alone give 0.39 (`question_only/...`), the model without the image or
with another one 0.38 (`without_image/...`, `other_image/...`).
"""

from configs.vqa_emoji import questions, vqa
from mmjax.config import defaults

IMAGE = "decode | resize_between(48, 79, 8)"
TEXT = "first_caption | tokenize(16)"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "vilt_emoji"
    config.batch_size = 128
    config.total_steps = 600
    config.log_every = 20
    config.checkpoint.every = 200

    config.data.train = questions("train", bias=0.0)
    config.data.cached_transform = IMAGE
    config.data.transform = (
        f"random_affine(degrees=15, translate=0.1, scale=(0.7, 1.1)) | {TEXT} | label"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 1024}
    config.model = {
        "name": "vilt",
        "dtype": "bfloat16",
        "width": 96,
        "depth": 4,
        "heads": 4,
        "mlp_dim": 256,
        "activation": "gelu_tanh",
        "dropout": 0.1,
        "text": {"vocab_size": config.tokenizer.get_ref("vocab_size"), "length": 16},
        "image": {"image_size": (48, 48), "patch_size": 8},
        "num_classes": 42,
    }
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 60,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    steps = f"{IMAGE} | {TEXT}"
    train = questions("train")
    config.evals = {
        split: vqa(split, train) | {"transform": steps} for split in ("validation", "test")
    }
    config.evals.validation_loss = {
        "kind": "loss",
        "source": questions("validation"),
        "transform": f"{steps} | label",
    }
    return config
