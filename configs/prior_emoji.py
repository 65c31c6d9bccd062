r"""The diffusion prior of DALL-E 2 on emoji: image embeddings of a CLIP from the names.

    python -m mmjax.train --config=configs/clip_emoji.py --workdir=runs/clip_emoji
    python -m mmjax.train --config=configs/prior_emoji.py --workdir=runs/prior_emoji

The autoregressive prior of the paper, on 64 of the 128 principal components, and a one-shot one:

    ... --config.model.kind=autoregressive --config.model.prior.components=64
    ... --config.model.kind=one_shot

The CLIP and its tokenizer are those of the first run; to take others, set config.init_from.path and
config.tokenizer.path. `text_cosine` is what the text's own embedding gives, without a prior; expect
`prior_cosine` above it.
"""

from configs import clip_emoji
from configs.clip_emoji import EVAL_TRANSFORM, emoji
from mmjax.config import defaults

CLIP = ("(image|text)/.*", "(image|text)_proj/.*", "logit_scale")
RUN = "runs/clip_emoji"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 128
    config.total_steps = 1500
    config.log_every = 50
    config.checkpoint.every = 500

    config.data.train = emoji("train")
    config.data.cached_transform = "decode | resize(48)"
    config.data.transform = "choose_caption(template_p=0.0) | tokenize(16)"
    config.tokenizer = {"kind": "pretrained", "path": RUN}

    config.init_from.path = RUN
    config.init_from.only = CLIP
    given = clip_emoji.get_config().model.to_dict()
    given["image"]["patch_dropout"] = 0.0
    config.model = {
        **given,
        "name": "diffusion_prior",
        "dtype": "float32",
        "prior": {"width": 128, "depth": 4, "heads": 4, "dropout": 0.1},
        "schedule": {"steps": 1000},
    }
    config.loss = {"drop_text": 0.1}
    config.loss_weights = {"prior": 1.0}
    config.ema.decay = 0.995
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "b2": 0.96,
        "weight_decay": 0.06,
        "grad_clip_norm": 1.0,
        "freeze": CLIP,
    }
    config.evals = {
        split: {
            "kind": "loss",
            "source": emoji(split),
            "transform": f"{EVAL_TRANSFORM} | first_caption | tokenize(16)",
        }
        for split in ("seen_validation", "unseen_validation", "unseen_test")
    }
    config.validation = ("seen_validation", "unseen_validation")
    return config
