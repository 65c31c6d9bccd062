"""GLIDE on emoji: 32 x 32 drawings from their names, trained from scratch.

    python -m mmjax.train --config=configs/glide_emoji.py --workdir=runs/glide_emoji
    python -m mmjax.sample --model=runs/glide_emoji --prompt="red apple" --guidance=3 --out=a.png

One style and 80 % of the concepts are trained on, as in `clip_emoji`. An upsampler of such images:
--config.model.image_size=128 --config.model.low_res=32, and transforms of that size. What to expect
at most is `training/fid...`, of as many real training images.
"""

from configs.clip_emoji import emoji
from mmjax.config import defaults

SIZE, LENGTH = 32, 16
EVAL_TRANSFORM = f"decode | resize({SIZE}) | first_caption | tokenize({LENGTH})"


def generation(split, transform=EVAL_TRANSFORM, guidance=3.0):
    """Samples for a split beside its drawings."""
    return {
        "kind": "image_generation",
        "source": emoji(split),
        "train_source": emoji("train"),
        "transform": transform,
        "sample": {"sampler": "ddim", "steps": 25, "guidance": guidance},
        "extractor_size": 64,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 3000
    config.log_every = 50
    config.checkpoint.every = 500

    config.data.train = emoji("train")
    config.data.cached_transform = f"decode | resize({SIZE})"
    config.data.transform = f"choose_caption(template_p=0.0) | tokenize({LENGTH})"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 2048}

    config.model = {
        "name": "glide",
        "image_size": SIZE,
        "backbone": {
            "kind": "unet",
            "channels": (32, 64, 96),
            "blocks": 1,
            "attention": (False, False, True),
            "head_dim": 32,
            "groups": 8,
            "dropout": 0.1,
        },
        "text": {
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
            "length": LENGTH,
            "width": 96,
            "depth": 2,
            "heads": 3,
        },
        "text_dropout": 0.2,
        "schedule": {"name": "squared_cosine", "steps": 1000},
    }
    config.loss_weights = {"simple": 1.0, "vlb": 0.001}
    config.ema.decay = 0.995
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "b2": 0.99,
        "weight_decay": 0.01,
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        **{split: generation(split) for split in ("unseen_validation", "unseen_test")},
        "seen_loss": {
            "kind": "loss",
            "source": emoji("seen_validation"),
            "transform": EVAL_TRANSFORM,
        },
    }
    config.validation = ("unseen_validation", "seen_loss")
    return config
