"""A video tokenizer on animations of a game's units: 3-D convolutions and a codebook of 256.

    python -m mmjax.train --config=configs/video_vq_wesnoth.py --workdir=runs/video_vq_wesnoth

Needs Debian's package wesnoth-1.16-data. A code stands for 2 frames of 8 x 8 pixels. No folder of
frames of the test split is in training. Expected: see experiments/video_wesnoth.md.
"""

from configs.videobert_wesnoth import wesnoth
from mmjax.config import defaults

FRAMES, SIZE = 4, 32
EVAL_TRANSFORM = f"uniform_frames({FRAMES}) | each_frame('resize({SIZE})')"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 16
    config.total_steps = 400
    config.log_every = 50
    config.checkpoint.every = 200

    config.data.train = wesnoth("train")
    config.data.transform = f"random_frames({FRAMES}) | each_frame('resize({SIZE}) | flip')"
    config.model = {
        "name": "video_vq",
        "frames": FRAMES,
        "size": (SIZE, SIZE),
        "channels": (16, 32, 32),
        "temporal": 1,
        "blocks": 1,
        "codes": 256,
        "code_width": 32,
    }
    config.loss_weights = {"reconstruction": 1.0, "commitment": 0.25}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 50,
        "weight_decay": 0.0,
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        split: {"kind": "loss", "source": wesnoth(split), "transform": EVAL_TRANSFORM}
        for split in ("validation", "test")
    }
    config.validation = ("validation",)
    return config
