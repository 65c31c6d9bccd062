r"""Late fusion of spoken and written digits, and one change of it at a time, five seeds.

    python -m experiments.ablate --grid=experiments/fusion/changes.py --out=runs/fusion_changes \
        --report=experiments/fusion/changes
"""


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/fusion_digits.py",
        "fixed": {"model.fusion.kind": "late"},
        "changes": [
            {"model.fusion.modality_dropout": 0.3},
            {"model.fusion.depth": 1},
            {"model.encoder_depth": 2},
            {"model.width": 32, "model.mlp_dim": 64},
            {"model.dropout": 0.1},
            {"optim.weight_decay": 0.0},
            {"optim.learning_rate": 1e-3},
        ],
        "seeds": [0, 1, 2, 3, 4],
        "metrics": {
            "both/top1": "both",
            "audio_only/top1": "audio only",
            "image_only/top1": "image only",
        },
        "give_up": {"metric": "both/top1", "seeds": 3, "margin": 0.2},
    }
