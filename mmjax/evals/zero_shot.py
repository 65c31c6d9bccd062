"""Zero-shot classification: class names become a classifier through the text tower."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from einops import rearrange

from mmjax.data.transforms.captions import prompt_ensemble

CHUNK = 1 << 23  # scores in memory at once


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


class Predictions(NamedTuple):
    """What a classifier says of N examples, without its scores of all classes.

    Attributes:
      labels: `[N]`; place: `[N]`, the true class's place by score, from 1, 0 where scores are not
        finite; best: `[N]`, the class with the highest score; class_names: of all C classes;
        example_id: `[N]`, their indices in the source.
    """

    labels: np.ndarray
    place: np.ndarray
    best: np.ndarray
    class_names: Sequence[str]
    example_id: np.ndarray

    def metrics(self) -> dict[str, float]:
        """See `place_metrics`."""
        return place_metrics(self.place, self.labels, len(self.class_names))


def places(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`place` and `best` of `Predictions` from scores `[N, C]`, higher is more likely.

    A class that ties with the true one ranks before it, so equal scores count as wrong.
    """
    scores = np.asarray(scores)
    label = np.clip(labels, 0, scores.shape[1] - 1)  # wrong ones are refused by `place_metrics`
    true = np.take_along_axis(scores, label[:, None], axis=1)
    place = np.count_nonzero(scores >= true, axis=1)  # the true class counts itself
    place[~np.isfinite(scores).all(axis=1)] = 0
    return place, scores.argmax(axis=1)


def predict(embed: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> tuple:
    """`places` by the cosines of embeddings `[N, D]` with a classifier `[C, D]`, in chunks."""
    rows = max(1, CHUNK // len(weights))
    parts = [
        places(embed[start : start + rows] @ weights.T, labels[start : start + rows])
        for start in range(0, len(embed), rows)
    ]
    return tuple(np.concatenate(part) for part in zip(*parts))


def place_metrics(place: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, float]:
    """Top-1, top-5 and the mean of the per-class accuracies, in [0, 1].

    Args:
      place: `[N]`, see `Predictions`; labels: `[N]` int; classes: their number.

    Raises:
      ValueError: scores that are not finite, or a label outside the classes.
    """
    if not place.all():
        raise ValueError("The scores of a classification hold values that are not finite.")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
        raise ValueError(
            f"Labels run over {found} and the classifier has {classes} classes: each "
            "example needs a label from 0 to one less than the classes."
        )
    right = place <= 1
    counts = np.bincount(labels)
    correct = np.bincount(labels, weights=right)
    return {
        "top1": float(right.mean()),
        "top5": float((place <= 5).mean()),
        "mean_per_class": float(np.mean(correct[counts > 0] / counts[counts > 0])),
    }


def classification_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`place_metrics` of scores `[N, C]` and labels `[N]`."""
    labels = np.asarray(labels)
    return place_metrics(places(scores, labels)[0], labels, np.shape(scores)[1])
