r"""CLAP from scratch on ESC-10: 320 sounds with the names of their classes; the fifth fold is left
out.

    python -m mmjax.train --config=configs/clap_esc10.py --workdir=runs/clap_esc10 \
        --config.data.train.root=ESC-10.tar

ESC-10 is on github.com/karolpiczak/ESC-10: its archive or folder is the root, needed once. Clips of
a recording are in one fold. Expected, with one seed: 0.61 top-1 zero-shot on the fold that is left
out, of 10 classes.
"""

from mmjax.config import defaults

SOUND = "clap_input(5, 64, 32000, 1024, 640, crop='start')"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 40
    config.total_steps = 120
    config.log_every = 20
    config.checkpoint.every = 120

    sounds = {"kind": "tfds", "name": "esc10"}
    config.data.train = {**sounds, "split": "all-fold5", "root": "data/esc10.tar"}
    config.data.cached_transform = SOUND
    config.data.transform = "first_caption | tokenize(8)"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 320}

    config.model = {
        "name": "clap",
        "embed_dim": 64,
        "audio": {
            "frames": 251,
            "mels": 64,
            "image_size": 128,
            "width": 32,
            "depths": (1, 1, 2),
            "heads": (2, 4, 8),
            "dropout": 0.1,
            "stochastic_depth": 0.1,
        },
        "text": {
            "width": 64,
            "depth": 1,
            "heads": 2,
            "mlp_dim": 128,
            "length": 8,
            "segments": 1,
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
        },
    }
    config.loss = {"mask_duplicates": True}  # the other sounds of a class are no negatives
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 20,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }

    source = {**sounds, "split": "fold5", "root": config.data.train.get_ref("root")}
    held_out = {"source": source, "transform": f"{SOUND} | label"}
    config.evals = {
        "class": {"kind": "zero_shot", "modality": "audio", **held_out},
        "retrieval": {"kind": "retrieval", "pair": ("audio", "text"), **held_out},
    }
    config.validation = ("class",)
    return config
