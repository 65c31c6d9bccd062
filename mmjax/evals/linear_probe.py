"""Linear probe: multinomial logistic regression on frozen features, by L-BFGS."""

from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.special

# Candidate strengths of the l2 penalty (per example, on standardized features).
L2 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float, max_steps: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """Minimize mean cross-entropy + l2/2 |W|^2; returns W `[D, C]` and b `[C]` (float64).

    `features` `[N, D]` may be a scipy.sparse array.

    The bias is not penalized. Source: the protocol of Radford et al. 2021 (CLIP), appendix A.3.
    """
    x = features if scipy.sparse.issparse(features) else np.asarray(features, np.float64)
    count, width = x.shape
    rows = np.arange(count)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = flat[: width * classes].reshape(width, classes), flat[width * classes :]
        log_p = scipy.special.log_softmax(x @ w + b[None, :], axis=1)
        error = np.exp(log_p)
        error[rows, labels] -= 1.0
        error /= count
        loss = -log_p[rows, labels].mean() + 0.5 * l2 * np.sum(w * w)
        return loss, np.concatenate([(x.T @ error + l2 * w).ravel(), error.sum(axis=0)])

    start = np.zeros((width + 1) * classes)
    best = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": max_steps}
    ).x
    return best[: width * classes].reshape(width, classes), best[width * classes :]


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    features: np.ndarray,
    classes: int,
    *,
    l2s: Sequence[float] = L2,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """Scores `[N, C]` of a probe on `features`, and the l2 chosen on a fifth of the training set.

    Features are standardized by the training set's mean and standard deviation, so that one range
    of l2 fits every model. The probe is refitted on the whole training set with the chosen l2.

    Args:
      train_features: `[K, D]`; train_labels: `[K]` int; features: `[N, D]`.
    """
    x = np.asarray(train_features, np.float64)
    mean, scale = x.mean(axis=0, keepdims=True), x.std(axis=0, keepdims=True)
    scale = np.where(scale > 1e-8, scale, 1.0)
    x, test = (x - mean) / scale, (np.asarray(features, np.float64) - mean) / scale
    order = np.random.default_rng(seed).permutation(len(x))
    held_out, kept = order[: max(1, len(x) // 5)], order[max(1, len(x) // 5) :]

    def held_out_loss(l2: float) -> float:
        w, b = fit_logistic(x[kept], train_labels[kept], classes, l2)
        log_p = scipy.special.log_softmax(x[held_out] @ w + b[None, :], axis=1)
        return float(-log_p[np.arange(len(held_out)), train_labels[held_out]].mean())

    l2 = min(l2s, key=held_out_loss)
    w, b = fit_logistic(x, train_labels, classes, l2)
    return test @ w + b[None, :], l2
