"""The gap between images and texts, beside retrieval, before and after treatments of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.config import nearest
from mmjax.data.transforms.captions import captions_of
from mmjax.evals.embedding_health import alignment, modality_gap
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.gap_treatments import TREATMENTS, Embeds, linear_separability, unit
from mmjax.evals.retrieval import caption_ids, retrieval_metrics
from mmjax.system import Variables

RECALLS = ("recall@1", "recall@5")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModalityGap(Evaluator):
    """Of each treatment: `gap` between the centroids, `separability` by a hyperplane, `alignment`
    of the pairs, and the mean of both directions' `recall@1` and `recall@5`.

    An example is a pair, its text the one that the transform gives. The treatments are fitted on
    `train_source`, and all embeddings have unit length after them, as before.

    Settings:
      train_source: pairs of the training set.
      treatments: names in `mmjax.evals.metrics.gap_treatments`; "none": as they are.
    """

    kind = "modality_gap"
    train_source: Mapping[str, Any]
    treatments: tuple[str, ...] = tuple(TREATMENTS)

    def __post_init__(self):
        for name in self.treatments:
            if name not in TREATMENTS:
                raise ValueError(
                    f"'{name}' is no treatment of the modality gap: use some of "
                    f"{', '.join(TREATMENTS)}.{nearest(name, TREATMENTS)}"
                )
        if not self.treatments:
            raise ValueError("The treatments of a modality_gap are empty: 'none' is one of them.")

    def needs(self) -> Mapping[str, Sequence[str]]:
        both = ("image", "text")
        return {"image_embed": both, "text_embed": both}

    def run(self, variables: Variables) -> Results:
        train, source = (self._open(config) for config in (self.train_source, self.source))
        fitted, _ = self._pairs(variables, train)
        embeds, places = self._pairs(variables, source)
        texts = [captions_of(source.meta(int(i)), source.class_names)[0] for i in places]
        ids, own = caption_ids(texts), np.arange(len(places))
        for name in self.treatments:
            image, text = (unit(x) for x in TREATMENTS[name](fitted, embeds))
            yield f"{name}/gap", modality_gap(image, text)
            yield f"{name}/separability", linear_separability(image, text)
            yield f"{name}/alignment", alignment(image, text)
            found = retrieval_metrics(image, text, own, text_ids=ids)
            for recall in RECALLS:
                both = (found[f"{d}/{recall}"] for d in ("image_to_text", "text_to_image"))
                yield f"{name}/{recall}", sum(both) / 2
        yield from left_out(len(source) - len(places))

    def _pairs(self, variables: Variables, source: Any) -> tuple[Embeds, np.ndarray]:
        """Embeddings of both modalities, float64, and the places of the pairs in the source."""
        found = self._embed(
            variables,
            source,
            ["image_embed", "text_embed"],
            modalities=("image", "text"),
            every=True,
        )
        embeds = tuple(found[f"{m}_embed"].astype(np.float64) for m in ("image", "text"))
        return embeds, found["example_id"]
