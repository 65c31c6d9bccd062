r"""DALL-E's discrete VAE on emoji at 32 px: 8 x 8 codes out of 512, and the pixels from them.

    python -m mmjax.train --config=configs/dvae_emoji.py --workdir=runs/dvae_emoji
    ... --config.model.kind=vq --config.loss="{}" \
        --config.loss_weights="{'reconstruction': 1.0, 'commitment': 0.25}"

The second line trains a VQ-VAE with the same network. Temperature and weight of the KL divergence
go as far as in Ramesh et al. 2021 (arXiv 2102.12092, appendix A.2), in fewer steps and linearly,
where the paper's follow a cosine; the weight is β = 6.6 divided by the 4 x 4 x 3 numbers of a code.
Expected: see experiments/dalle_emoji.md.
"""

from configs.clip_emoji import emoji
from mmjax.config import defaults

SIZE = 32
TRANSFORM = f"decode | resize({SIZE})"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 500
    config.log_every = 50
    config.checkpoint.every = 250

    config.data.train = emoji("train")
    config.data.cached_transform = "decode | resize(36)"
    config.data.transform = f"random_resized_crop({SIZE}, scale=(0.8, 1)) | flip"
    config.model = {
        "name": "image_tokenizer",
        "kind": "gumbel",
        "image_size": (SIZE, SIZE),
        "codes": 512,
        "width": 32,
        "blocks": 1,
        "groups": 3,
        "first": 64,
        "code_width": 32,
    }
    config.loss = {"temperature": ((0, 1.0), (350, 1 / 16))}
    config.loss_weights = {"reconstruction": 1.0, "kl": ((0, 0.0), (100, 6.6 / 48))}
    config.ema.decay = 0.99
    config.optim = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "weight_decay": 0.0,
        "grad_clip_norm": 1.0,
    }
    splits = ("seen_validation", "unseen_validation", "seen_test", "unseen_test")
    config.evals = {
        split: {"kind": "reconstruction", "source": emoji(split), "transform": TRANSFORM}
        for split in splits
    }
    config.validation = ("seen_validation", "unseen_validation")
    return config
