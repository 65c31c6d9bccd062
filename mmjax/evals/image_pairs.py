"""Sentences about pairs of images, true or false, as in NLVR2."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmjax.data.transforms.captions import as_text
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.system import Variables

_READ = ("image", "text")


def consistency(right: Bool[np.ndarray, " n"], sentence: Sequence[str]) -> float:
    """The fraction of sentences for all of whose pairs the answer is right.

    Args:
      right: of each example; sentence: an id that examples of the same sentence have in common.

    Source: Suhr et al. 2019 (arXiv 1811.00491), section 4; lil-lab/nlvr, nlvr2/eval/metrics.py.
    """
    _, number = np.unique(np.asarray(sentence), return_inverse=True)
    wrong = np.bincount(number, weights=~right)
    return float(np.mean(wrong == 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePairs(Evaluator):
    """Accuracy and consistency of a classifier of sentences about two images.

    Metrics: `accuracy`; `consistency`, if the source has `sentence_id`; `type_NAME`, the accuracy
    of each `statement_type`, if it has these; `majority`, the accuracy of the most frequent answer;
    `without_image/accuracy`, of the same model without the images; and, with `train_source`,
    `sentence_only/accuracy`, of a linear model on the words of the sentence that is fitted there.
    """

    kind = "image_pairs"
    labeled = True
    train_source: Mapping[str, Any] | None = None

    def _check_source(self, source: Any) -> None:
        self._label_map(source)

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"logits": _READ}

    def _right(self, variables: Variables, source: Any, *absent: str) -> tuple[np.ndarray, ...]:
        """Whether each answer is right, the labels, and the indices of the examples."""
        inputs = {"modalities": _READ, "absent": absent, "every": True}
        found = self._predict(variables, source, **inputs)
        return found.best == found.labels, found.labels, found.example_id

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        right, labels, places = self._right(variables, source)
        metas = [source.meta(int(i)) for i in places]
        yield "accuracy", float(right.mean())
        if all("sentence_id" in meta for meta in metas):
            yield "consistency", consistency(right, [str(meta["sentence_id"]) for meta in metas])
        kinds = np.asarray([str(meta.get("statement_type", "")) for meta in metas])
        for kind in sorted(set(kinds) - {""}):
            yield f"type_{kind}", float(right[kinds == kind].mean())
        yield "majority", float(np.bincount(labels).max() / len(labels))
        yield "without_image/accuracy", float(self._right(variables, source, "image")[0].mean())
        if self.train_source is not None:
            yield "sentence_only/accuracy", self._sentence_only(metas, self._names(source))
        yield from left_out(len(source) - len(places))

    def _names(self, source: Any) -> list[str]:
        return [str(name) for name in source.class_names]

    def _sentence_only(self, metas: Sequence[Mapping[str, Any]], names: list[str]) -> float:
        # Imported late: scipy's optimizers take most of a second.
        from mmjax.evals.question_only import question_only

        train = self._open(self.train_source)
        known = [train.meta(i) for i in range(len(train))]
        of_train = self._names(train)
        answers = question_only(
            [as_text(meta["captions"][0]) for meta in known],
            [of_train[meta["label"]] for meta in known],
            [as_text(meta["captions"][0]) for meta in metas],
        )
        return float(np.mean([a == names[m["label"]] for a, m in zip(answers, metas)]))
