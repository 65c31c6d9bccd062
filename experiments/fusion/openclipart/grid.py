r"""Fusion kind x modality dropout on clip art and its words: which folder is it from? Each run is
tested with image and words, and with either alone.

    python -m experiments.ablate --grid=experiments/fusion/openclipart/grid.py \
        --out=runs/fusion_openclipart --report=experiments/fusion/openclipart
"""

from experiments.fusion import grid as digits


def get_grid():
    """The grid of this study: that of the digits, on another config."""
    return {
        **digits.get_grid(),
        "config": "configs/fusion_openclipart.py",
        "metrics": {
            "both/top1": "both",
            "image_only/top1": "image only",
            "text_only/top1": "words only",
        },
    }
