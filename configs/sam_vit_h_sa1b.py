r"""SAM with ViT-H/16 on SA-1B, the published setting.

    python -m mmjax.train --config=configs/sam_vit_h_sa1b.py --workdir=runs/sam_vit_h_sa1b \
        --config.data.train.root=DIR --config.init_from.path=MAE \
        "--config.init_from.only=('image/.*',)"

DIR has SA-1B's images and JSON files, 11 million of each. Setting: Kirillov et al. 2023 (arXiv
2304.02643), appendix A: 90,000 steps of 256 images at 1,024 px with up to 64 masks each, AdamW at
8e-4 with a warmup of 250 steps, divided by 10 at steps 60,000 and 86,666; weight decay 0.1, drop
path 0.4, layer-wise decay 0.8, no augmentation, masks of more than 90 % of the image left out, from
an MAE. The paper's decoder has a dropout of 0.1, this one none. MAE is a run or a folder with the
encoder's parameters in SAM's layout; without `init_from` it starts from scratch, so expect less.
"""

from mmjax.config import defaults

SIZE, OBJECTS = 1024, 64


def layer_decay(depth, decay):
    """Multipliers of the learning rate: 1 for neck and decoder, times `decay` a block."""
    blocks = [(rf"image/block{i}/.*", decay ** (depth - i)) for i in range(depth)]
    return (*blocks, ("image/(stem|position)/.*", decay ** (depth + 1)))


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 256
    config.total_steps = 90_000
    config.log_every = 100
    config.checkpoint.every = 1000
    config.data.train = {"kind": "sa1b", "root": "data/sa1b", "max_area": 0.9}
    config.data.transform = (
        f"decode | resize_long({SIZE}, 'bilinear') | pad_corner({SIZE})"
        f" | regions({OBJECTS}, masks=True)"
    )
    config.data.num_threads = 32
    config.model = {
        "name": "sam",
        "objects": OBJECTS,
        "clicks": 8,
        "dtype": "bfloat16",
        "image": {
            "variant": "H/16",
            "image_size": SIZE,
            "global_blocks": (7, 15, 23, 31),
            "stochastic_depth": 0.4,
            "remat": "full",
        },
        "decoder": {"remat": "full"},
    }
    config.loss_weights = {"mask": 1.0, "iou": 1.0}
    steps = ((0, 8e-4), (59_999, 8e-4), (60_000, 8e-5), (86_665, 8e-5), (86_666, 8e-6))
    config.optim = {
        "name": "adamw",
        "learning_rate": steps,
        "schedule": "constant",
        "warmup_steps": 250,
        "weight_decay": 0.1,
        "learning_rate_multipliers": layer_decay(32, 0.8),
    }
    return config
