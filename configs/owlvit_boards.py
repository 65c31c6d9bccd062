"""OWL-ViT on synthetic scenes of ktuberling's boards, with drawings and names held out.

    python -m mmjax.train --config=configs/owlvit_boards.py --workdir=runs/owlvit_boards

Objects of eight boards are put on their backgrounds at random and found by their names. Two boards
are only evaluated: of potato_game the names are known and the drawings new; of egypt both are new,
but for "man" and "woman".
Expected, with baselines: see experiments/owlvit_boards.md.
"""

from mmjax.config import defaults

BOARDS = "butterflies+christmas+default_theme+moon+pizzeria+robin_tux+robot_workshop+train_valley"
SPLITS = {"seen": BOARDS, "new_drawings": "potato_game", "new_names": "egypt"}
SIZE, QUERIES, BOXES, LENGTH = 64, 12, 20, 8


def scenes(split, count, seed):
    """Scenes of the objects of a split, whose class names are only theirs."""
    objects = {"kind": "tfds", "name": "ktuberling", "split": split}
    return {
        "kind": "scenes",
        "objects": {"kind": "occurring", "source": objects},
        "count": count,
        "size": 96,
        "seed": seed,
        "per_scene": (2, 5),
        "scale": (0.25, 0.55),
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 400
    config.log_every = 20
    config.checkpoint.every = 100

    config.data.train = {
        "kind": "mosaics",
        "source": scenes(BOARDS, 4000, seed=0),
        "length": 16_000,
        "size": 96,
        "grids": (0.8, 0.2),  # at this size an object of 3 x 3 tiles would have a few pixels
    }
    config.data.transform = (
        f"decode | flip | random_resized_crop({SIZE}, scale=(0.6, 1.0)) | color_jitter(0.2, 0.2)"
        f" | regions({BOXES}) | name_queries({QUERIES}, {LENGTH})"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 600}

    small = {"width": 128, "heads": 4, "mlp_dim": 512, "activation": "gelu_tanh"}
    config.model = {
        "name": "owlvit",
        "embed_dim": 128,
        "dtype": "bfloat16",
        "queries": QUERIES,
        "boxes": BOXES,
        "objectness": True,
        "image": {**small, "depth": 4, "patch_size": 8, "image_size": (SIZE, SIZE)},
        "text": {
            **small,
            "depth": 1,
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
            "length": LENGTH,
        },
    }
    config.loss_weights = {"focal": 1.0, "box_l1": 1.0, "box_giou": 1.0, "objectness": 1.0}
    config.ema.decay = 0.99
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 40,
        "b2": 0.99,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
        "freeze": ("image_proj/.*", "logit_scale"),  # of CLIP; detection does not use them
    }
    config.evals = {
        name: {
            "kind": "detection",
            "source": scenes(split, 100, seed=1),
            "transform": f"decode | resize({SIZE}) | regions(1)",
        }
        for name, split in SPLITS.items()
    }
    return config
