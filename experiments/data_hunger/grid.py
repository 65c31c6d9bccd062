r"""A ViT's hunger for data: test accuracy on CIFAR-10 by the number of training images, at equal
steps: patches, a convolutional stem, CCT's convolutions and sequence pooling (Hassani et al. 2021,
arXiv 2104.05704), each also with RandAugment and Mixup.

    python -m experiments.ablate --grid=experiments/data_hunger/grid.py --out=runs/data_hunger \
        --report=experiments/data_hunger
    python -m experiments.data_hunger.frozen --cifar10=cifar10.tar.gz --out=runs/data_hunger_frozen
    python -m experiments.curves --grid=experiments/data_hunger/grid.py --out=runs/data_hunger \
        --metric=test/top1 --more=runs/data_hunger_frozen/results.json --log \
        --plot=experiments/data_hunger/curves.png

data/cifar10/{train,test} have a folder per class. A subset is a part of one random permutation, so
that each holds the smaller ones.
"""

SIZES = (500, 1000, 2500, 5000, 10_000, 25_000, 50_000)
PLAIN = "decode | random_crop(32, padding=4) | flip | label"
STRONG = "decode | random_crop(32, padding=4) | flip | rand_augment(2, 9) | label"
SMALL = {"patch_size": 4, "width": 128, "depth": 4, "heads": 4, "mlp_dim": 256, "variant": None}
MODELS = {
    "ViT": {"model.stem": "patch"},
    "ViT with a convolutional stem": {"model.stem": "conv"},
    "CCT": {"model.stem": "conv_pool", "model.pool": "sequence"},
}
AUGMENTS = {
    "": {"data.transform": PLAIN, "data.batch_transform": ""},
    ", RandAugment and Mixup": {"data.transform": STRONG, "data.batch_transform": "mixup(0.8, 10)"},
}


def images(count):
    """So many training images."""
    folder = {"kind": "folder", "root": "data/cifar10/train"}
    return {"kind": "part", "source": folder, "start": 0.0, "stop": count / 50_000}


def curve(name):
    """(line, x) of a cell in the plot."""
    line, count = name.rsplit(": ", 1)
    return line, float(count)


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/vit_cifar10.py",
        "fixed": {
            **{f"model.{name}": value for name, value in SMALL.items()},
            "batch_size": 128,
            "total_steps": 1000,
            "eval_every": 0,
            "validation": (),
            "checkpoint.every": 1000,
            "evals": {
                "test": {
                    "kind": "classification",
                    "source": {"kind": "folder", "root": "data/cifar10/test"},
                    "transform": "decode | resize(32) | label",
                }
            },
        },
        "arms": {
            f"{model}{augment}: {count}": {
                "data.train": images(count),
                **MODELS[model],
                **AUGMENTS[augment],
            }
            for count in SIZES
            for model in MODELS
            for augment in AUGMENTS
        },
        "baseline": f"ViT: {SIZES[-1]}",
        "seeds": [0, 1, 2],
        "metrics": {"test/top1": "test accuracy"},
    }
