"""Ablation of a classifier's input modalities, one at a time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModalityAblation(Evaluator):
    """Top-1, top-5 and mean per-class accuracy with all modalities, and without each of them.

    A removed modality is zeros with `<modality>_present` false, so that models that ignore the
    mask get no information either. `without_.../same_answer` is the fraction of examples whose
    prediction does not change; if it is 1 for all modalities but one, the model uses only that one.

    Settings:
      modalities: at least two of image, text, audio, video.
    """

    kind = "modality_ablation"
    labeled = True
    modalities: tuple[str, ...]

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"logits": self.modalities}

    def __post_init__(self):
        if len(set(self.modalities)) < 2 or set(self.modalities) - set(MODALITIES):
            raise ValueError(
                f"The modalities of a modality_ablation are {self.modalities}: name at least two "
                f"of {', '.join(MODALITIES)}."
            )

    def _check_source(self, source: Any) -> None:
        self._label_map(source)

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        whole = None
        for absent in ((), *((m,) for m in self.modalities)):
            found = self._predict(variables, source, modalities=self.modalities, absent=absent)
            name = f"without_{absent[0]}" if absent else "all"
            yield from ((f"{name}/{metric}", value) for metric, value in found.metrics().items())
            if whole is None:
                whole = found.best
            else:
                yield f"{name}/same_answer", float(np.mean(found.best == whole))
        yield from left_out(len(source) - len(whole))
