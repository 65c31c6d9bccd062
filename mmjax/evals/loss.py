"""The terms of the system's training loss on held-out examples."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax import batch as batches
from mmjax.evals.evaluator import Evaluator, Results
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(Evaluator):
    """Mean of every term of the loss over the source, without dropout.

    Noise, masks and other random draws of `corrupt` depend only on each example's index in the
    source, so the values are bitwise reproducible. Terms over a batch (contrastive ones) use
    batches of `config.batch_size` in the order of the source; terms without examples are left out.
    """

    kind = "loss"

    def _open(self, config: Mapping[str, Any]) -> Any:
        return self._as_trained(super()._open(config))

    def _check_row(self, batch: Mapping[str, np.ndarray]) -> None:
        batches.check(batches.to_device_dtypes(batch), self.runner.spec)

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
