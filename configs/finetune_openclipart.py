"""Teach a CLIP of emoji what openclipart draws, and see what it forgets of emoji.

    python -m mmjax.train --config=configs/finetune_openclipart.py:runs/clip_emoji \
        --workdir=runs/finetune/full

Expected, fully tuned, with LoRA and with a locked tower: see experiments/finetune/README.md.
"""

from configs.clip_emoji import retrieval
from configs.clip_openclipart import openclipart
from configs.finetune_folder import get_config as finetune_folder


def get_config(weights):
    """The config of this experiment, for the workdir of a run of clip_emoji."""
    config = finetune_folder(weights)
    config.total_steps = 200
    config.data.train = openclipart("train")
    config.data.cached_transform = "decode | resize(72)"
    config.data.transform = (
        "random_resized_crop(48, scale=(0.7, 1)) | flip | choose_caption(template_p=0.0)"
        " | tokenize(16)"
    )
    config.optim.learning_rate = 3e-4
    target = {**retrieval("seen_test"), "source": openclipart("test")}
    config.evals = {
        "openclipart": target,
        "emoji_seen": retrieval("seen_test"),
        "emoji_unseen": retrieval("unseen_test"),
    }
    config.evals_at_start = tuple(config.evals)
    return config
