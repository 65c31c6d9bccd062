r"""SAM of 1 million parameters from scratch on scenes of cut-out drawings, with exact masks.

    python -m mmjax.train --config=configs/sam_boards.py --workdir=runs/sam_boards

Scenes of 128 px with 2 to 6 objects of ktuberling's boards on the background of their board; two
of the ten boards are held out. Training is interactive, with 11 rounds as in Kirillov et al. 2023
(arXiv 2304.02643), appendix A; model.clicks=0 trains on the first prompt alone. Evaluated by the
mean IoU after 1 to 8 clicks on the held-out boards. Expected: see experiments/sam_boards.md, which
says what was measured.
"""

from mmjax.config import defaults

SIZE, OBJECTS = 128, 4
HELD_OUT = "egypt+pizzeria"
TRAINING = "butterflies+christmas+default_theme+moon+potato_game+robin_tux+robot_workshop"
TRAINING += "+train_valley"


def scenes(boards, count, seed):
    """Scenes of the objects of some boards."""
    return {
        "kind": "scenes",
        "objects": {"kind": "tfds", "name": "ktuberling", "split": boards},
        "count": count,
        "size": SIZE,
        "seed": seed,
        "per_scene": (2, 6),
        "scale": (0.2, 0.5),
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 16
    config.total_steps = 2000
    config.log_every = 20
    config.eval_every = 500
    config.validation = ("held_out",)
    config.checkpoint.every = 500
    config.data.train = scenes(TRAINING, 20_000, 0)
    last = f"pad_corner({SIZE}) | regions({OBJECTS}, masks=True)"
    config.data.transform = f"decode | flip | {last}"
    config.model = {
        "name": "sam",
        "objects": OBJECTS,
        "clicks": 8,
        "image": {
            "width": 128,
            "depth": 4,
            "heads": 4,
            "mlp_dim": 512,
            "patch_size": 8,
            "image_size": SIZE,
            "window": 6,
            "global_blocks": (1, 3),
            "out_width": 64,
        },
        "decoder": {"heads": 4, "mlp_dim": 256, "iou_width": 64},
    }
    config.loss_weights = {"mask": 1.0, "iou": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    held_out = {"source": scenes(HELD_OUT, 100, 1), "transform": f"decode | {last}"}
    config.evals = {"held_out": {"kind": "clicks", **held_out}}
    return config
