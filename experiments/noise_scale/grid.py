r"""Does scale overcome noise? CLIP on emoji by the fraction of wrong captions and the size of the
training set, with false negatives masked and not, at equal steps.

    python -m experiments.ablate --grid=experiments/noise_scale/grid.py --out=runs/noise_scale \
        --report=experiments/noise_scale
    python -m experiments.curves --grid=experiments/noise_scale/grid.py --out=runs/noise_scale \
        --metric=unseen_test/text_to_image/recall@5 --plot=experiments/noise_scale/curves.png
"""

from configs.clip_emoji import emoji, retrieval

WRONG = (0.0, 0.2, 0.4, 0.6, 0.8)
SIZES = (0.25, 1.0)  # of the 3,232 drawings of the training split


def noisy(size, wrong):
    """A part of the training split, a fraction of which has the captions of another one of it."""
    part = {"kind": "part", "source": emoji("train"), "start": 0.0, "stop": size}
    return {"kind": "swapped", "source": part, "fraction": wrong}


def title(size, masked, wrong):
    """The title of a cell; its last part is the x of `curve`."""
    kept = "masked" if masked else "not masked"
    return f"{100 * size:.0f} % of the set, false negatives {kept}, wrong {wrong}"


def curve(name):
    """(line, x) of a cell in the plot."""
    line, wrong = name.rsplit(", wrong ", 1)
    return line, 100 * float(wrong)


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/clip_emoji.py",
        "fixed": {
            "total_steps": 300,
            "evals": {split: retrieval(split) for split in ("seen_test", "unseen_test")},
            "validation": (),
            "baselines": "",
        },
        "arms": {
            title(size, masked, wrong): {
                "data.train": noisy(size, wrong),
                "loss.mask_duplicates": masked,
            }
            for size in SIZES
            for masked in (True, False)
            for wrong in WRONG
        },
        "baseline": title(1.0, True, 0.0),
        "seeds": [0, 1, 2],
        "metrics": {
            "seen_test/text_to_image/recall@5": "seen concepts, recall@5",
            "unseen_test/text_to_image/recall@5": "unseen concepts, recall@5",
        },
    }
