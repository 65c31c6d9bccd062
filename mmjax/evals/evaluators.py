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

from mmjax.batch import MODALITIES
from mmjax.config import check_type, nearest
from mmjax.data.class_names import label_map, mapped
from mmjax.data.transforms.captions import get_templates
from mmjax.evals.captioning import Captioning
from mmjax.evals.clicks import Clicks
from mmjax.evals.detection import Detection
from mmjax.evals.embedding_health import health_metrics
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.few_shot import FewShot, FewShotClassification
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
from mmjax.evals.multi_label import MultiLabel
from mmjax.evals.outputs import embed_texts
from mmjax.evals.question_answering import Vqa
from mmjax.evals.transcription import Transcription
from mmjax.evals.zero_shot import (
    Predictions,
    classification_metrics,
    classifier_weights,
    predict,
)
from mmjax.run.evaluation import Runner
from mmjax.system import Variables


def class_names_of(source: Any, given: Sequence[str] | None) -> list[str]:
    """The class names of an evaluator's config, or else those of its source.

    Raises:
      ValueError: neither has any.
    """
    names = list(given or getattr(source, "class_names", None) or [])
    if not names:
        raise ValueError(
            "A zero-shot evaluation has no class names: its source has none, so set class_names."
        )
    return names


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluator):
    """Zero-shot classification by prompts of the class names.

    Settings:
      class_names: those of the source in any order, perhaps among others; or other words for the
        source's classes, as many and in the same order.
      modality: what is classified: "image", "audio" or "video".
    """

    kind = "zero_shot"
    labeled = True
    templates: str | tuple[str, ...] = "plain"
    class_names: tuple[str, ...] | None = None
    modality: str = "image"

    def __post_init__(self):
        if self.modality not in MODALITIES or self.modality == "text":
            raise ValueError(f"modality is '{self.modality}': use 'image', 'audio' or 'video'.")

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {f"{self.modality}_embed": (self.modality,), "text_embed": ("text",)}

    def settings(self) -> dict[str, Any]:
        given = super().settings() | {"templates": get_templates(self.templates)}
        if self.modality == "image":  # the fingerprint of results from before there were others
            del given["modality"]
        return given

    def predictions(self, variables: Variables) -> Predictions:
        """By the largest cosine."""
        source = self._open(self.source)
        names = class_names_of(source, self.class_names)
        embed = f"{self.modality}_embed"
        outputs = self._embed(variables, source, [embed, "label"], modalities=(self.modality,))
        weights = classifier_weights(
            lambda texts: embed_texts(self.runner, variables, texts),
            names,
            self.templates,
        )
        label = mapped(outputs["label"], self._place(source, names))
        place, best = predict(outputs[embed], weights, label)
        return Predictions(label, place, best, names, outputs["example_id"])

    def _check_source(self, source: Any) -> None:
        self._place(source, class_names_of(source, self.class_names))

    def _place(self, source: Any, names: Sequence[str]) -> np.ndarray | None:
        """The place of each class of the source in `names`; None: the same."""
        own = getattr(source, "class_names", None)
        by_place = own is not None and len(own) == len(names) and not set(own) <= set(names)
        if by_place and all(a == b or a not in names for a, b in zip(own, names)):
            return None  # other words for some of the classes
        return label_map(own, names, "the source", "class_names")

    def run(self, variables: Variables) -> Results:
        found = self.predictions(variables)
        yield from found.metrics().items()
        yield from left_out(len(self._open(self.source)) - len(found.labels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Evaluator):
    """Top-1 and top-5 accuracy of a model with a classification head.

    Settings:
      modalities: the model's inputs; an example that has none of them is left out.
      absent: those of the modalities that are removed from the input.
    """

    kind = "classification"
    labeled = True
    modalities: tuple[str, ...] = ("image",)
    absent: tuple[str, ...] = ()

    def __post_init__(self):
        unknown = sorted(set(self.modalities) - set(MODALITIES))
        if unknown or not set(self.absent) < set(self.modalities):
            raise ValueError(
                f"A classification has the modalities {self.modalities} without {self.absent}: "
                f"give it some of {', '.join(MODALITIES)}, and leave at least one."
            )

    def _check_source(self, source: Any) -> None:
        self._label_map(source)

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"logits": self.modalities}

    def predictions(self, variables: Variables) -> Predictions:
        """By the largest logit."""
        inputs = {"modalities": self.modalities, "absent": self.absent}
        return self._predict(variables, self._open(self.source), **inputs)

    def run(self, variables: Variables) -> Results:
        found = self.predictions(variables)
        yield from found.metrics().items()
        yield from left_out(len(self._open(self.source)) - len(found.labels))


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
        LinearProbe,
        Knn,
        EmbeddingHealth,
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
        MultiLabel,
        Detection,
        Grounding,
        ImageGeneration,
        ImageReconstruction,
        ImageTokens,
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
