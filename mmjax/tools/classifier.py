"""What an image shows, by a dual encoder: the most probable of some labels."""

import functools

import numpy as np

from mmjax.data.builders.imagenet_classes import imagenet_classes
from mmjax.embedder import Embedder, open_embedder
from mmjax.evals.zero_shot import classifier_weights
from mmjax.photos.default import named_or_default
from mmjax.tools.labels import read_labels
from mmjax.tools.run import Given

TEMPLATES = ("a photo of a {}",)
TOP = 3  # labels of a result
SIZES = (1, 8, 64)  # of batches of texts and images


class Classifier:
    """A tool: "cat, dog" -> "dog 0.93, cat 0.07" of the latest image.

    Without labels, they are the names of ImageNet's 1,000 classes.
    """

    def __init__(self, embedder: Embedder):
        self._embedder = embedder
        self._weights = functools.lru_cache(8)(self._make_weights)

    def __call__(self, arguments: str, given: Given) -> str:
        labels = tuple(read_labels(arguments)) or class_names()
        if len(labels) == 1:
            raise ValueError(f"'{labels[0]}' is the only label: give several, or none")
        image = self._embedder.prepare(given.image())
        cosines = self._embedder.images([image])[0] @ self._weights(labels).T
        probabilities = self._embedder.probabilities(cosines)
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        return ", ".join(f"{labels[i]} {probabilities[i]:.2f}" for i in best)

    def _make_weights(self, labels: tuple[str, ...]) -> np.ndarray:
        return classifier_weights(self._embedder.texts, labels, TEMPLATES)


@functools.cache
def class_names() -> tuple[str, ...]:
    """The usual name of each of ImageNet's classes; two pairs of them share one."""
    return tuple(dict.fromkeys(found.names[0] for found in imagenet_classes()))


def open_classifier(path: str) -> Classifier:
    """The classifier of a model; "": of the default model, which is built where it is missing.

    Raises:
      ValueError: see `open_embedder` and `named_or_default`.
    """
    return Classifier(open_embedder(named_or_default(path or None), SIZES))
