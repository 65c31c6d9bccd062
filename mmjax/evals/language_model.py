"""Perplexity of a model's text, as an evaluator."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES
from mmjax.evals.embed import in_order, select
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.perplexity import perplexity, token_losses
from mmjax.losses.captioning import supervised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perplexity(Evaluator):
    """Perplexity of the text that the transform makes, given all else that the model reads.

    The model gives `text_logits` `[B, L, V]`: those at a position are of the next token. What
    counts are the tokens of `text_mask` after the first or, where the batch has it, of
    `text_loss_mask` (an answer and not its question).

    Settings:
      modalities: what the model is given; without 'image' it is the text alone.
    """

    kind = "perplexity"
    modalities: tuple[str, ...] = MODALITIES

    def run(self, params: Any) -> Results:
        source = self._open(self.source)
        rows = in_order(self.context, source, self._losses(params, source), "texts read")
        present = rows["present"]
        value = perplexity(rows["losses"][present], rows["counted"][present])
        yield "perplexity", value
        yield "loss", float(np.log(value))
        yield "tokens", float(rows["counted"][present].sum())
        yield from left_out(len(present) - int(present.sum()))

    def _losses(
        self, params: Any, source: Any
    ) -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in self.context.batches(source, self.transform, self.context.batch_size):
            given, _ = select(batch, self.modalities)
            if "text" not in given:
                raise ValueError(
                    f"Perplexity needs 'text' and its transform gives {', '.join(sorted(batch))}: "
                    "end the transform with tokenize."
                )
            outputs = self.context.embed(params, given)
            if "text_logits" not in outputs:
                raise ValueError(
                    f"Perplexity needs 'text_logits' and the model gives {sorted(outputs)}: remove "
                    "this evaluation."
                )
            mask = np.asarray(supervised(given))
            there = given.get("text_present", np.ones(len(mask), bool))
            read = self.context.gather({"text": given["text"], "counted": mask, "there": there})
            losses = token_losses(np.asarray(outputs["text_logits"])[:, :-1], read["text"][:, 1:])
            yield batch, {"losses": losses, "counted": read["counted"], "present": read["there"]}
