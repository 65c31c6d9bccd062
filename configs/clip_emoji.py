"""CLIP on emoji: drawings and names, trained on one vendor's style and 80 % of the concepts.

    python -m mmjax.train --config=configs/clip_emoji.py --workdir=runs/clip_emoji

Expected, with three seeds: see experiments/clip_emoji/README.md.
"""

from mmjax.config import defaults

EVAL_TRANSFORM = "decode | resize(48)"


def emoji(split):
    """A split of the emoji set."""
    return {"kind": "tfds", "name": "emoji", "split": split}


def retrieval(split):
    """Retrieval in both directions over a split, with the first caption of each drawing."""
    return {
        "kind": "retrieval",
        "source": emoji(split),
        "transform": EVAL_TRANSFORM,
        "captions_per_image": 1,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 128
    config.total_steps = 600
    config.log_every = 20
    config.checkpoint.every = 200

    config.data.train = emoji("train")
    config.data.cached_transform = "decode | resize(48)"
    # The other vendor's drawings differ in scale and color.
    config.data.transform = (
        "random_affine(degrees=15, translate=0.1, scale=(0.7, 1.1))"
        " | color_jitter(0.4, 0.4, 0.4, 0.03, p=0.5) | random_grayscale(0.05)"
        " | choose_caption(template_p=0.0) | tokenize(16)"
    )
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 4096}

    small = {"width": 128, "heads": 4, "mlp_dim": 512, "activation": "gelu_tanh"}
    config.model = {
        "name": "clip",
        "embed_dim": 128,
        "dtype": "bfloat16",
        "image": {
            **small,
            "depth": 4,
            "patch_size": 8,
            "stem": "conv",
            "image_size": (48, 48),
            "pool": "mean",
            "patch_dropout": 0.5,  # half the compute, and less overfitting on this small set
        },
        "text": {
            **small,
            "depth": 2,
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
            "length": 16,
            "causal": False,
            "mask_padding": True,
            "pool": "mean",
            "dropout": 0.1,
        },
    }
    config.loss = {"kind": "softmax", "mask_duplicates": True}
    config.ema.decay = 0.99
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 80,
        "b2": 0.98,
        "weight_decay": 0.3,
        "grad_clip_norm": 1.0,
    }

    splits = ("unseen_validation", "seen_validation")
    splits += ("seen_test", "unseen_test", "unseen_test_openmoji")
    config.evals = {split: retrieval(split) for split in splits}
    config.evals.category = {
        "kind": "zero_shot",
        "source": emoji("seen_test"),
        "transform": EVAL_TRANSFORM + " | label",
    }
    config.evals.health = {
        "kind": "embedding_health",
        "source": emoji("unseen_test"),
        "transform": EVAL_TRANSFORM,
    }
    config.evals.seen_loss = {
        "kind": "loss",
        "source": emoji("seen_validation"),
        "transform": EVAL_TRANSFORM + " | first_caption | tokenize(16)",
    }
    config.validation = ("unseen_validation", "seen_validation", "seen_loss")
    config.baselines = "experiments/clip_emoji/baselines.json"
    return config
