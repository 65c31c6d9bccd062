r"""Audio-visual speech recognition of digit sequences, with synthetic lips.

    python -m mmjax.train --config=configs/avsr_digits.py --workdir=runs/avsr_digits \
        --config.data.train.root=FSDD.tar.gz

The sound is FSDD (github.com/Jakobovski/free-spoken-digit-dataset: its archive or folder is the
root, needed once); the video is drawn by mmjax, a mouth whose shape follows the phonemes
(mmjax/data/builders/lips.py). It is no recording, and its accuracy says nothing about faces.
Training: four speakers. `theo` is tested, with white noise at several signal-to-noise ratios;
choose settings on `yweweler`, who is in neither. The one variation that matters:
--config.model.video=None (sound alone) or --config.model.audio=None (lips alone). Expected: see
experiments/avsr_digits/README.md.
"""

from mmjax.config import defaults

TRAIN_SPEAKERS = "george+jackson+lucas+nicolas"
RATIOS = (10, 5, 0, -5, -10)  # decibels
FRAMES, SIZE, MELS = 48, 24, 40
CLIP = f"decode_video({FRAMES}, {SIZE}) | sound(8000)"
FEATURES = f"speech_mel({4 * FRAMES}, {MELS}, rate=8000)"


def digits(speakers):
    """Sequences of digits of these speakers."""
    return {"kind": "tfds", "name": "lip_digits", "split": speakers, "root": "data/fsdd.tar.gz"}


def recognition(noise=""):
    """Word error rate of the held-out speaker; `noise`: a step between sound and features."""
    return {
        "kind": "transcription",
        "source": digits("theo"),
        "transform": f"{CLIP} | {noise}{FEATURES}",
        "decode": {"method": "ctc"},
        "modalities": ("audio", "video"),
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 500
    config.log_every = 20
    config.checkpoint.every = 500

    config.data.train = digits(TRAIN_SPEAKERS)
    config.data.cached_transform = CLIP
    config.data.transform = (
        f"add_noise((-10, 20), p=0.5) | {FEATURES} | choose_caption(template_p=0.0) | tokenize(6)"
    )
    config.tokenizer = {"kind": "train_words", "vocab_size": 14}

    block = {"depth": 1, "heads": 4, "mlp_dim": 128}
    config.model = {
        "name": "avsr",
        "width": 64,
        "frames": FRAMES,
        "encoder": {"kind": "conformer", **block, "kernel": 9},
        "audio": {"mels": MELS},
        "video": {"size": (SIZE, SIZE), "channels": (8, 16), "blocks": 1},
        "fusion": dict(block),
        "text": {
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
            "width": 64,
            "length": 6,
            "decoder": {**block, "activation": "gelu_tanh"},
        },
        "modality_dropout": 0.3,
        "dropout": 0.1,
    }
    config.loss_weights = {"ctc": 1.0, "captioning": 0.3}
    config.optim = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    clean = recognition()
    config.evals = {
        "clean": clean,
        **{f"snr_{ratio}": recognition(f"add_noise({ratio}) | ") for ratio in RATIOS},
        "clean_decoder": clean | {"decode": {"max_new_tokens": 4}},
    }
    return config
