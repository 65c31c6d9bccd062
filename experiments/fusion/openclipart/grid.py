"""Fusion kind x modality dropout on clip art and its words: which folder is it from? Each run is
tested with picture and words, and with either alone.

    python -m experiments.ablate --grid=experiments/fusion/openclipart/grid.py \
        --out=runs/fusion_openclipart --report=experiments/fusion/openclipart
"""


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/fusion_openclipart.py",
        "axes": {
            "model.fusion.kind": [
                "early",
                "early_features",
                "late",
                "gated",
                "cross_attention",
                "bidirectional",
                "bottleneck",
            ],
            "model.fusion.modality_dropout": [0.0, 0.3],
        },
        "baseline": {"model.fusion.kind": "late", "model.fusion.modality_dropout": 0.0},
        "seeds": [0, 1, 2],
        "metrics": {
            "both/top1": "both",
            "image_only/top1": "image only",
            "text_only/top1": "words only",
        },
    }
