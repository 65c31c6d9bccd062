r"""SigLIP ViT-B/16 at 224 px.

    python -m mmjax.train --config=configs/siglip_b16.py --workdir=runs/siglip_b16 \
        --config.data.train.pattern='DIR/{00000..41407}.tar' --config.tokenizer.path=FILE

Setting: Zhai et al. 2023 (arXiv 2303.15343, §4 and appendix): sigmoid loss, batch 32,768, both
towers from scratch, attention pooling, text of 64 tokens with last-token pooling. Published, WebLI:
76.0 % zero-shot ImageNet top-1. WebLI is not public: use any shards that img2dataset writes, and
any tokenizer.json of 32,000 tokens.
"""

import math

from mmjax.config import defaults

BERT_BASE = {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}
ADAFACTOR = {"name": "adafactor", "b1": 0.9, "weight_decay": 1e-4, "grad_clip_norm": 1.0}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32_768
    config.total_steps = 40_000_000_000 // config.batch_size
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {"kind": "webdataset", "pattern": "data/image_text/{00000..41407}.tar"}
    config.data.transform = "decode(min_size=224) | resize(224) | first_caption | tokenize(64)"
    config.data.num_threads = 32
    config.tokenizer = {"kind": "file", "path": "data/tokenizer.json"}
    words = {**BERT_BASE, "vocab_size": 32_000, "length": 64, "causal": False, "pool": "last"}
    both = {"activation": "gelu_tanh", "remat": "dots"}
    config.model = {
        "name": "clip",
        "embed_dim": 768,
        "dtype": "bfloat16",
        "image_proj": False,
        "proj_bias": True,
        "logit_scale_init": math.log(10.0),
        "logit_bias_init": -10.0,
        "image": {"variant": "B/16", "image_size": (224, 224), "pool": "map", **both},
        "text": {**words, **both},
    }
    config.loss = {"kind": "sigmoid"}
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        **ADAFACTOR,
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "warmup_steps": 20_000,
        "b2": 0.95,
        "moment_dtype": "bfloat16",
    }
    return config
