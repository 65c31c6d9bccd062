"""Zero-shot classification: class names become a classifier through the text tower."""

from collections.abc import Callable, Sequence

import numpy as np
from einops import rearrange

from mmjax.data.transforms.captions import prompt_ensemble


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def ensemble_weights(prompt_embed: np.ndarray) -> np.ndarray:
    """Classifier `[C, D]` of unit rows from prompts `[C, T, D]`: normalize, mean, normalize.

    Source: Radford et al. 2021 (CLIP), section 3.1.4.
    """
    return _unit(_unit(np.asarray(prompt_embed, np.float32)).mean(axis=1))


def classifier_weights(
    embed_texts: Callable[[list[str]], np.ndarray],
    class_names: Sequence[str],
    templates: str | Sequence[str],
) -> np.ndarray:
    """Zero-shot classifier `[C, D]`.

    Args:
      embed_texts: maps n texts to `[n, D]`.
      templates: a name in `mmjax.data.transforms.captions.TEMPLATES`, or prompts with `{}` for the
        class name.
    """
    prompts = [prompt_ensemble(name, templates) for name in class_names]
    flat = embed_texts([text for texts in prompts for text in texts])
    of_names = rearrange(flat, "(name prompt) d -> name prompt d", name=len(prompts))
    return ensemble_weights(of_names)


def classification_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1, top-5 and the mean of the per-class accuracies, in [0, 1].

    A class that ties with the true one ranks before it, so equal scores count as wrong.

    Args:
      scores: `[N, C]`, higher is more likely; labels: `[N]` int.

    Raises:
      ValueError: scores that are not finite, or a label outside the classes.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if not np.isfinite(scores).all():
        raise ValueError("The scores of a classification hold values that are not finite.")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= scores.shape[1]:
        found = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
        raise ValueError(
            f"Labels run over {found} and the classifier has {scores.shape[1]} classes: each "
            "example needs a label from 0 to one less than the classes."
        )
    true = np.take_along_axis(scores, labels[:, None], axis=1)  # [N, 1]
    rank = (scores >= true).sum(axis=1)  # the true class counts itself
    right = rank <= 1
    counts = np.bincount(labels)
    correct = np.bincount(labels, weights=right)
    return {
        "top1": float(right.mean()),
        "top5": float((rank <= 5).mean()),
        "mean_per_class": float(np.mean(correct[counts > 0] / counts[counts > 0])),
    }
