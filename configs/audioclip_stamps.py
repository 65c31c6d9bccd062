r"""AudioCLIP with transformers for towers, on the stamps of tuxpaint, of which 124 have a sound.

    python -m mmjax.train --config=configs/audioclip_stamps.py --workdir=runs/audioclip_stamps

The Debian package of tuxpaint is downloaded with `apt-get`. Concepts of the evaluations are not in
training. Expected: the code paths of three modalities, of which one is often missing; the 78 sounds
in training are too few to retrieve those of other concepts.
"""

from mmjax.config import defaults

SOUND = "waveform(2) | kaldi_fbank(198, 64)"
IMAGE = "decode | resize(48)"
WORDS = "first_caption | tokenize(12)"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 300
    config.log_every = 20
    config.checkpoint.every = 300

    stamps = {"kind": "tfds", "name": "tuxpaint", "split": "train"}
    sounds = {"kind": "tfds", "name": "tuxpaint_sounds"}
    config.data.train = {
        "kind": "mixture",
        "parts": {
            "sounds": {
                "source": {**sounds, "split": "train"},
                "cached_transform": f"{SOUND} | {IMAGE}",
                "transform": WORDS,
                "weight": 1.0,
            },
            "stamps": {
                "source": stamps,
                "cached_transform": IMAGE,
                "transform": WORDS,
                "weight": 1.0,
            },
        },
    }
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 1024}

    small = {"width": 128, "heads": 4, "mlp_dim": 512}
    config.model = {
        "name": "audioclip",
        "embed_dim": 128,
        "logit_scale_init": 2.6593,  # log(1 / 0.07)
        "audio": {"kind": "ast", **small, "depth": 2, "frames": 198, "bins": 64},
        "image": {
            "kind": "vit",
            **small,
            "depth": 2,
            "patch_size": 8,
            "stem": "conv",
            "image_size": (48, 48),
            "pool": "mean",
        },
        "text": {
            **small,
            "depth": 2,
            "length": 12,
            "causal": False,
            "mask_padding": True,
            "pool": "mean",
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
        },
    }
    config.loss_weights = dict.fromkeys(("image_text", "audio_image", "audio_text"), 1 / 3)
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 40,
        "weight_decay": 0.3,
        "grad_clip_norm": 1.0,
    }

    held_out = {"source": {**sounds, "split": "validation+test"}}
    for pair in (("audio", "image"), ("audio", "text"), ("image", "text")):
        config.evals["_".join(pair)] = {
            "kind": "retrieval",
            "pair": pair,
            "transform": f"{SOUND} | {IMAGE}",
            **held_out,
        }
    config.validation = ()
    return config
