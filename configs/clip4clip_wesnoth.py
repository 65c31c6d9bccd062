"""Video-text retrieval on animations of a game's units: an image tower on each frame, in CLIP.

    python -m mmjax.train --config=configs/clip4clip_wesnoth.py --workdir=runs/clip4clip_wesnoth

The one change that matters: config.model.image.pool, "mean", "transformer" or "attention" over
time (Luo et al. 2021, CLIP4Clip). To start from a published CLIP, set config.init_from and the
fields of its tower in config.model.image.image. Needs Debian's package wesnoth-1.16-data. No folder
of frames and no name of the test split is in training. Expected: see experiments/video_wesnoth.md.
"""

from configs.videobert_wesnoth import wesnoth
from mmjax.config import defaults

FRAMES, SIZE, LENGTH = 4, 48, 16
EVAL_TRANSFORM = f"uniform_frames({FRAMES}) | each_frame('resize({SIZE})') | frames_as_images"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 300
    config.log_every = 20
    config.checkpoint.every = 150

    config.data.train = wesnoth("train")
    config.data.transform = (
        f"random_frames({FRAMES}) | each_frame('random_affine(0, 0.1, (0.8, 1.1)) | resize({SIZE})"
        f" | flip') | frames_as_images | choose_caption(template_p=0.0) | tokenize({LENGTH})"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 512}
    small = {"width": 96, "depth": 3, "heads": 4, "mlp_dim": 384}
    image = {**small, "patch_size": 8, "image_size": (SIZE, SIZE), "pool": "mean", "stem": "conv"}
    config.model = {
        "name": "clip",
        "embed_dim": 96,
        "image": {
            "kind": "frames",
            "frames": FRAMES,
            "image": image,
            "pool": "transformer",
            "depth": 1,
            "heads": 4,
            "mlp_dim": 384,
        },
        "text": {
            **small,
            "depth": 2,
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
            "length": LENGTH,
        },
    }
    config.loss = {"mask_duplicates": True}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 40,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        split: {
            "kind": "retrieval",
            "source": wesnoth(split),
            "transform": EVAL_TRANSFORM,
            "captions_per_image": 1,
        }
        for split in ("validation", "test")
    }
    config.validation = ("validation",)
    return config
