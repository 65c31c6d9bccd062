"""CLIP on emoji at their own aspect ratios, in three patch budgets: clip_emoji with a NaFlex tower.

    python -m mmjax.train --config=configs/naflex_emoji.py --workdir=runs/naflex_emoji

The white around each drawing is cut off, and each step's drawings have at most 16, 25 or 36 patches
of 8 pixels. Expected, of one seed: recall@5 on unseen concepts 9.1 % image to text and 9.6 % text
to image (clip_emoji, three seeds: 11.2 and 10.5), 4.3 % text to image in the style that is not
trained on.
"""

from configs.clip_emoji import emoji
from configs.clip_emoji import get_config as clip_emoji

BUDGETS = (16, 25, 36)
AUGMENT = (
    "random_affine(degrees=15, translate=0.1, scale=(0.7, 1.1))"
    " | color_jitter(0.4, 0.4, 0.4, 0.03, p=0.5) | random_grayscale(0.05)"
)


def get_config():
    """The config of this experiment."""
    config = clip_emoji()
    config.name = "naflex_emoji"
    config.data.cached_transform = ""
    config.data.train = {
        "kind": "mixture",
        "whole_batches": True,
        "parts": {
            f"patches_{n}": {
                "source": emoji("train"),
                "cached_transform": "decode | trim",
                "transform": f"{AUGMENT} | patches({n}, 8)",
            }
            for n in BUDGETS
        },
    }
    config.data.transform = "choose_caption(template_p=0.0) | tokenize(16)"
    image = config.model.image
    for name in ("stem", "image_size", "pool", "patch_dropout"):
        del image[name]
    image.update(kind="naflex", position_grid=(6, 6), max_patches=max(BUDGETS), dropout=0.1)
    for section in config.evals.values():
        section.transform = section.transform.replace("resize(48)", "trim | patches(36, 8)")
    config.baselines = ""
    return config
