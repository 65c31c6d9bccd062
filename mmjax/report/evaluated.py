"""An evaluator of a model, with those of its outputs that several sections of the report read."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.sources.subset import Subset
from mmjax.evals.classification import Classification, ZeroShot
from mmjax.evals.evaluator import Evaluator
from mmjax.evals.image_text import IMAGE_TEXT, Pairs, Retrieval
from mmjax.evals.zero_shot import Predictions
from mmjax.run.evaluation import Runner
from mmjax.system import Variables


class Evaluated:
    """An evaluator and the outputs of its model, each computed when it is first read.

    Args:
      seed: of the random choice of examples. It is made before any score is known, so that they are
        a random sample and not cherry-picked.
    """

    def __init__(
        self, name: str, evaluator: Evaluator, runner: Runner, variables: Variables, seed: int
    ):
        self.name, self.evaluator, self.runner = name, evaluator, runner
        self.variables, self.seed = variables, seed

    @functools.cached_property
    def source(self) -> Any:
        """The evaluator's source."""
        return self.runner.open_source(self.evaluator.source)

    @functools.cached_property
    def pairs(self) -> Pairs | None:
        """Embeddings of images and captions; None of an evaluator that does not compare them."""
        if not isinstance(self.evaluator, Retrieval) or self.evaluator.pair != IMAGE_TEXT:
            return None
        return self.evaluator.pairs(self.variables)

    @functools.cached_property
    def pair_source(self) -> Any:
        """The examples of `pairs`, one for each image."""
        return Subset(self.source, self.pairs.places)

    @functools.cached_property
    def predictions(self) -> Predictions | None:
        """Of a classification, else None."""
        if not isinstance(self.evaluator, ZeroShot | Classification):
            return None
        return self.evaluator.predictions(self.variables)

    @functools.cached_property
    def scores(self) -> tuple[np.ndarray, np.ndarray, Sequence[str]] | None:
        """Scores `[N, C]`, labels `[N]` and class names of a classification, else None; what needs
        no more than `predictions` reads those, as scores of many classes are large."""
        if not isinstance(self.evaluator, ZeroShot | Classification):
            return None
        return self.evaluator.scores(self.variables)

    def drawn(self, total: int, count: int) -> np.ndarray:
        """Indices of `count` examples of `total`, drawn by the seed, in ascending order."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.choice(total, min(count, total), replace=False))
