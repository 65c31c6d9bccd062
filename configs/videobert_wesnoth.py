"""VideoBERT on animations of a game's units, with their names: masked words and video tokens.

    python -m mmjax.cluster_video --config=configs/videobert_wesnoth.py --levels=2 --k=12
    python -m mmjax.train --config=configs/videobert_wesnoth.py --workdir=runs/videobert_wesnoth

Needs Debian's package wesnoth-1.16-data (see mmjax/data/builders/debian.py). A video token is the
cluster of one frame of 12 x 12 pixels; the clusters are those of the training set alone. No folder
of frames and no name of the test split is in training. Expected: see experiments/video_wesnoth.md.
"""

from mmjax.config import defaults

CODES = 12**2
FRAMES, LENGTH = 8, 16
VIDEO = "each_frame('resize(12)') | video_tokens('runs/wesnoth_clusters')"
EVAL_TRANSFORM = f"uniform_frames({FRAMES}) | {VIDEO} | first_caption | tokenize({LENGTH})"


def wesnoth(split):
    """A split of the wesnoth set: train, validation or test."""
    return {"kind": "tfds", "name": "wesnoth", "split": split}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 400
    config.log_every = 50
    config.checkpoint.every = 200

    config.data.train = wesnoth("train")
    config.data.transform = (
        f"random_frames({FRAMES}) | {VIDEO} | choose_caption(template_p=0.0) | tokenize({LENGTH})"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 512}
    words = config.tokenizer.get_ref("vocab_size")
    config.model = {
        "name": "videobert",
        "text": {
            "vocab_size": words + 2,  # and the separator and the mask token
            "width": 128,
            "depth": 3,
            "heads": 4,
            "mlp_dim": 512,
            "length": LENGTH,
            "dropout": 0.1,
        },
        "codes": CODES,
        "frames": FRAMES,
        "start": 1,
        "end": 2,
        "separator": words + 0,
        "mask": words + 1,
    }
    config.loss = {"mask_ratio": 0.25, "both": 2.0}
    config.loss_weights = {"masked_text": 1.0, "masked_video": 1.0, "matching": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 50,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        split: {"kind": "loss", "source": wesnoth(split), "transform": EVAL_TRANSFORM}
        for split in ("validation", "test")
    }
    config.validation = ("validation",)
    return config
