"""The contrastive loss in float64, one pair at a time: slow, and too plain to be wrong."""

import math

import numpy as np


def kept(i, j, image_ids, text_ids):
    same_image = image_ids is not None and image_ids[i] == image_ids[j]
    same_text = text_ids is not None and text_ids[i] == text_ids[j]
    return i == j or not (same_image or same_text)


def slow_loss(
    x, y, scale, bias=0.0, *, kind="softmax", label_smoothing=0.0, image_ids=None, text_ids=None
):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(x)
    logit = [[scale * math.fsum(x[i] * y[j]) + bias for j in range(n)] for i in range(n)]
    losses = []
    for i in range(n):
        if kind == "sigmoid":
            for j in range(n):
                if kept(i, j, image_ids, text_ids):
                    target = (1 - label_smoothing) * (i == j) + label_smoothing / 2
                    losses.append(target * np.logaddexp(0, -logit[i][j]))
                    losses.append((1 - target) * np.logaddexp(0, logit[i][j]))
            continue
        places = [j for j in range(n) if kept(i, j, image_ids, text_ids)]
        for scores in ([logit[i][j] for j in places], [logit[j][i] for j in places]):
            log_sum = max(scores) + math.log(math.fsum(np.exp(np.array(scores) - max(scores))))
            for j, score in zip(places, scores, strict=True):
                target = (1 - label_smoothing) * (i == j) + label_smoothing / len(places)
                losses.append(target * (log_sum - score) / 2)
    return math.fsum(losses) / n


def slow_gradients(x, y, scale, bias, **options):
    """Central differences of `slow_loss` by x, y, scale and bias."""
    at = [np.array(a, np.float64) for a in (x, y, scale, bias)]
    step, gradients = 1e-5, []
    for k, argument in enumerate(at):
        gradient = np.zeros_like(argument)
        for place in np.ndindex(argument.shape):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in at]
                moved[k][place] += sign * step
                ends.append(slow_loss(*moved, **options))
            gradient[place] = (ends[0] - ends[1]) / (2 * step)
        gradients.append(gradient)
    return gradients
