r"""A small Whisper from scratch on spoken digits: it writes their words.

    python -m mmjax.train --config=configs/whisper_fsdd.py --workdir=runs/whisper_fsdd \
        --config.data.train.root=FSDD.tar.gz

FSDD is github.com/Jakobovski/free-spoken-digit-dataset: its archive or folder is the root, needed
once. Two of the six speakers are heard only in the evaluation. Expected: a mean
loss of 5.2 in steps 1 to 20 and of 2.1 in steps 41 to 60 (one seed); the whole run has not been
measured.
"""

from mmjax.config import defaults

SECONDS, MELS, WORDS = 0.64, 40, 8
TRAIN_SPEAKERS = "george+jackson+lucas+nicolas"
SOUND = f"waveform({SECONDS})"
FEATURES = f"whisper_mel({MELS})"


def digits(speakers):
    """The recordings of some speakers."""
    root = "data/fsdd.tar.gz"
    return {"kind": "tfds", "name": "fsdd", "split": speakers, "root": root}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 600
    config.log_every = 20
    config.checkpoint.every = 300

    config.data.train = digits(TRAIN_SPEAKERS)
    config.data.cached_transform = SOUND
    config.data.transform = (
        f"time_shift(0.1) | speed((0.85, 1.15)) | {FEATURES} | spec_augment(0.1, 0.2, 1)"
        f" | first_caption | transcript({WORDS})"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 280}

    stack = {"depth": 2, "heads": 4, "mlp_dim": 256}
    vocabulary = config.tokenizer.get_ref("vocab_size")
    config.model = {
        "name": "whisper",
        "audio": {
            "mels": MELS,
            "length": round(50 * SECONDS),
            "width": 64,
            **stack,
            "dropout": 0.1,
        },
        "text": {"vocab_size": vocabulary, "width": 64, "length": WORDS, "decoder": stack},
    }
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 0.1,
        "b2": 0.98,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    config.evals.unseen_speakers = {
        "kind": "transcription",
        "source": digits("theo+yweweler"),
        "transform": f"{SOUND} | {FEATURES}",
        "decode": {"max_new_tokens": WORDS - 1},
    }
    return config
