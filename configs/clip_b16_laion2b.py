"""CLIP ViT-B/16 on LAION-2B, as open_clip trained it.

    python -m mmjax.train --config=configs/clip_b16_laion2b.py --workdir=runs/clip_b16_laion2b \
        --config.data.train.pattern='DIR/{00000..231349}.tar' --config.tokenizer.path=DIR

Setting: Cherti et al. 2023 (arXiv 2212.07143; open_clip ViT-B-16 laion2b_s34b_b88k): batch
88,064, 34 billion examples. Published: 70.2 % zero-shot ImageNet top-1.
The shards are what img2dataset writes; the tokenizer's folder holds CLIP's published vocabulary.
remat "none" is the fastest on TPUs, where the layers then lie unrolled, and needs no more memory
there (experiments/benchmarks/plan.md); on GPUs "dots" should need less.
"""

from mmjax.config import defaults

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 88_064
    config.total_steps = 34_000_000_000 // 88_064
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {"kind": "webdataset", "pattern": "data/laion2b/{00000..231349}.tar"}
    config.data.transform = (
        "decode(min_size=224) | random_resized_crop(224, scale=(0.9, 1)) | first_caption"
        " | tokenize(77)"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "clip_bpe", "path": "data/clip_bpe"}
    config.model = {
        "name": "clip",
        "embed_dim": 512,
        "dtype": "bfloat16",
        "image": {
            "variant": "B/16",
            "image_size": (224, 224),
            "image_mean": MEAN,
            "image_std": STD,
            "pool": "cls",
            "patch_bias": False,
            "pre_norm": True,
            "norm_epsilon": 1e-5,
            "activation": "gelu",
            "remat": "none",
        },
        "text": {
            "variant": "B",
            "vocab_size": 49408,
            "length": 77,
            "norm_epsilon": 1e-5,
            "activation": "gelu",
            "remat": "none",
        },
    }
    config.loss = {"kind": "softmax"}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 2000,
        "b1": 0.9,
        "b2": 0.98,
        "eps": 1e-6,
        "weight_decay": 0.2,
        # open_clip spares gains, biases and logit_scale alone
        "weight_decay_include": ("text/embedding", ".*/position/table", "image/class_position"),
        "grad_clip_norm": 1.0,
    }
    return config
