r"""The decoder of DALL-E 2 on emoji: 48 x 48 drawings from embeddings of a CLIP and names.

    python -m mmjax.train --config=configs/clip_emoji.py --workdir=runs/clip_emoji
    python -m mmjax.train --config=configs/prior_emoji.py --workdir=runs/prior_emoji
    python -m mmjax.train --config=configs/unclip_emoji.py --workdir=runs/unclip_emoji
    python -m mmjax.unclip --decoder=runs/unclip_emoji --prior=runs/prior_emoji \
        --prompt="red apple" --guidance=3 --out=apple.png

The CLIP's image tower is that of the first run, frozen; its size is that of the drawings. The
evaluations are of variations: their samples come from the embeddings of held-out drawings
themselves, not from texts. What to expect at most is `training/fid...`, of as many real images.
"""

from configs import clip_emoji
from configs.clip_emoji import emoji
from configs.glide_emoji import generation
from mmjax.config import defaults

RUN = "runs/clip_emoji"
TOWER = ("image/.*", "image_proj/.*")
SIZE, LENGTH = 48, 16
EVAL_TRANSFORM = f"decode | resize({SIZE}) | first_caption | tokenize({LENGTH})"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 3000
    config.log_every = 50
    config.checkpoint.every = 500

    config.data.train = emoji("train")
    config.data.cached_transform = f"decode | resize({SIZE})"
    config.data.transform = f"choose_caption(template_p=0.0) | tokenize({LENGTH})"
    config.tokenizer = {"kind": "pretrained", "path": RUN}

    config.init_from.path = RUN
    config.init_from.only = TOWER
    given = clip_emoji.get_config().model.to_dict()
    config.model = {
        "name": "unclip",
        "embed_dim": given["embed_dim"],
        "image": {**given["image"], "patch_dropout": 0.0},
        "image_size": SIZE,
        "backbone": {
            "kind": "unet",
            "channels": (32, 64, 96),
            "blocks": 1,
            "attention": (False, False, True),
            "head_dim": 32,
            "groups": 8,
            "dropout": 0.1,
        },
        "text": {
            "vocab_size": given["text"]["vocab_size"],
            "length": LENGTH,
            "width": 96,
            "depth": 2,
            "heads": 3,
        },
        "text_dropout": 0.5,
        "image_dropout": 0.1,
        "schedule": {"name": "squared_cosine", "steps": 1000},
    }
    config.loss_weights = {"simple": 1.0, "vlb": 0.001}
    config.ema.decay = 0.995
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "b2": 0.99,
        "weight_decay": 0.01,
        "grad_clip_norm": 1.0,
        "freeze": TOWER,
    }
    config.evals = {
        **{
            split: generation(split, EVAL_TRANSFORM, 2.0)
            for split in ("unseen_validation", "unseen_test")
        },
        "seen_loss": {
            "kind": "loss",
            "source": emoji("seen_validation"),
            "transform": EVAL_TRANSFORM,
        },
    }
    config.validation = ("unseen_validation", "seen_loss")
    return config
