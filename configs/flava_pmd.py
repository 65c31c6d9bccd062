r"""FLAVA on PMD, with ImageNet's images and the texts of CCNews and BookCorpus, as in the paper.

    python -m mmjax.train --config=configs/flava_pmd.py --workdir=runs/flava_pmd \
        --config.tokenizer.path=DIR --config.init_from.path=DIR

Setting: Singh et al. 2022 (arXiv 2112.04482, section 4): 70 million pairs of public sets, batch
8,192, learning rate 1e-3, weight decay 0.1, 10,000 steps of warmup; the three kinds of data in
turn, here as thirds of each batch. The number of steps is ours, and so is the start from scratch:
the paper's encoders are first trained on images and on texts alone. Published, zero-shot recall@1:
on COCO 38.4 % of images by text and 42.7 % of texts by image, on Flickr30K 65.2 % and 67.7 %.
Shards are as written by img2dataset, those of texts with a .txt alone. Tokenizer and codebook come
from the folder of facebook/flava-full; the codebook's image is resized from the crop of 224 pixels.
"""

from configs.clip_l14 import MEAN, STD
from mmjax.config import defaults

LENGTH = 77
UNUSED = "(image|text|multimodal)_pooler/.*"  # of the published layout; no loss reads them
CROP = "decode(min_size=224) | random_resized_crop(224, scale=(0.9, 1))"
CODEBOOK = "codebook_image(112)"  # after all that moves pixels
TEXT = f"first_caption | tokenize({LENGTH})"


def part(pattern, transform):
    """A part of the mixture: shards."""
    source = {"kind": "webdataset", "pattern": pattern}
    return {"source": source, "transform": transform, "weight": 1.0}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 8192
    config.total_steps = 150_000
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {
        "kind": "mixture",
        "parts": {
            "pairs": part("data/pmd/{00000..06999}.tar", f"{CROP} | {CODEBOOK} | {TEXT}"),
            "images": part("data/imagenet/{0000..1281}.tar", f"{CROP} | flip | {CODEBOOK}"),
            "texts": part("data/ccnews_bookcorpus/{00000..07499}.tar", TEXT),
        },
    }
    config.data.num_threads = 32
    config.tokenizer = {"kind": "pretrained", "path": "data/flava_full"}
    base = {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}
    config.model = {
        "name": "flava",
        "embed_dim": 768,
        "dtype": "bfloat16",
        "image": {
            **base,
            "patch_size": 16,
            "image_size": (224, 224),
            "image_mean": MEAN,
            "image_std": STD,
            "position_resize": "bicubic",
        },
        "text": {**base, "vocab_size": 30522, "length": LENGTH, "mask_id": 103},
        "multimodal": {**base, "depth": 6},
        "codebook": {"kind": "dvae"},
        "pooler": True,
    }
    config.loss_weights = dict.fromkeys(
        ("contrastive", "matching", "mmm_image", "mmm_text", "mim", "mlm"), 1.0
    )
    config.init_from = {"path": "data/flava_full", "only": ("codebook/.*",)}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 10_000,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
        "freeze": ("codebook/.*", UNUSED),
    }
    return config
