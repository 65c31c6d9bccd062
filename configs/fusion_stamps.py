r"""Stamps of tuxpaint by image, sound and caption, together and with any of them missing.

    python -m mmjax.train --config=configs/fusion_stamps.py --workdir=runs/fusion_stamps

The category is a stamp's folder: 16 of them. Of the 618 stamps in training 78 have a sound. Tested
on the 46 of other concepts that have one, of which 27 are animals (0.587): a small test, where an
accuracy has a standard error of 0.07. Expected: see experiments/strategies/README.md.
"""

import itertools

from mmjax.config import defaults

SOUND = "waveform(2) | kaldi_fbank(192, 64)"
IMAGE = "decode | resize(48)"
WORDS = "first_caption | tokenize(12) | label"
MODALITIES = ("image", "audio", "text")


def stamps(kind, split):
    """A split of "tuxpaint", or of "tuxpaint_sounds", those stamps that have a sound."""
    return {"kind": "tfds", "name": kind, "split": split}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 300
    config.log_every = 20
    config.checkpoint.every = 300

    crop = "random_resized_crop(48, scale=(0.6, 1)) | flip | "
    config.data.train = {
        "kind": "mixture",
        "parts": {
            "sounds": {
                "source": stamps("tuxpaint_sounds", "train"),
                "cached_transform": f"{SOUND} | {IMAGE}",
                "transform": crop + WORDS,
                "weight": "sqrt",
            },
            "stamps": {
                "source": stamps("tuxpaint", "train"),
                "cached_transform": IMAGE,
                "transform": crop + WORDS,
                "weight": "sqrt",
            },
        },
    }
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 1024}

    config.model = {
        "name": "multimodal",
        "width": 64,
        "heads": 4,
        "mlp_dim": 128,
        "activation": "gelu_tanh",
        "encoder_depth": 1,
        "dropout": 0.1,
        "image": {"image_size": (48, 48), "patch_size": 12},
        "audio": {"frames": 192, "mels": 64, "patch_size": 32},
        "text": {"vocab_size": config.tokenizer.get_ref("vocab_size"), "length": 12},
        "fusion": {"kind": "early", "depth": 2, "modality_dropout": 0.0},
        "num_classes": 16,
    }
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 30,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }

    test = {
        "kind": "classification",
        "source": stamps("tuxpaint_sounds", "validation+test"),
        "transform": f"{SOUND} | {IMAGE} | {WORDS}",
        "modalities": MODALITIES,
    }
    for count in (3, 2, 1):
        for kept in itertools.combinations(MODALITIES, count):
            absent = tuple(m for m in MODALITIES if m not in kept)
            config.evals["_".join(kept)] = {**test, "absent": absent}
    return config
