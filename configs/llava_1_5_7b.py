r"""LLaVA-1.5 of 7 billion parameters, second stage: visual instruction tuning.

    python -m mmjax.train --config=configs/llava_1_5_7b.py --workdir=runs/llava_1_5_7b \
        --config.init_from.path=runs/llava_1_5_7b_projector

Setting: Liu et al. 2023 (arXiv 2310.03744), section 3, and haotian-liu/LLaVA, scripts/v1_5/
finetune.sh: one epoch of 665,000 conversations in batches of 128, AdamW, a learning rate of 2e-5
with a cosine decay after a warmup of 3 %, no weight decay, rows of 2,048 tokens; decoder and
projector are trained, the image tower is frozen. Published: 85.9 on POPE and 64.3 on MMBench. The
data are llava_v1_5_mix665k.json and the folder of its images; VICUNA is a folder with
vicuna-7b-v1.5's tokenizer. Unlike there, images are cropped to a square and not padded to one, the
conversations have no system prompt, batches are not grouped by modality, and a conversation longer
than a row is refused, where it is cut there: leave it out of the file. With fewer devices:
--config.lora.targets="('text/decoder/stack/layers/.*/kernel',)".
"""

from configs.clip_l14 import MEAN, STD
from mmjax.config import defaults

IMAGE_TOKEN, PER_IMAGE, LENGTH = 0, 576, 2048  # <unk>, which occurs in no text
IMAGES = "decode | resize_short(336) | center_crop(336)"
EPOCH = 665_298 // 128


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 128
    config.total_steps = EPOCH
    config.log_every = 20
    config.checkpoint.every = 500
    path = "data/llava/llava_v1_5_mix665k.json"
    config.data.train = {"kind": "conversations", "path": path, "images": "data/llava/images"}
    config.data.transform = (
        f"{IMAGES} | converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, size=336, template='vicuna')"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "pretrained", "path": "data/vicuna-7b-v1.5"}
    config.init_from.path = "runs/llava_1_5_7b_projector"
    config.model = {
        "name": "llava",
        "dtype": "bfloat16",
        "image": {
            "variant": "L/14",
            "image_size": (336, 336),
            "image_mean": MEAN,
            "image_std": STD,
            "pool": "all",
            "class_token": True,
            "feature_layer": -2,
            "patch_bias": False,
            "pre_norm": True,
            "norm_epsilon": 1e-5,
            "activation": "quick_gelu",
            "position_resize": "bicubic",
        },
        "projector": {"kind": "mlp"},
        "text": {
            "vocab_size": 32_000,
            "width": 4096,
            "length": LENGTH,
            "tied": False,
            "decoder": {
                "depth": 32,
                "heads": 32,
                "mlp_dim": 11_008,
                "norm": "rms",
                "epsilon": 1e-5,
                "activation": "silu",
                "gated_mlp": True,
                "use_bias": False,
                "positions": "rope",
                "remat": "full",
            },
        },
        "image_token": IMAGE_TOKEN,
    }
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "freeze": (r"image/.*",),
        "learning_rate": 2e-5,
        "warmup_steps": round(0.03 * EPOCH),
        "weight_decay": 0.0,
        "grad_clip_norm": 1.0,
    }
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    return config
