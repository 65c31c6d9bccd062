"""The evaluators of a config: each collects model outputs and calls metric functions.

An evaluator config is a dict with `kind` and the fields of that kind's class:

    config.evals = {"seen": {"kind": "retrieval", "source": {...}, "transform": "decode | ..."}}
"""

import contextlib
import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.config import check_type, nearest
from mmjax.data.class_names import label_map, mapped
from mmjax.evals.calibration import Calibration, ZeroShotCalibration
from mmjax.evals.caption_swaps import CaptionSwaps
from mmjax.evals.captioning import Captioning
from mmjax.evals.classification import Classification, ZeroShot
from mmjax.evals.clicks import Clicks
from mmjax.evals.detection import Detection
from mmjax.evals.embedding_health import health_metrics
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.few_shot import FewShot, FewShotClassification
from mmjax.evals.grounded_answers import GroundedAnswers
from mmjax.evals.grounding import Grounding
from mmjax.evals.image_generation import ImageGeneration
from mmjax.evals.image_pairs import ImagePairs
from mmjax.evals.image_reconstruction import ImageReconstruction
from mmjax.evals.image_text import ImageText, Retrieval
from mmjax.evals.image_tokens import ImageTokens
from mmjax.evals.knn import knn_scores
from mmjax.evals.language_model import Perplexity
from mmjax.evals.loss import Loss
from mmjax.evals.modality_ablation import ModalityAblation
from mmjax.evals.modality_gap import ModalityGap
from mmjax.evals.multi_label import MultiLabel
from mmjax.evals.question_answering import Vqa
from mmjax.evals.tool_use import ToolUse
from mmjax.evals.transcription import Transcription
from mmjax.evals.zero_shot import classification_metrics
from mmjax.run.evaluation import Runner
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FrozenFeatures(Evaluator):
    """Base class of classifiers fitted on the features of another source."""

    labeled = True
    train_source: Mapping[str, Any]
    features: str = "image_features"

    def _check_source(self, source: Any) -> None:
        _place(self._open(self.train_source), source)

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {self.features: ("image",)}

    def _both(
        self, variables: Variables
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        sources = [self._open(config) for config in (self.train_source, self.source)]
        train, test = (self._embed(variables, s, [self.features, "label"]) for s in sources)
        test["label"] = mapped(test["label"], _place(*sources))
        classes = 1 + max(int(o["label"].max()) for o in (train, test))
        return train[self.features], train["label"], test[self.features], test["label"], classes


def _place(train: Any, test: Any) -> np.ndarray | None:
    known, own = (getattr(source, "class_names", None) for source in (train, test))
    return label_map(own, known, "source", "train_source")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe(_FrozenFeatures):
    """Logistic regression on frozen features; l2 chosen on a fifth of the training set."""

    kind = "linear_probe"

    def run(self, variables: Variables) -> Results:
        # Imported late: scipy's optimizers take most of a second.
        from mmjax.evals.linear_probe import linear_probe

        train, train_labels, test, labels, classes = self._both(variables)
        scores, l2 = linear_probe(train, train_labels, test, classes)
        yield from classification_metrics(scores, labels).items()
        yield "l2", l2
        yield from left_out(len(self._open(self.source)) - len(labels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knn(_FrozenFeatures):
    """k nearest neighbors by cosine on frozen features."""

    kind = "knn"
    k: int = 20
    temperature: float = 0.07

    def run(self, variables: Variables) -> Results:
        train, train_labels, test, labels, classes = self._both(variables)
        scores = knn_scores(
            train, train_labels, test, classes, k=self.k, temperature=self.temperature
        )
        yield from classification_metrics(scores, labels).items()
        yield from left_out(len(self._open(self.source)) - len(labels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingHealth(ImageText):
    """Modality gap, alignment, uniformity and mean cosines; every caption with its image."""

    kind = "embedding_health"
    captions_per_image: int = 1

    def run(self, variables: Variables) -> Results:
        p = self.pairs(variables)
        yield from health_metrics(p.image_embed, p.text_embed, p.text_image_index).items()
        yield from left_out(p.absent)


EVALUATORS: dict[str, type[Evaluator]] = {
    cls.kind: cls
    for cls in (
        Retrieval,
        ZeroShot,
        Classification,
        Calibration,
        ZeroShotCalibration,
        LinearProbe,
        Knn,
        EmbeddingHealth,
        CaptionSwaps,
        Captioning,
        Clicks,
        FewShot,
        FewShotClassification,
        Vqa,
        ImagePairs,
        Perplexity,
        Transcription,
        Loss,
        ModalityAblation,
        ModalityGap,
        MultiLabel,
        Detection,
        Grounding,
        GroundedAnswers,
        ImageGeneration,
        ImageReconstruction,
        ImageTokens,
        ToolUse,
    )
}


def _plain(value: Any) -> Any:
    """ConfigDicts as dicts and lists as tuples, so that equal configs have equal hashes."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {k: _plain(v) for k, v in value.items()}
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Context that prefixes a ValueError with the evaluator's name, `config.evals.<name>`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"config.evals.{name}: {error}") from None


def make_evaluators(evals: Mapping[str, Any], runner: Runner) -> dict[str, Evaluator]:
    """The evaluators of `config.evals`: name -> settings with `kind`.

    Raises:
      ValueError: an unknown kind or setting (suggests the nearest), or a missing one.
    """
    result: dict[str, Evaluator] = {}
    for name, evaluator in evals.items():
        settings = _plain(evaluator)
        if not isinstance(settings, dict):
            raise ValueError(
                f"config.evals.{name} is {settings!r}, not the settings of an evaluator: give a "
                "dict with its kind; to leave it out, delete it in the config file."
            )
        kind = settings.pop("kind", None)
        if kind is None:
            others = [other for other in evals if other != name]
            raise ValueError(
                f"config.evals.{name} has no kind: use one of {sorted(EVALUATORS)}."
                + nearest(name, others)
            )
        if kind not in EVALUATORS:
            near = difflib.get_close_matches(str(kind), EVALUATORS, n=1)
            raise ValueError(
                f"config.evals.{name}.kind is '{kind}': use one of {sorted(EVALUATORS)}"
                + (f" (nearest: '{near[0]}')." if near else ".")
            )
        fields = {f.name: f for f in dataclasses.fields(EVALUATORS[kind]) if f.name != "runner"}
        for key in settings:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                raise ValueError(
                    f"config.evals.{name}.{key} is not a setting of '{kind}': use one of "
                    f"{sorted(fields)}" + (f" (nearest: '{near[0]}')." if near else ".")
                )
            check_type(settings[key], fields[key].type, f"config.evals.{name}.{key}")
        needed = {key for key, f in fields.items() if _required(f)}
        if needed - set(settings):
            raise ValueError(
                f"config.evals.{name} has no {sorted(needed - set(settings))}: add them."
            )
        with naming(name):
            result[name] = EVALUATORS[kind](runner=runner, **settings)
    return result
