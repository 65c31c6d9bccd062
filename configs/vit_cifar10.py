r"""ViT-Ti/4 on CIFAR-10 from folders of images, with RandAugment and Mixup.

    python -m mmjax.train --config=configs/vit_cifar10.py --workdir=runs/vit_cifar10 \
        --config.data.train.root=DIR/train --config.evals.test.source.root=DIR/test

DIR/train and DIR/test have one folder of images per class. The setting is that of DeiT
(Touvron et al. 2021, arXiv 2012.12877, table 9) at 32 px; 100 epochs are meant for an accelerator.
Expected: such small ViTs from scratch reach about 90 to 95 % (not measured here).
"""

from mmjax.config import defaults


def folder(root):
    """Images in one folder per class."""
    return {"kind": "folder", "root": root}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 256
    config.total_steps = 100 * 50_000 // 256
    config.log_every = 20
    config.eval_every = 1000
    config.validation = ("test",)
    config.checkpoint.every = 1000

    config.data.train = folder("data/cifar10/train")
    config.data.transform = (
        "decode | random_crop(32, padding=4) | flip | rand_augment(2, 9) | label"
    )
    config.data.batch_transform = "mixup(0.8, 10)"

    config.model = {
        "name": "vit",
        "variant": "Ti/4",
        "image_size": (32, 32),
        "pool": "mean",
        "stochastic_depth": 0.1,
        "num_classes": 10,
    }
    config.loss = {"label_smoothing": 0.1}
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 0.05,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    test = {"source": folder("data/cifar10/test"), "transform": "decode | resize(32) | label"}
    # Follows --config.data.train.root.
    train = folder(config.data.train.get_ref("root"))
    config.evals = {
        "test": {"kind": "classification", **test},
        "knn": {"kind": "knn", "train_source": train, **test},
    }
    return config
