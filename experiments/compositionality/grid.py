r"""Word order and attributes: CLIP on emoji with swapped captions as hard negatives, and without.

    python -m experiments.ablate --grid=experiments/compositionality/grid.py \
        --out=runs/compositionality --report=experiments/compositionality
"""

from configs.clip_emoji import EVAL_TRANSFORM, emoji, get_config, retrieval

SPLITS = ("seen_test", "unseen_test")


def swaps(split):
    """Own and swapped captions of a split."""
    source = {"kind": "caption_swaps", "source": emoji(split)}
    return {"kind": "caption_swaps", "source": source, "transform": EVAL_TRANSFORM}


def get_grid():
    """The grid of this study."""
    evals = {f"{split}_swaps": swaps(split) for split in SPLITS}
    evals |= {split: retrieval(split) for split in SPLITS}
    transform = get_config().data.transform
    return {
        "config": "configs/clip_emoji.py",
        "fixed": {"total_steps": 300, "evals": evals, "validation": (), "baselines": ""},
        "arms": {
            "contrast": {},
            "with hard negatives": {
                "loss.hard_negatives": True,
                "data.transform": f"{transform} | hard_negative(16)",
            },
        },
        "baseline": "contrast",
        "seeds": [0, 1, 2],
        "metrics": {
            f"{split}{suffix}/{metric}": f"{split.split('_')[0]}, {title}"
            for split in SPLITS
            for suffix, metric, title in (
                ("_swaps", "accuracy", "own caption"),
                ("_swaps", "accuracy/color", "color"),
                ("_swaps", "accuracy/gender", "gender"),
                ("_swaps", "accuracy/skin_tone", "skin tone"),
                ("_swaps", "accuracy/tone_order", "order of tones"),
                ("_swaps", "accuracy/word_order", "order of words"),
                ("_swaps", "group_score", "group score"),
                ("", "text_to_image/recall@5", "recall@5"),
            )
        },
    }
