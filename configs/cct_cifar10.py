r"""CCT-2/3x2 on CIFAR-10 from folders of images, in the setting of its authors' script.

    python -m mmjax.train --config=configs/cct_cifar10.py --workdir=runs/cct_cifar10 \
        --config.data.train.root=DIR/train --config.evals.test.source.root=DIR/test

DIR/train and DIR/test have one folder of images per class. Setting: SHI-Labs/Compact-Transformers,
examples/main.py, for Hassani et al. 2021 (arXiv 2104.05704): 200 epochs with batches of 128, AdamW
at 5e-4 with weight decay 0.03 of all parameters, 5 epochs of warm-up, then a cosine; AutoAugment,
random crops, flips, label smoothing 0.1, dropout 0.1 of attention weights, stochastic depth to 0.1.
Published: 89.17 % (examples/README.md there; CCT-2/3x2, the best of 200 epochs as measured on the
test set). What differs: the learning rate changes by step and not by epoch, its warm-up is linear,
AutoAugment's rotations go both ways, and the head's initial weights are 0.

ViT-Lite-6/4, CVT-6/4 and CCT-7/3x1 of the same page, as `--config.model`:
    {'depth': 6, **WIDE, 'stem': 'patch', 'patch_size': 4, 'pool': 'cls' or 'sequence'}
    {'depth': 7, **WIDE, 'patch_size': 2}   with WIDE = {'width': 256, 'heads': 4, 'mlp_dim': 512}
"""

from configs.vit_cifar10 import folder
from mmjax.config import defaults

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
EPOCH = 50_000 / 128


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 128
    config.total_steps = int(200 * EPOCH)
    config.log_every = 100
    config.eval_every = int(5 * EPOCH)
    config.validation = ("test",)
    config.checkpoint.every = 1000

    config.data.train = folder("data/cifar10/train")
    config.data.cached_transform = "decode"
    config.data.transform = "auto_augment('cifar10') | random_crop(32, padding=4) | flip | label"
    config.model = {
        "name": "vit",
        "width": 128,
        "depth": 2,
        "heads": 2,
        "mlp_dim": 128,
        "image_size": (32, 32),
        "image_mean": MEAN,
        "image_std": STD,
        "stem": "conv_pool",
        "patch_size": 4,
        "pool": "sequence",
        "block_norm": "between",
        "norm_epsilon": 1e-5,
        "qkv_bias": False,
        "position_std": 0.2,
        "attention_dropout": 0.1,
        "stochastic_depth": 0.1,
        "num_classes": 10,
    }
    config.loss = {"label_smoothing": 0.1}
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 5e-4,
        "warmup_steps": int(5 * EPOCH),
        "weight_decay": 0.03,
        "weight_decay_include": (".*",),
    }
    test = {"source": folder("data/cifar10/test"), "transform": "decode | resize(32) | label"}
    config.evals = {"test": {"kind": "classification", **test}}
    return config
