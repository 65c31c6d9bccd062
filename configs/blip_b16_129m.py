r"""BLIP with ViT-B/16, pretrained on 129 million pairs.

    python -m mmjax.train --config=configs/blip_b16_129m.py --workdir=runs/blip_b16_129m \
        --config.data.train.pattern='DIR/{00000..12899}.tar' --config.tokenizer.path=BERT \
        --config.init_from.path=VIT "--config.init_from.only=('image/.*',)"

Setting: Li et al. 2022 (arXiv 2201.12086), section 4.1, and salesforce/BLIP, configs/pretrain.yaml:
20 epochs of batch 2,880 at 224 px, AdamW, a learning rate that is multiplied by 0.9 after every
epoch, queue of 57,600, momentum 0.995; negatives from the 90 rows of a device of 32. Published
after fine-tuning: 83.09 % on NLVR2 test-P; retrieval and captioning on COCO are in tables 5 and 7.
The paper starts from an ImageNet ViT and from BERT-base; the text transformer here starts from
scratch, so expect less. Its data are not public as a set: use any shards. BERT is a folder with
bert-base-uncased's tokenizer; two more tokens begin texts to generate and to match.
"""

from configs.clip_l14 import MEAN, STD
from configs.siglip_b16 import BERT_BASE
from mmjax.config import defaults

WORDS = 30_522  # of bert-base-uncased
EPOCHS, EPOCH = 20, 129_000_000 // 2_880


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 2_880
    config.total_steps = EPOCHS * EPOCH
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {"kind": "webdataset", "pattern": "data/pairs_129m/{00000..12899}.tar"}
    config.data.transform = (
        "decode(min_size=224) | random_resized_crop(224, scale=(0.2, 1)) | flip"
        " | rand_augment(2, 5) | first_caption | tokenize(30)"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "pretrained", "path": "data/bert-base-uncased"}
    image = {"variant": "B/16", "image_size": (224, 224), "image_mean": MEAN, "image_std": STD}
    config.model = {
        "name": "blip",
        "embed_dim": 256,
        "dtype": "bfloat16",
        "image": {**image, "remat": "dots"},
        "text": {
            **BERT_BASE,
            "vocab_size": WORDS + 2,
            "length": 30,
            "dropout": 0.1,
            "remat": "dots",
        },
        "decode_token": WORDS,
        "encode_token": WORDS + 1,
        "negative_group": 90,
    }
    # The paper's alpha rises over the first epoch.
    config.loss = {
        "alpha": ((0, 0.0), (EPOCH, 0.4)),
        "queue_size": 57_600,
        "caption_smoothing": 0.1,
        "mask_duplicates": False,
    }
    config.loss_weights = {"contrastive": 1.0, "matching": 1.0, "captioning": 1.0}
    config.ema = {"decay": 0.995, "teacher": True, "evaluate": False}
    config.optim = {
        "name": "adamw",
        "learning_rate": tuple((i * EPOCH, 3e-4 * 0.9**i) for i in range(EPOCHS + 1)),
        "schedule": "constant",
        "warmup_steps": 3_000,
        "weight_decay": 0.05,
    }
    return config
