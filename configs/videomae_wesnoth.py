"""VideoMAE on animations of a game's units, from scratch: pixels of masked tubes.

    python -m mmjax.train --config=configs/videomae_wesnoth.py --workdir=runs/videomae_wesnoth

Needs Debian's package wesnoth-1.16-data. 4 frames of 48 pixels, tubelets of 2 frames of 8 x 8, of
which 75 % of the places are masked (Tong et al. 2022, arXiv 2203.12602). No folder of frames of the
test split is in training. Expected: not measured yet; a reconstruction of no contrast has the loss
1.
"""

from configs.videobert_wesnoth import wesnoth
from mmjax.config import defaults

FRAMES, SIZE = 4, 48
EVAL_TRANSFORM = f"uniform_frames({FRAMES}) | each_frame('resize({SIZE})')"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 400
    config.log_every = 20
    config.checkpoint.every = 200

    config.data.train = wesnoth("train")
    config.data.transform = (
        f"random_frames({FRAMES}) | each_frame('random_affine(0, 0.1, (0.8, 1.1)) | resize({SIZE})"
        " | flip')"
    )
    config.model = {
        "name": "video_vit",
        "frames": FRAMES,
        "image_size": (SIZE, SIZE),
        "tubelet": (2, 8, 8),
        "width": 96,
        "depth": 4,
        "heads": 4,
        "mlp_dim": 384,
        "position": "sinusoids",
        "pool": "mean",
        "final_norm": "tokens",
        "key_bias": False,
        "decoder": {"width": 64, "depth": 1, "heads": 4, "mlp_dim": 256},
    }
    config.loss = {"mask_ratio": 0.75}
    config.loss_weights = {"masked_video": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 40,
        "b2": 0.95,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        split: {"kind": "loss", "source": wesnoth(split), "transform": EVAL_TRANSFORM}
        for split in ("validation", "test")
    }
    config.validation = ("validation",)
    return config
