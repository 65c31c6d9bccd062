r"""CLIP trained at equal steps on a noisy set and on what CapFilt makes of it; see prepare.sh.

    bash experiments/capfilt_emoji/prepare.sh
    python -m experiments.ablate --grid=experiments/capfilt_emoji/grid.py \
        --out=runs/capfilt_emoji/arms --report=experiments/capfilt_emoji
"""

from configs.clip_emoji import emoji, retrieval

NOISE = 0.4  # of prepare.sh


def clean_part(start, stop):
    """Emoji with their own captions: the first 30 % train captioner and filter."""
    return {"kind": "part", "source": emoji("train"), "start": start, "stop": stop}


NOISY = {"kind": "swapped", "source": clean_part(0.3, 1.0), "fraction": NOISE}


def bootstrapped(name):
    """A set that prepare.sh has written."""
    return {"kind": "array_record", "root": f"runs/capfilt_emoji/{name}"}


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
            "noisy": {"data.train": NOISY},
            "filtered": {"data.train": bootstrapped("filtered")},
            "captioned": {"data.train": bootstrapped("captioned")},
            "both": {"data.train": bootstrapped("both")},
            "no noise": {"data.train": clean_part(0.3, 1.0)},
        },
        "baseline": "noisy",
        "seeds": [0, 1, 2],
        "metrics": {
            "seen_test/text_to_image/recall@5": "seen concepts, recall@5",
            "unseen_test/text_to_image/recall@5": "unseen concepts, recall@5",
        },
    }
