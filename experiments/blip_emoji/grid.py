r"""BLIP's parts, each left out: 200 steps from encoders that contrast has trained.

    python -m mmjax.train --config=configs/blip_emoji.py --workdir=runs/blip_contrast \
        --config.loss_weights="{'contrastive': 1.0}" --config.evals="{}" --config.validation="()"
    python -m experiments.ablate --grid=experiments/blip_emoji/grid.py --out=runs/blip_emoji \
        --report=experiments/blip_emoji
"""

from configs.blip_emoji import captioning, emoji
from experiments.albef_emoji.grid import get_grid as albef_grid


def get_grid():
    """The grid of this study: that of ALBEF, with captions in place of masked text."""
    grid = albef_grid()
    grid["config"] = "configs/blip_emoji.py"
    grid["fixed"]["init_from.path"] = "runs/blip_contrast"
    grid["fixed"]["evals"]["captions"] = captioning(emoji("unseen_test"), emoji("train"))
    del grid["arms"]["no masked text"]
    grid["metrics"]["captions/cider"] = "captions, CIDEr"
    return grid
