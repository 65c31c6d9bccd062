"""The terms of the system's own loss on held-out examples."""

import collections
import dataclasses

from mmjax.evals.evaluator import Evaluator, Results
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(Evaluator):
    """Mean of every term of the loss over the source, without dropout.

    Noise, masks and whatever else `corrupt` draws follow from each example's place in the source,
    so the values repeat to the bit. Terms that compare the examples of a batch (contrastive ones)
    compare those of `config.batch_size` in the order of the source; a term that no example has is
    left out.
    """

    kind = "loss"

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        sums: dict[str, float] = collections.defaultdict(float)
        weights: dict[str, float] = collections.defaultdict(float)
        done = 0
        for batch in self._batches(source):
            for name, (mean, weight) in self.runner.losses(variables, batch).items():
                sums[name] += mean * weight
                weights[name] += weight
            done = min(len(source), done + self.runner.batch_size)
            self.runner.progress("losses", done, len(source))
        yield from ((name, sums[name] / weight) for name, weight in weights.items() if weight)
