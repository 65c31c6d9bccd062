"""Classification: by a head of the model, and zero-shot by the texts of the class names."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES
from mmjax.data.class_names import label_map, mapped
from mmjax.data.transforms.captions import get_templates
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.outputs import embed_texts
from mmjax.evals.zero_shot import Predictions, classifier_weights, predict
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

    def scores(
        self, variables: Variables, config: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Cosines `[N, C]`, labels `[N]` and the class names, of another source if it is given."""
        embed, weights, label, names, _ = self._embedded(variables, config)
        return embed @ weights.T, label, names

    def predictions(self, variables: Variables) -> Predictions:
        """By the largest cosine; without those of all classes in memory."""
        embed, weights, label, names, example_id = self._embedded(variables, None)
        return Predictions(label, *predict(embed, weights, label), names, example_id)

    def _embedded(self, variables: Variables, config: Mapping[str, Any] | None) -> tuple:
        """Embeddings `[N, D]` and the classifier `[C, D]`, labels, class names and indices."""
        config = config or self.source
        return self._once(
            variables,
            "zero_shot",
            lambda: self._embed_both(variables, self._open(config)),
            source=config,
            templates=self.templates,
            class_names=self.class_names,
            modality=self.modality,
        )

    def _embed_both(self, variables: Variables, source: Any) -> tuple:
        names = class_names_of(source, self.class_names)
        embed = f"{self.modality}_embed"
        outputs = self._embed(variables, source, [embed, "label"], modalities=(self.modality,))
        weights = classifier_weights(
            lambda texts: embed_texts(self.runner, variables, texts),
            names,
            self.templates,
        )
        label = mapped(outputs["label"], self._place(source, names))
        return outputs[embed], weights, label, names, outputs["example_id"]

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

    def scores(
        self, variables: Variables, config: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Logits `[N, C]`, labels `[N]` and the class names, of another source if it is given."""
        config = config or self.source
        inputs = {"modalities": self.modalities, "absent": self.absent}

        def scores() -> tuple[np.ndarray, np.ndarray, list[str]]:
            source = self._open(config)
            outputs = self._embed(variables, source, ["logits", "label"], **inputs)
            return outputs["logits"], *self._named_labels(source, outputs)

        return self._once(variables, "scores", scores, source=config, **inputs)

    def predictions(self, variables: Variables) -> Predictions:
        """By the largest logit; without those of all classes in memory."""
        inputs = {"modalities": self.modalities, "absent": self.absent}

        def predictions() -> Predictions:
            return self._predict(variables, self._open(self.source), **inputs)

        return self._once(variables, "predictions", predictions, **inputs)

    def run(self, variables: Variables) -> Results:
        found = self.predictions(variables)
        yield from found.metrics().items()
        yield from left_out(len(self._open(self.source)) - len(found.labels))
