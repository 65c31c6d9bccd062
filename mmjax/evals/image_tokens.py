"""The evaluator of models that predict the codes of an image from a text."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.outputs import in_order, select
from mmjax.system import Variables

INPUTS = ("image", "text")
PRIOR = 100  # codes, weight of the distribution over all places in that of one place


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTokens(Evaluator):
    """Bits for each code of an image, given its text and the codes before it.

    - `bits_per_code`: of the model; `bits_per_image`, their sum over an image.
    - `shuffled/bits_per_code`: with the text of the next image of the batch, to see whether the
      text matters.
    - `unigram/bits_per_code`: baseline, how often each code occurs in the training images; and
      `position/bits_per_code`, how often at each place. Both are smoothed: one is added to the
      counts, and the distribution over all places counts as 100 codes at each place.

    Settings:
      train_source: of the training images; None: without baselines.
      transform: of both sources.
    """

    kind = "image_tokens"
    train_source: Mapping[str, Any] | None = None

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"image_losses": INPUTS, "image_codes": INPUTS}

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        rows = in_order(self.runner, source, self._read(variables, source), "images")
        present = rows["present"]
        bits, shuffled = (rows[x][present] / math.log(2) for x in ("image_losses", "shuffled"))
        yield "bits_per_code", float(bits.mean())
        yield "bits_per_image", float(bits.sum(1).mean())
        yield "shuffled/bits_per_code", float(shuffled.mean())
        if self.train_source is not None:
            train = self._open(self.train_source)
            seen = in_order(self.runner, train, self._codes(variables, train), "training images")
            seen, codes = seen["image_codes"], rows["image_codes"][present]
            for name, log_p in baselines(seen, 1 + max(seen.max(), codes.max())).items():
                places = np.arange(codes.shape[1])[None]
                yield f"{name}/bits_per_code", float(-log_p[places, codes].mean() / math.log(2))
        yield from left_out(len(present) - int(present.sum()))

    def _read(
        self, variables: Variables, source: Any
    ) -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in self._batches(source):
            given, present = select(batch, INPUTS, every=True)
            found = self.runner.apply(variables, given, ["image_losses", "image_codes"])
            texts = {k: np.roll(x, 1, axis=0) for k, x in given.items() if k.startswith("text")}
            other = self.runner.apply(variables, {**given, **texts}, ["image_losses"])
            gathered = self.runner.gather({"present": present})
            yield batch, {**found, **gathered, "shuffled": other["image_losses"]}

    def _codes(
        self, variables: Variables, source: Any
    ) -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in self._batches(source):
            given, _ = select(batch, INPUTS)
            yield batch, dict(self.runner.apply(variables, given, ["image_codes"]))


def baselines(codes: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """log p of each code at each place [N, K], from the codes [images, N] of other images."""
    counts = np.stack([np.bincount(column, minlength=size) for column in codes.T]).astype(float)
    unigram = counts.sum(0) + 1
    unigram /= unigram.sum()
    position = (counts + PRIOR * unigram) / (len(codes) + PRIOR)
    return {"unigram": np.log(np.broadcast_to(unigram, counts.shape)), "position": np.log(position)}
