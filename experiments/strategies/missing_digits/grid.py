r"""Missing modalities at test time, on spoken and written digits.

    python -m experiments.ablate --grid=experiments/strategies/missing_digits/grid.py \
        --out=runs/missing_digits --report=experiments/strategies/missing_digits
"""

EARLY = {"model.fusion.kind": "early"}
LATE = {"model.fusion.kind": "late"}
UNCERTAIN = {**LATE, "model.fusion.weights": "uncertainty"}
DROPOUT = {"model.fusion.modality_dropout": 0.3}
DECODERS = {"model.fusion.reconstruction": 128, "loss_weights.reconstruction": 1.0}
FALLBACK = {"model.fallback_depth": 1, "loss_weights.fallback": 1.0}


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/fusion_digits.py",
        "arms": {
            "early": EARLY,
            "early, modality dropout": {**EARLY, **DROPOUT},
            "early, reconstruction": {**EARLY, **DECODERS},
            "early, modality dropout, reconstruction": {**EARLY, **DROPOUT, **DECODERS},
            "early, fallback heads": {**EARLY, **FALLBACK},
            "late": LATE,
            "late, modality dropout": {**LATE, **DROPOUT},
            "late, weights by uncertainty": UNCERTAIN,
            "late, weights by uncertainty, modality dropout": {**UNCERTAIN, **DROPOUT},
        },
        "baseline": "early",
        "seeds": [0, 1, 2],
        "metrics": {
            "both/top1": "both",
            "audio_only/top1": "audio only",
            "image_only/top1": "image only",
        },
    }
