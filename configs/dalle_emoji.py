r"""DALL-E on emoji at 32 px: text of 16 tokens, then 8 x 8 codes of a tokenizer of another run.

    python -m mmjax.train --config=configs/dvae_emoji.py --workdir=runs/vq_emoji \
        --config.model.kind=vq --config.loss="{}" \
        --config.loss_weights="{'reconstruction': 1.0, 'commitment': 0.25}"
    python -m mmjax.train --config=configs/dalle_emoji.py --workdir=runs/dalle_emoji

The tokenizer is frozen, and gives the codes of the augmented images in every step. With
config.model.fingerprint, which training prints, a tokenizer that was trained anew is refused. For
the discrete VAE: --config.model.image_tokenizer.kind=gumbel and its path. Expected: see
experiments/dalle_emoji.md.
"""

from configs.clip_emoji import emoji
from configs.dvae_emoji import SIZE, TRANSFORM
from configs.dvae_emoji import get_config as tokenizer_config
from mmjax.config import defaults

LENGTH = 16
EVAL_TRANSFORM = f"{TRANSFORM} | first_caption | tokenize({LENGTH})"


def image_tokenizer():
    """The model of configs/dvae_emoji.py, with a codebook of vectors."""
    fields = tokenizer_config().model.to_dict()
    return {k: x for k, x in fields.items() if k != "name"} | {"kind": "vq"}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 600
    config.log_every = 25
    config.checkpoint.every = 300

    config.data.train = emoji("train")
    config.data.cached_transform = "decode | resize(36)"
    config.data.transform = (
        f"random_resized_crop({SIZE}, scale=(0.8, 1)) | flip"
        f" | choose_caption(template_p=0.0) | tokenize({LENGTH})"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 2048}
    config.init_from = {
        "path": "runs/vq_emoji",
        "only": ("(codebook/)?image_tokenizer/.*",),
        "language_model": "",
    }

    config.model = {
        "name": "dalle",
        "dtype": "bfloat16",
        "width": 128,
        "text": {"vocab_size": config.tokenizer.get_ref("vocab_size"), "length": LENGTH},
        "decoder": {
            "depth": 4,
            "heads": 4,
            "mlp_dim": 512,
            "activation": "gelu_tanh",
            "kernel": 5,
            "dropout": 0.1,
        },
        "image_tokenizer": image_tokenizer(),
    }
    config.loss_weights = {"text": 1 / 8, "image": 7 / 8}
    config.ema.decay = 0.99
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 60,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
        "freeze": ("image_tokenizer/.*",),
    }
    splits = ("seen_validation", "unseen_validation", "seen_test", "unseen_test")
    config.evals = {
        split: {
            "kind": "image_tokens",
            "source": emoji(split),
            "transform": EVAL_TRANSFORM,
            "train_source": emoji("train"),
        }
        for split in splits
    }
    config.validation = ("seen_validation", "unseen_validation")
    return config
