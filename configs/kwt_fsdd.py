r"""Keyword Transformer on spoken digits, tested on a speaker that it never heard.

    python -m mmjax.train --config=configs/kwt_fsdd.py --workdir=runs/kwt_fsdd \
        --config.data.train.root=FSDD.tar.gz

Setting: KWT-1 of Berg et al. 2021 (arXiv 2104.00769), of which 4 layers, on FSDD
(github.com/Jakobovski/free-spoken-digit-dataset: its archive or folder is the root, needed once):
40 MFCCs of 30 ms every 10 ms, standardized in each clip; noise, speed and shifts on the waveform,
SpecAugment on the MFCCs.
Leave one speaker out: --config.evals.test.source.split=NAME holds NAME out and trains on the
others. Expected: see experiments/audio/README.md, with a baseline.
"""

from mmjax.config import defaults

MFCC = "mfcc(40, 40, 30, 10, 8000, centered=False) | standardize"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 800
    config.log_every = 20
    config.eval_every = 200
    config.checkpoint.every = 400

    digits = {"kind": "tfds", "name": "fsdd", "root": "data/fsdd.tar.gz"}
    config.data.train = digits | {"split": ""}
    config.evals.test = {
        "kind": "classification",
        "source": digits | {"split": "theo", "root": config.data.train.get_ref("root")},
        "transform": f"waveform(1, 8000) | {MFCC} | label",
        "modalities": ("audio",),
    }
    config.data.train.split = "all-" + config.evals.test.source.get_ref("split")

    config.data.cached_transform = "waveform(1, 8000)"
    config.data.transform = (
        f"speed((0.9, 1.1)) | time_shift(0.2) | add_noise((10, 40), p=0.5) | {MFCC}"
        " | spec_augment(0.1, 0.1, masks=1) | label"
    )
    config.model = {
        "name": "audio_classifier",
        "variant": "KWT-1",
        "depth": 4,
        "frames": 98,
        "bins": 40,
        "patch_size": (1, 40),
        "stride": (1, 40),
        "norm": "post",
        "qkv_bias": False,
        "distillation": False,
        "head_norm": False,
        "dropout": 0.1,
        "num_classes": 10,
    }
    config.loss = {"label_smoothing": 0.1}
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 0.1,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    return config
