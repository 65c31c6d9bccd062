r"""BLIP with ViT-B/16, fine-tuned for NLVR2: whether a sentence is true of two photographs.

    python -m mmjax.train --config=configs/blip_nlvr2.py --workdir=runs/blip_nlvr2 \
        --config.data.train.annotations=DIR/train.json --config.data.train.images=DIR \
        --config.evals.dev.source.annotations=DIR/dev.json --config.evals.dev.source.images=DIR \
        --config.tokenizer.path=BERT --config.init_from.path=BLIP_NLVR

Setting: salesforce/BLIP, configs/nlvr.yaml and train_nlvr.py: 15 epochs of NLVR2's 86,373 training
examples, 16 on each of 16 devices, 384 px, cosine from 3e-5. Published: 83.09 % on test-P (Li et
al. 2022, arXiv 2201.12086); from scratch, expect chance. Its start is a folder with the original's
checkpoint of this model (mmjax/weights/families/blip_nlvr.py says how to make it), BERT one with
bert-base-uncased's tokenizer and two more tokens.
"""

from configs.clip_l14 import MEAN, STD
from configs.siglip_b16 import BERT_BASE
from mmjax.config import defaults

WORDS = 30_522  # of bert-base-uncased


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 256
    config.total_steps = 15 * (86_373 // 256)
    config.log_every = 20
    config.checkpoint.every = 500
    config.data.train = {
        "kind": "nlvr2",
        "annotations": "data/nlvr2/train.json",
        "images": "data/nlvr2",
    }
    text = "first_caption | {}tokenize(60) | label"
    config.data.transform = (
        "decode(min_size=384) | random_resized_crop(384, scale=(0.5, 1)) | flip"
        " | rand_augment(2, 5) | " + text.format("swap_images | ")
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "pretrained", "path": "data/bert-base-uncased"}
    config.model = {
        "name": "blip_nlvr",
        "dtype": "bfloat16",
        "image": {
            "variant": "B/16",
            "image_size": (384, 384),
            "image_mean": MEAN,
            "image_std": STD,
            "stochastic_depth": 0.1,
        },
        "text": {
            **BERT_BASE,
            "vocab_size": WORDS + 2,
            "length": 60,
            "merge_depth": 6,
            "dropout": 0.1,
        },
        "encode_token": WORDS + 1,
    }
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 3e-5,
        "schedule": "cosine",
        "warmup_steps": 0,
        "weight_decay": 0.05,
    }
    config.evals = {
        "dev": {
            "kind": "image_pairs",
            "source": {
                "kind": "nlvr2",
                "annotations": "data/nlvr2/dev.json",
                "images": "data/nlvr2",
            },
            "transform": "decode(min_size=384) | resize(384) | " + text.format(""),
        }
    }
    return config
