r"""Which predictions of digits can be trusted, with both modalities and with either one alone: a
softmax beside an evidential (Dirichlet) loss.

    python -m experiments.ablate --grid=experiments/uncertainty/grid.py --out=runs/uncertainty \
        --report=experiments/uncertainty

Temperature and threshold are fitted on a speaker and images that are neither trained on nor tested.
"""

from configs.fusion_digits import SOUND, digits

COVERAGE = 0.8


def trust(absent, evidential=False):
    """Calibration on the test speaker, fitted on the validation speaker, without `absent`."""
    return {
        "kind": "calibration",
        "source": digits("theo", "test[:2000]", 500),
        "fit_source": digits("yweweler", "validation[:2000]", 500),
        "transform": f"decode | {SOUND} | label",
        "modalities": ("image", "audio"),
        "absent": absent,
        "coverage": COVERAGE,
        "evidential": evidential,
    }


def evals(evidential):
    """The evaluators of an arm."""
    absent = {"both": (), "audio_only": ("image",), "image_only": ("audio",)}
    return {name: trust(missing, evidential) for name, missing in absent.items()}


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/fusion_digits.py",
        "fixed": {
            "data.cached_transform": f"decode | {SOUND}",
            "model.fusion.kind": "late",
            "model.fusion.modality_dropout": 0.3,
        },
        "arms": {
            "softmax": {"evals": evals(False)},
            "evidential": {
                "evals": evals(True),
                # The paper's min(1, epoch / 10); an epoch has 62 steps.
                "loss": {"evidential": ((0, 0.0), (400, 0.65))},
            },
        },
        "baseline": "softmax",
        "seeds": [0, 1, 2],
        "metrics": {
            f"{name}/{metric}": f"{name.replace('_', ' ')}, {title}"
            for name in ("both", "audio_only", "image_only")
            for metric, title in (
                ("top1", "accuracy"),
                ("ece", "ECE"),
                ("calibrated/ece", "ECE after T"),
                ("aurc", "AURC"),
                ("kept", f"kept at {100 * COVERAGE:.0f} %"),
                ("kept_top1", "accuracy of kept"),
            )
        },
    }
