r"""Sound alone, lips alone and both, trained alike, at six signal-to-noise ratios.

    python -m experiments.ablate --grid=experiments/avsr_digits/grid.py --out=runs/avsr_digits \
        --report=experiments/avsr_digits
"""

from configs.avsr_digits import RATIOS


def get_grid():
    """The grid of this study."""
    noisy = {f"snr_{ratio}/wer": f"WER at {ratio} dB" for ratio in RATIOS}
    return {
        "config": "configs/avsr_digits.py",
        "arms": {
            "sound alone": {"model.video": None},
            "lips alone": {"model.audio": None},
            "both": {},
            "both, no modality dropout": {"model.modality_dropout": 0.0},
        },
        "baseline": "sound alone",
        "seeds": [0, 1, 2],
        "metrics": {"clean/wer": "WER without noise", **noisy},
    }
