r"""A CLIP of emoji with noise, at 32 px, which guides the sampler of `glide_emoji`.

    python -m mmjax.train --config=configs/noised_clip_emoji.py --workdir=runs/noised_clip_emoji
    python -m mmjax.sample --model=runs/glide_emoji --prompt="red apple" --out=apple.png \
        --clip=runs/noised_clip_emoji --clip_guidance=2

Size and noise are those of `glide_emoji`. Its evaluations are of clean drawings, which it sees as
those of time 0; `seen_loss` is with noise. Expected: not measured.
"""

from configs import clip_emoji, glide_emoji
from configs.clip_emoji import emoji
from configs.glide_emoji import EVAL_TRANSFORM, LENGTH, SIZE


def get_config():
    """The config of this experiment."""
    config = clip_emoji.get_config()
    config.total_steps = 1200
    config.checkpoint.every = 400

    config.data.cached_transform = f"decode | resize({SIZE})"
    config.data.transform = f"choose_caption(template_p=0.0) | tokenize({LENGTH})"
    config.model.name = "noised_clip"
    config.model.schedule = glide_emoji.get_config().model.schedule.to_dict()
    config.model.image.update({"image_size": (SIZE, SIZE), "pool": "cls", "patch_dropout": 0.0})
    splits = ("unseen_validation", "unseen_test")
    config.evals = {
        **{
            split: {**clip_emoji.retrieval(split), "transform": f"decode | resize({SIZE})"}
            for split in splits
        },
        "seen_loss": {
            "kind": "loss",
            "source": emoji("seen_validation"),
            "transform": EVAL_TRANSFORM,
        },
    }
    config.validation = ("unseen_validation", "seen_loss")
    config.baselines = ""
    return config
