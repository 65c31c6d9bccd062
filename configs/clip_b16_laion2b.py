r"""CLIP ViT-B/16 on LAION-2B, as open_clip trained it.

    python -m mmjax.train --config=configs/clip_b16_laion2b.py --workdir=runs/clip_b16_laion2b \
        --config.data.train.pattern='DIR/{00000..231349}.tar' --config.tokenizer.path=DIR

Setting: Cherti et al. 2023 (arXiv 2212.07143; open_clip ViT-B-16 laion2b_s34b_b88k): batch
88,064, 34 billion examples. Published: 70.2 % zero-shot ImageNet top-1.
Shards are as written by img2dataset; the tokenizer's folder contains CLIP's published vocabulary.
remat "none", which unrolls the layers, is the fastest on TPUs and needs no more memory there
(experiments/benchmarks/plan.md); on GPUs "dots" should need less.
"""

from configs.clip_l14 import get_config as clip_l14


def get_config():
    """The config of this experiment."""
    config = clip_l14()
    config.batch_size = 88_064
    config.total_steps = 34_000_000_000 // 88_064
    config.data.train.pattern = "data/laion2b/{00000..231349}.tar"
    config.data.train.window = 64
    config.model.embed_dim = 512
    config.model.image.variant = "B/16"
    config.model.text.variant = "B"
    for tower in (config.model.image, config.model.text):
        tower.activation = "gelu"
        tower.remat = "none"
    config.optim.learning_rate = 1e-3
    config.optim.grad_clip_norm = 1.0
    return config
