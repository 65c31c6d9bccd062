"""Make calibration.json: calibration metrics of torchmetrics and scikit-learn.

    python tests/golden/make_calibration.py

Made with torchmetrics 1.9.0, scikit-learn 1.9.1 and SciPy 1.17.1, on logits that are too large.
"""

import json
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error


def main():
    """Write the file: logits, labels, and the metrics of both libraries."""
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(300, 6)), 3)
    probs = softmax(logits, axis=1)
    labels = np.asarray([rng.choice(6, p=p) for p in probs])
    logits *= 2.5  # overconfident
    probs = softmax(logits, axis=1)
    classes = list(range(6))
    given = torch.tensor(probs, dtype=torch.float64), torch.tensor(labels)
    found = {
        str(bins): float(multiclass_calibration_error(*given, 6, n_bins=bins, norm="l1"))
        for bins in (5, 15)
    }
    best = minimize_scalar(
        lambda t: log_loss(labels, softmax(logits / t, axis=1), labels=classes),
        bounds=(0.5, 10),
        method="bounded",
        options={"xatol": 1e-9},
    )
    result = {
        "logits": logits.tolist(),
        "labels": labels.tolist(),
        "ece": found,
        "nll": log_loss(labels, probs, labels=classes),
        "brier": brier_score_loss(labels, probs, labels=classes, scale_by_half=False),
        "temperature": best.x,
    }
    path = Path(__file__).parent / "calibration.json"
    path.write_text(json.dumps(result) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
