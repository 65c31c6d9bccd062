"""Early stopping: end a run whose validation metric no longer improves."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmjax.config import nearest

MODES = ("min", "max")


class EarlyStopping:
    """Stop once a metric has not improved for `patience` evaluations.

    Args:
      metric: its name in the results, such as "unseen/recall@1"; empty never stops.
      patience: evaluations without an improvement until the stop; at least 1.
      mode: 'max' if a larger value is better, 'min' if a smaller one is.
      min_delta: an improvement is larger than this.
    """

    def __init__(self, metric: str, patience: int, mode: str = "max", min_delta: float = 0.0):
        if mode not in MODES:
            raise ValueError(f"config.early_stopping.mode is '{mode}': use 'min' or 'max'.")
        if patience < 1 or min_delta < 0:
            raise ValueError(
                f"config.early_stopping has patience {patience} and min_delta {min_delta}: use a "
                "patience of at least 1 and a min_delta of at least 0."
            )
        self.metric, self.patience, self.mode, self.min_delta = metric, patience, mode, min_delta
        self.best: float | None = None
        self.waited = 0
        self.unchecked = bool(metric)  # whether an evaluation has shown that the metric is there

    @classmethod
    def of(cls, config: ConfigDict) -> "EarlyStopping":
        """That of a config.

        Raises:
          ValueError: bad settings, or a metric of an evaluator that does not run during training.
        """
        early = cls(**config.early_stopping)
        evaluator = early.metric.split("/")[0]
        if early.metric and (evaluator not in config.validation or not config.eval_every):
            raise ValueError(
                f"config.early_stopping.metric is '{early.metric}', and config.validation runs "
                f"{', '.join(config.validation) or 'nothing'} every {config.eval_every} steps: "
                "name its evaluator there and set eval_every."
            )
        return early

    @property
    def stopped(self) -> bool:
        """Whether the patience is used up."""
        return self.waited >= self.patience

    @property
    def evaluators(self) -> tuple[str, ...]:
        """The name of the evaluator that gives the metric."""
        return (self.metric.split("/")[0],) if self.metric else ()

    def check(self, results: Mapping[str, float]) -> None:
        """Check that results have the metric, such as those from before the first step.

        Raises:
          ValueError: they do not; the message names those that they have.
        """
        if self.metric and self.metric not in results:
            raise ValueError(
                f"config.early_stopping.metric is '{self.metric}'; config.validation gives "
                f"{sorted(results)}.{nearest(self.metric, results)}"
            )
        self.unchecked = False

    def update(self, results: Mapping[str, float]) -> None:
        """Take the results of one more evaluation; NaN is no improvement.

        Raises:
          ValueError: the metric is missing from the results.
        """
        if not self.metric:
            return
        self.check(results)
        value = float(results[self.metric])
        gain = math.inf
        if self.best is not None:
            gain = value - self.best if self.mode == "max" else self.best - value
        if not math.isnan(value) and gain > self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def state(self) -> dict[str, float | int | None]:
        """The state to checkpoint."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: Mapping[str, float | int | None], before: Mapping[str, Any]) -> None:
        """Restore what `state()` returned.

        Args:
          before: config.early_stopping of then. With another metric or mode it starts anew: the
            best value of another metric, or the worst one, cannot be improved on.
        """
        if (before["metric"], before["mode"]) != (self.metric, self.mode):
            if self.metric:
                print(
                    f"early stopping starts anew: it was on {before['metric'] or 'nothing'} "
                    f"({before['mode']}), and is on {self.metric} ({self.mode})"
                )
            return
        self.unchecked = False
        best = state["best"]
        self.best = None if best is None else float(np.asarray(best))
        self.waited = int(np.asarray(state["waited"]))
