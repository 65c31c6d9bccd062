"""The evaluators that a config names: each gathers embeddings and calls one metric.

A preset is a dict with `kind` and the fields of that kind's class:

    config.evals = {"seen": {"kind": "retrieval", "source": {...}, "transform": "decode | ..."}}
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.captions import captions_of, get_templates
from mmjax.evals.embed import EvalContext, embed_images, embed_texts
from mmjax.evals.embedding_health import health_metrics
from mmjax.evals.knn import knn_scores
from mmjax.evals.retrieval import caption_ids, retrieval_metrics
from mmjax.evals.zero_shot import classification_metrics, classifier_weights

# Raised when a metric's rule changes, so that results of two rules never pass for one.
METRIC_VERSION = 1

Results = Iterator[tuple[str, float]]


def gather_captions(source: Any, captions_per_image: int) -> tuple[list[str], np.ndarray]:
    """All captions of a source and `[M]` the image of each; the first so many (0: all).

    An example without captions of its own has its class's name.
    """
    class_names = getattr(source, "class_names", None)
    texts: list[str] = []
    index: list[int] = []
    for i in range(len(source)):
        captions = captions_of(source[i], class_names)[: captions_per_image or None]
        texts += captions
        index += [i] * len(captions)
    return texts, np.asarray(index, np.int64)


def class_names_of(source: Any, given: Sequence[str] | None) -> list[str]:
    """The class names of a preset, or else those of its source.

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
class Evaluator:
    """One preset: a source of images and their transforms."""

    context: EvalContext = dataclasses.field(repr=False)
    source: Mapping[str, Any]
    transform: str

    def settings(self) -> dict[str, Any]:
        """The preset, resolved: kind, every setting, and the version of the metrics."""
        fields = [f.name for f in dataclasses.fields(self) if f.name != "context"]
        kind = next(k for k, cls in EVALUATORS.items() if cls is type(self))
        return {"kind": kind, "metric_version": METRIC_VERSION} | {
            name: getattr(self, name) for name in fields
        }

    def fingerprint(self) -> str:
        """First 12 digits of the SHA-256 of the preset: equal figures need equal fingerprints."""
        text = json.dumps(self.settings(), sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def run(self, params: Any) -> Results:
        """Yield (name, value)."""
        raise NotImplementedError

    def _open(self, config: Mapping[str, Any]) -> Any:
        return self.context.open_source(config)

    def _embed(self, params: Any, source: Any, need: Sequence[str]) -> dict[str, np.ndarray]:
        outputs = embed_images(self.context, params, source, self.transform)
        missing = [name for name in need if name not in outputs]
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs {missing} and the model and source give "
                f"{sorted(outputs)}: remove this evaluation or change its transform."
            )
        return outputs


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A source's images and captions, embedded."""

    image_embed: np.ndarray  # [N, D]
    text_embed: np.ndarray  # [M, D]
    texts: list[str]  # M captions
    text_image_index: np.ndarray  # [M], the image of each caption


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ImageText(Evaluator):
    """Needs both towers."""

    captions_per_image: int = 0  # the first so many captions; 0: all

    def pairs(self, params: Any) -> Pairs:
        """The whole source through both towers."""
        source = self._open(self.source)
        texts, index = gather_captions(source, self.captions_per_image)
        images = self._embed(params, source, ["image_embed"])["image_embed"]
        return Pairs(images, embed_texts(self.context, params, texts), texts, index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(_ImageText):
    """Image-text retrieval, both ways, over the whole source; see `retrieval.py` for its rules."""

    def run(self, params: Any) -> Results:
        p = self.pairs(params)
        ids = caption_ids(p.texts)
        metrics = retrieval_metrics(p.image_embed, p.text_embed, p.text_image_index, text_ids=ids)
        yield from metrics.items()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluator):
    """Classification by prompts of the class names."""

    templates: str | tuple[str, ...] = "plain"
    class_names: tuple[str, ...] | None = None

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"templates": get_templates(self.templates)}

    def scores(self, params: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Cosines `[N, C]`, labels `[N]` and the class names."""
        source = self._open(self.source)
        names = class_names_of(source, self.class_names)
        outputs = self._embed(params, source, ["image_embed", "label"])
        weights = classifier_weights(
            lambda texts: embed_texts(self.context, params, texts),
            names,
            self.templates,
        )
        return outputs["image_embed"] @ weights.T, outputs["label"], names

    def run(self, params: Any) -> Results:
        scores, labels, _ = self.scores(params)
        yield from classification_metrics(scores, labels).items()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Evaluator):
    """Top-1 and top-5 of a model that has a classification head."""

    def scores(self, params: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Logits `[N, C]`, labels `[N]` and the class names."""
        source = self._open(self.source)
        outputs = self._embed(params, source, ["logits", "label"])
        classes = outputs["logits"].shape[1]
        names = getattr(source, "class_names", None) or [str(i) for i in range(classes)]
        return outputs["logits"], outputs["label"], list(names)

    def run(self, params: Any) -> Results:
        scores, labels, _ = self.scores(params)
        yield from classification_metrics(scores, labels).items()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FrozenFeatures(Evaluator):
    """A classifier that is fitted on the features of another source."""

    train_source: Mapping[str, Any]
    features: str = "image_features"

    def _both(self, params: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        outputs = [
            self._embed(params, self._open(config), [self.features, "label"])
            for config in (self.train_source, self.source)
        ]
        classes = 1 + max(int(o["label"].max()) for o in outputs)
        train, test = outputs
        return train[self.features], train["label"], test[self.features], test["label"], classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe(_FrozenFeatures):
    """Logistic regression on frozen features; l2 chosen on a fifth of the training set."""

    def run(self, params: Any) -> Results:
        # Not sooner: scipy's optimizers take most of a second before the first step.
        from mmjax.evals.linear_probe import linear_probe

        train, train_labels, test, labels, classes = self._both(params)
        scores, l2 = linear_probe(train, train_labels, test, classes)
        yield from classification_metrics(scores, labels).items()
        yield "l2", l2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knn(_FrozenFeatures):
    """k nearest neighbours by cosine on frozen features."""

    k: int = 20
    temperature: float = 0.07

    def run(self, params: Any) -> Results:
        train, train_labels, test, labels, classes = self._both(params)
        scores = knn_scores(
            train, train_labels, test, classes, k=self.k, temperature=self.temperature
        )
        yield from classification_metrics(scores, labels).items()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingHealth(_ImageText):
    """Modality gap, alignment, uniformity and mean cosines; every caption with its image."""

    captions_per_image: int = 1

    def run(self, params: Any) -> Results:
        p = self.pairs(params)
        yield from health_metrics(p.image_embed, p.text_embed, p.text_image_index).items()


EVALUATORS: dict[str, type[Evaluator]] = {
    "retrieval": Retrieval,
    "zero_shot": ZeroShot,
    "classification": Classification,
    "linear_probe": LinearProbe,
    "knn": Knn,
    "embedding_health": EmbeddingHealth,
}


def _plain(value: Any) -> Any:
    """Config dicts as dicts, and lists as tuples, so that presets hash alike however written."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {k: _plain(v) for k, v in value.items()}
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def make_evaluators(evals: Mapping[str, Any], context: EvalContext) -> dict[str, Evaluator]:
    """The evaluators of `config.evals`: name -> settings with `kind`.

    Raises:
      ValueError: an unknown kind or setting (naming the nearest), or a missing one.
    """
    result: dict[str, Evaluator] = {}
    for name, preset in evals.items():
        settings = _plain(preset)
        kind = settings.pop("kind", None)
        if kind not in EVALUATORS:
            near = difflib.get_close_matches(str(kind), EVALUATORS, n=1)
            raise ValueError(
                f"config.evals.{name}.kind is '{kind}': use one of {sorted(EVALUATORS)}"
                + (f" (nearest: '{near[0]}')." if near else ".")
            )
        fields = {f.name: f for f in dataclasses.fields(EVALUATORS[kind]) if f.name != "context"}
        for key in settings:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                raise ValueError(
                    f"config.evals.{name}.{key} is not a setting of '{kind}': use one of "
                    f"{sorted(fields)}" + (f" (nearest: '{near[0]}')." if near else ".")
                )
        needed = {key for key, f in fields.items() if _required(f)}
        if needed - set(settings):
            raise ValueError(
                f"config.evals.{name} lacks {sorted(needed - set(settings))}: add them."
            )
        result[name] = EVALUATORS[kind](context=context, **settings)
    return result
