"""The perplexity evaluator."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.outputs import in_order, select
from mmjax.evals.perplexity import perplexity
from mmjax.losses.captioning import supervised
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perplexity(Evaluator):
    """Perplexity of the transform's text, given the model's other inputs.

    `runner.apply` gives `token_losses` `[B, L-1]` for each token after the first. Tokens are
    counted by `text_loss_mask` (for instance an answer without its question) if the batch has it,
    otherwise by `text_mask`.

    Settings:
      modalities: the model's inputs; without 'image' only the text is read.
    """

    kind = "perplexity"
    modalities: tuple[str, ...] = MODALITIES

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"text_logits": self.modalities}

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        rows = in_order(self.runner, source, self._losses(variables, source), "texts read")
        present = rows["present"]
        value = perplexity(rows["losses"][present], rows["counted"][present])
        yield "perplexity", value
        yield "loss", float(np.log(value))
        yield "tokens", float(rows["counted"][present].sum())
        yield from left_out(len(present) - int(present.sum()))

    def _losses(
        self, variables: Variables, source: Any
    ) -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in self._batches(source):
            given, _ = select(batch, self.modalities)
            if "text" not in given:
                raise ValueError(
                    f"Perplexity needs 'text' and its transform gives {', '.join(sorted(batch))}: "
                    "end the transform with tokenize."
                )
            outputs = self.runner.apply(variables, given, ["token_losses"])
            if "token_losses" not in outputs:
                raise ValueError(
                    "Perplexity needs a model that predicts text, and this one gives no "
                    "text_logits: remove this evaluation."
                )
            mask = np.asarray(supervised(given))
            there = given.get("text_present", np.ones(len(mask), bool))
            rows = {
                "losses": outputs["token_losses"],
                **self.runner.gather({"counted": mask, "present": there}),
            }
            yield batch, rows
