"""VideoMAE ViT-B/16 on Kinetics-400: pre-training by masked tubes of 90 % of the video.

    python -m mmjax.train --config=configs/videomae_b.py --workdir=runs/videomae_b \
        --config.data.train.root=DIR/train

Tong et al. 2022 (arXiv 2203.12602), appendix, pre-training on Kinetics-400: 16 frames, every
fourth, AdamW with 1.5e-4 per 256 videos, 40 epochs of warmup, 800 in all. DIR has a folder of
videos per class. As in the authors' code (MCG-NJU/VideoMAE, modeling_pretrain.py) the encoder ends
in a norm, which the default of `transformers` leaves out. A `video_vit` with a head reads its
encoder by `--config.init_from`.
Published, after fine-tuning on Kinetics-400: 80.4 % top-1, 94.4 % top-5 (MCG-NJU/VideoMAE,
MODEL_ZOO.md). Not trained here.
"""

from mmjax.config import defaults

FRAMES, SIZE, RATE = 16, 224, 6.25  # every fourth frame of 25 per second
VIDEOS, EPOCHS, BATCH = 240_436, 800, 1024
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
        f"dense_frames({FRAMES}, {RATE}) | each_frame('random_resized_crop({SIZE}, "
        "scale=(0.5, 1)) | flip')"
    )
    config.model = {
        "name": "video_vit",
        "frames": FRAMES,
        "image_size": SIZE,
        "tubelet": (2, 16, 16),
        "width": 768,
        "depth": 12,
        "heads": 12,
        "mlp_dim": 3072,
        "position": "sinusoids",
        "pool": "mean",
        "final_norm": "tokens",
        "key_bias": False,
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
        "decoder": {"width": 384, "depth": 4, "heads": 6, "mlp_dim": 1536},
        "remat": "full",
        "dtype": "bfloat16",
    }
    config.loss = {"mask_ratio": 0.9}
    config.loss_weights = {"masked_video": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1.5e-4 * BATCH / 256,
        "warmup_steps": 40 * STEPS,
        "b2": 0.95,
        "weight_decay": 0.05,
    }
    return config
