r"""ViLT-B/32, pretrained on four million images.

    python -m mmjax.train --config=configs/vilt_b32_4m.py --workdir=runs/vilt_b32_4m \
        --config.data.train.pattern='DIR/{00000..00999}.tar' --config.tokenizer.path=FILE \
        --config.init_from.path=VIT

Setting: Kim et al. 2021 (arXiv 2102.03334, sections 3.2 and 4.2; dandelin/ViLT, config.py,
task_mlm_itm): GCC, SBU, MSCOCO and Visual Genome; batch 4,096, 200,000 steps; masked whole words,
matching, and 0.1 times alignment; at most 200 of the patches of images of 384 to 639 pixels.
Published after fine-tuning, VQAv2 and NLVR2: table 2 of the paper, the row with 200K steps and
RandAugment.
Shards are as written by img2dataset; FILE is tokenizer.json of bert-base-uncased, VIT a published
ViT-B/32 at 384 pixels, from which the transformer starts (without init_from: from scratch).
Fine-tuning for VQA: words=False, matching=0, num_classes=3129, answers="sigmoid", a tenfold
learning rate for `head.*`, and init_from a run of this config.
"""

from mmjax.config import defaults

VISION = ("class_.*", "position/table", "stem/.*", "transformer/.*", "norm/.*")


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 4096
    config.total_steps = 200_000
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {"kind": "webdataset", "pattern": "data/vilt_4m/{00000..00999}.tar"}
    config.data.transform = (
        "decode(min_size=384) | resize_between(384, 639, 32) | pad_corner(608) | choose_caption"
        " | tokenize(40, words=True)"
    )
    config.data.num_threads = 32
    config.tokenizer = {
        "kind": "file",
        "path": "data/bert/tokenizer.json",
        "pad_token": "[PAD]",
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
    }
    config.init_from.only = VISION
    config.model = {
        "name": "vilt",
        "dtype": "bfloat16",
        "width": 768,
        "depth": 12,
        "heads": 12,
        "mlp_dim": 3072,
        "dropout": 0.1,
        "norm_epsilon": 1e-6,
        "text": {"vocab_size": 30522, "length": 40},
        "image": {
            "image_size": (384, 384),
            "padded_size": (608, 608),
            "patch_size": 32,
            "max_patches": 200,
        },
        "words": True,
        "matching": 2,
    }
    config.loss = {"mask_id": 103, "mask_ratio": 0.15}
    config.loss_weights = {"masked_text": 1.0, "matching": 1.0, "alignment": 0.1}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-4,
        "schedule": "linear",
        "warmup_steps": 2500,
        "b2": 0.98,
        "weight_decay": 0.01,
        "weight_decay_include": ("text/.*embedding", ".*position/table", "modality_.*", "class_.*"),
    }
    return config
