"""ViViT-B/16x2 with a factorized encoder on Kinetics-400.

    python -m mmjax.train --config=configs/vivit_b.py --workdir=runs/vivit_b \
        --config.data.train.root=DIR/train --config.evals.test.source.root=DIR/validation \
        --config.init_from.path=VIT

Arnab et al. 2021 (arXiv 2103.15691), model 2; settings of google-research/scenic,
projects/vivit/configs/kinetics400/vivit_base_factorised_encoder.py, with a flip, crops and colors
for its augmentation. DIR has a folder of videos per class; VIT is a ViT-B/16 of ImageNet-21k, whose
blocks are those of the spatial encoder. Published: scenic's checkpoint of that config has 78.4 %
top-1 with four clips of three crops (its projects/vivit/README.md); not trained here.
"""

from mmjax.config import defaults

FRAMES, SIZE, RATE = 32, 224, 12.5  # every second frame of 25 per second
VIDEOS, EPOCHS, BATCH = 214_834, 30, 64
STEPS = VIDEOS // BATCH


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = BATCH
    config.total_steps = EPOCHS * STEPS
    config.log_every = 100
    config.checkpoint.every = 1000

    config.data.train = {"kind": "videos", "root": "data/kinetics400/train"}
    config.data.transform = (
        f"dense_frames({FRAMES}, {RATE}) | each_frame('resize_short(256) | random_resized_crop("
        f"{SIZE}, scale=(0.5, 1)) | flip | color_jitter(0.2, 0.2, 0.2, 0.1, p=0.8) | "
        "random_grayscale(0.1)') | label"
    )
    config.init_from.only = ("transformer/.*",)
    config.model = {
        "name": "video_vit",
        "frames": FRAMES,
        "image_size": SIZE,
        "tubelet": (2, 16, 16),
        "width": 768,
        "depth": 12,
        "temporal_depth": 4,
        "heads": 12,
        "mlp_dim": 3072,
        "num_classes": 400,
        "remat": "full",
        "dtype": "bfloat16",
    }
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "sgd",
        "learning_rate": 0.05,
        "warmup_steps": int(2.5 * STEPS),
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        "test": {
            "kind": "classification",
            "modalities": ("video",),
            "source": {"kind": "videos", "root": "data/kinetics400/validation"},
            "transform": f"middle_frames({FRAMES}, {RATE}) | each_frame('resize_short(256) | "
            f"center_crop({SIZE})') | label",
        }
    }
    config.validation = ("test",)
    return config
