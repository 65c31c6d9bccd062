r"""ViLT on sentences about two emoji, true or false as in NLVR2, from scratch.

    python -m mmjax.train --config=configs/vilt_emoji_pairs.py --workdir=runs/vilt_emoji_pairs

Every sentence is true of two pairs and false of two others, of concepts held out from training; see
mmjax/data/sources/emoji_pairs.py. The transformer sees each image beside the sentence, in a pass of
its own; the head reads both results. Expected of the words alone is 0.5, by construction
(`sentence_only/accuracy`).
"""

from mmjax.config import defaults

IMAGE = "decode | resize(32)"
TEXT = "first_caption"


def pairs(split):
    """The statements of a split."""
    return {"kind": "emoji_pairs", "split": split}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "vilt_emoji_pairs"
    config.batch_size = 128
    config.total_steps = 1000
    config.log_every = 20
    config.checkpoint.every = 500

    config.data.train = pairs("train")
    config.data.transform = f"{IMAGE} | {TEXT} | swap_images | tokenize(16) | label"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 512}
    config.model = {
        "name": "vilt",
        "dtype": "bfloat16",
        "width": 96,
        "depth": 4,
        "heads": 4,
        "mlp_dim": 256,
        "activation": "gelu_tanh",
        "images": 2,
        "modality_types": 3,
        "text": {"vocab_size": config.tokenizer.get_ref("vocab_size"), "length": 16},
        "image": {"image_size": (32, 32), "patch_size": 8},
        "num_classes": 2,
        "classify": "images",
    }
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    steps = f"{IMAGE} | {TEXT} | tokenize(16) | label"
    config.evals = {
        split: {
            "kind": "image_pairs",
            "source": pairs(split),
            "train_source": pairs("train"),
            "transform": steps,
        }
        for split in ("validation", "test")
    }
    config.evals.validation_loss = {
        "kind": "loss",
        "source": pairs("validation"),
        "transform": steps,
    }
    return config
