r"""Fine-tune a CLIP trained on emoji on photographs, and measure what it forgets about emoji.

    python -m mmjax.train --config=configs/finetune_cifar10.py:runs/clip_emoji \
        --workdir=runs/finetune/full --config.data.train.root=DIR/train \
        --config.evals.cifar10.source.source.root=DIR/test

DIR/train and DIR/test have one folder of images per class of CIFAR-10; the class name is the
caption. Expected, with full tuning, a locked tower and LoRA: experiments/finetune/README.md.
"""

from configs.clip_emoji import retrieval
from configs.finetune_folder import get_config as finetune_folder
from configs.vit_cifar10 import folder


def get_config(weights):
    """The config of this experiment, for the workdir of a run of clip_emoji."""
    config = finetune_folder(weights)
    config.total_steps = 200
    config.data.train = folder("data/cifar10/train")
    config.data.transform = (
        "decode | random_resized_crop(48, scale=(0.7, 1)) | flip | choose_caption | tokenize(16)"
    )
    config.optim.learning_rate = 3e-4
    config.evals = {
        "cifar10": {
            "kind": "zero_shot",
            "source": {"kind": "part", "source": folder("data/cifar10/test"), "stop": 0.2},
            "transform": "decode | resize(48) | label",
        },
        "emoji_seen": retrieval("seen_test"),
        "emoji_unseen": retrieval("unseen_test"),
    }
    config.evals_at_start = tuple(config.evals)
    return config
