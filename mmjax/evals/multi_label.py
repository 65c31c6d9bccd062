"""Evaluation of a head whose classes are independent of each other."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.average_precision import mean_average_precision
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Evaluator):
    """Mean average precision over the classes, of examples of several classes each.

    Its transform gives `label_probs` (see `multi_hot`), of which those from 0.5 on are true.

    Settings:
      modalities: the model's inputs; an example that has none of them is left out.
    """

    kind = "multi_label"
    modalities: tuple[str, ...] = ("audio",)

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"logits": self.modalities}

    def _check_row(self, batch: Mapping[str, np.ndarray]) -> None:
        super()._check_row(batch)
        if "label_probs" not in batch:
            raise ValueError(
                f"A '{self.kind}' needs label_probs and its transform gives "
                f"{', '.join(sorted(batch))}: end the transform with multi_hot."
            )

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        need = ["logits", "label_probs"]
        outputs = self._embed(variables, source, need, modalities=self.modalities)
        truth = outputs["label_probs"] >= 0.5
        yield "map", mean_average_precision(outputs["logits"], truth)
        yield from left_out(len(source) - len(truth))
