r"""CLIP ViT-L/14, the setting of the original paper.

    python -m mmjax.train --config=configs/clip_l14.py --workdir=runs/clip_l14 \
        --config.data.train.pattern='DIR/{00000..41407}.tar' --config.tokenizer.path=DIR

Setting: Radford et al. 2021 (arXiv 2103.00020, tables 18 to 20): batch 32,768, 32 epochs of 400
million pairs. Published: 75.3 % zero-shot ImageNet top-1 at 224 px. Its data are not public: use
any shards.
Shards are as written by img2dataset; the tokenizer's folder contains CLIP's published vocabulary.
"""

from mmjax.config import defaults

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32_768
    config.total_steps = 32 * 400_000_000 // 32_768
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {"kind": "webdataset", "pattern": "data/image_text_400m/{00000..41407}.tar"}
    config.data.transform = (
        "decode(min_size=224) | random_resized_crop(224, scale=(0.9, 1)) | first_caption"
        " | tokenize(77)"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "clip_bpe", "path": "data/clip_bpe"}
    config.model = {
        "name": "clip",
        "embed_dim": 768,
        "dtype": "bfloat16",
        "image": {
            "variant": "L/14",
            "image_size": (224, 224),
            "image_mean": MEAN,
            "image_std": STD,
            "pool": "cls",
            "patch_bias": False,
            "pre_norm": True,
            "norm_epsilon": 1e-5,
            "activation": "quick_gelu",
            "remat": "dots",
        },
        "text": {
            "variant": "L",
            "vocab_size": 49408,
            "length": 77,
            "norm_epsilon": 1e-5,
            "activation": "quick_gelu",
            "remat": "dots",
        },
    }
    config.loss = {"kind": "softmax"}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 4e-4,
        "warmup_steps": 2000,
        "b1": 0.9,
        "b2": 0.98,
        "eps": 1e-6,
        "weight_decay": 0.2,
        # open_clip excludes only gains, biases and logit_scale
        "weight_decay_include": ("text/embedding", ".*/position/table", "image/class_position"),
        "grad_clip_norm": None,
    }
    return config
