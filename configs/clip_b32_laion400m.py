r"""CLIP ViT-B/32 on LAION-400M, as open_clip trained it.

    python -m mmjax.train --config=configs/clip_b32_laion400m.py --workdir=runs/clip_b32_laion400m \
        --config.data.train.pattern='DIR/{00000..41407}.tar' --config.tokenizer.path=DIR

Setting: Ilharco et al. 2021 (open_clip, ViT-B-32-quickgelu laion400m_e32): batch 32,768, 32
epochs, AdamW with weight decay 0.2, 2,000 steps of warm-up. Published: 62.9 % zero-shot
ImageNet top-1. Shards are as written by img2dataset; the tokenizer's folder contains CLIP's
published vocabulary.
"""

from configs.clip_l14 import get_config as clip_l14


def get_config():
    """The config of this experiment."""
    config = clip_l14()
    config.data.train.pattern = "data/laion400m/{00000..41407}.tar"
    config.data.train.window = 64
    config.model.embed_dim = 512
    config.model.image.variant = "B/32"
    config.model.text.variant = "B"
    config.optim.learning_rate = 5e-4
    return config
