r"""Fusion kind x modality dropout on spoken and written digits; each run is tested with both
modalities and with either one alone.

    python -m experiments.ablate --grid=experiments/fusion/grid.py --out=runs/fusion \
        --report=experiments/fusion
"""


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/fusion_digits.py",
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
            "audio_only/top1": "audio only",
            "image_only/top1": "image only",
        },
    }
