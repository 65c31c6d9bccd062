r"""ALBEF pretrained on 14 million images.

    python -m mmjax.train --config=configs/albef_14m.py --workdir=runs/albef_14m \
        --config.data.train.pattern='DIR/{00000..01499}.tar' --config.tokenizer.path=FILE

Setting: Li et al. 2021 (arXiv 2107.07651), section 3.4 and 3.5: COCO, Visual Genome, CC3M, CC12M
and SBU, 30 epochs, batch 512 on 8 A100 (here `--topology=v5e:2x4`), 256 px, queue 65,536.
Published, after fine-tuning at 384 px with the losses but the words' (table 2): Flickr30K recall@1
95.9 % of texts and 85.6 % of images, COCO 77.6 % of texts. It starts from DeiT-B/16 and BERT-base:
see experiments/albef_initial.py; from scratch, expect less. Its data are lists of links: use any
shards that img2dataset writes. The tokenizer is the tokenizer.json of bert-base-uncased.
"""

from configs.clip_l14 import MEAN, STD
from configs.siglip_b16 import BERT_BASE
from mmjax.config import defaults

EPOCH = 14_100_000 // 512


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 512
    config.total_steps = 30 * EPOCH
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {"kind": "webdataset", "pattern": "data/albef_14m/{00000..01499}.tar"}
    config.data.transform = (
        "decode(min_size=256) | random_resized_crop(256, scale=(0.2, 1)) | flip"
        " | rand_augment(2, 7) | first_caption | tokenize(25)"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "file", "path": "data/tokenizer.json"}
    config.model = {
        "name": "albef",
        "embed_dim": 256,
        "dtype": "bfloat16",
        "negative_group": 64,  # a GPU's part of the batch
        "image": {
            "variant": "B/16",
            "image_size": (256, 256),
            "image_mean": MEAN,
            "image_std": STD,
        },
        "text": {
            **BERT_BASE,
            "fusion_depth": 6,
            "vocab_size": 30_522,
            "mask_token": 103,
            "length": 25,
            "dropout": 0.1,
        },
    }
    config.loss = {"queue_size": 65_536, "alpha": ((0, 0.0), (EPOCH, 0.4))}
    config.loss_weights = {"contrastive": 1.0, "matching": 1.0, "masked_text": 1.0}
    config.ema.update(decay=0.995, teacher=True, evaluate=False)
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-4,
        "schedule": "cosine",
        "warmup_steps": 1000,
        "end_learning_rate_fraction": 0.1,
        "weight_decay": 0.02,
        # The original excludes only vectors and biases.
        "weight_decay_include": (
            "text/embed/(embedding|segment_embedding|position/table)",
            "image/(class_token|class_position|position/table)",
            "temperature",
        ),
    }
    return config
