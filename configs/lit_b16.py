r"""LiT: a locked ViT-B/16 image tower and a text tower trained to match it.

    python -m mmjax.train --config=configs/lit_b16.py --workdir=runs/lit_b16 \
        --config.init_from.path=RUN_WITH_IMAGE_TOWER \
        --config.data.train.pattern='DIR/{00000..01242}.tar' --config.tokenizer.path=FILE

Setting: Zhai et al. 2022 (arXiv 2111.07991), public model B16B_2: no projection on the image side,
60,000 steps on CC12M and YFCC, text of 16 tokens. Published: 73.9 % zero-shot ImageNet top-1 with
an image tower trained on ImageNet-21k and a text tower from BERT; the text tower here starts from
scratch, so expect less. init_from names a run whose model has the same image tower.
"""

from configs.siglip_b16 import ADAFACTOR, BERT_BASE
from mmjax.config import defaults


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 16_384
    config.total_steps = 60_000
    config.log_every = 100
    config.checkpoint.every = 1000
    config.init_from.only = ("image/.*",)
    config.data.train = {"kind": "webdataset", "pattern": "data/cc12m/{00000..01242}.tar"}
    config.data.transform = (
        "decode(min_size=224) | resize(224) | flip | first_caption | tokenize(16)"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "file", "path": "data/tokenizer.json"}
    text = {**BERT_BASE, "vocab_size": 30_522, "length": 16, "pool": "mean", "remat": "dots"}
    text |= {"causal": False, "mask_padding": True}
    config.model = {
        "name": "clip",
        "embed_dim": 768,
        "dtype": "bfloat16",
        "lock_image": True,
        "image_proj": False,
        "image": {"variant": "B/16", "image_size": (224, 224), "pool": "cls"},
        "text": text,
    }
    config.loss = {"kind": "softmax"}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        **ADAFACTOR,
        "learning_rate": 1e-3,
        "warmup_steps": 10_000,
        "b2": 0.99,
        "moment_dtype": "bfloat16",
        "freeze": ("image/.*",),
    }
    return config
