"""The training loss and the same quantity on held-out data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.schedule import schedule

Rows = Sequence[Mapping[str, float]]
Curve = tuple[list[float], list[float]]  # steps, values


@dataclasses.dataclass(frozen=True)
class Losses:
    """The curve of a loss in training, and on the data of each evaluator that measures it.

    Attributes:
      name: "loss", or the term of it that is compared because evaluators lack another one.
    """

    name: str
    training: Curve
    held_out: Mapping[str, Curve]


def curve(rows: Rows, name: str) -> Curve:
    """The finite values of a metric and their steps."""
    points = [(r["step"], r[name]) for r in rows if name in r and np.isfinite(r[name])]
    return [step for step, _ in points], [value for _, value in points]


def compare_losses(rows: Rows, weights: Mapping[str, Any]) -> Losses | None:
    """The loss of a run and of its evaluators of kind `loss`; None without a training loss.

    Args:
      rows: of metrics.jsonl; weights: `config.loss_weights`, by which an evaluator's terms are
        added up. If it lacks a term, the first one that it has is compared.
    """
    names = {name for row in rows for name in row}
    found = sorted({tuple(n.split("/")[1:]) for n in names if n.startswith("eval/")})
    terms: dict[str, set[str]] = {}
    for evaluator, *rest in found:
        if len(rest) == 1 and rest[0] in weights:
            terms.setdefault(evaluator, set()).add(rest[0])
    whole = [evaluator for evaluator, has in terms.items() if has == set(weights)]
    shared = [t for t in weights if f"train/{t}" in names and any(t in h for h in terms.values())]
    if whole or not shared:
        name, held_out = "loss", {e: _total(rows, e, weights) for e in whole}
    else:
        name = shared[0]
        held_out = {e: curve(rows, f"eval/{e}/{name}") for e, has in terms.items() if name in has}
    training = curve(rows, f"train/{name}")
    if not training[0]:
        return None
    return Losses(name, training, {e: found for e, found in held_out.items() if found[0]})


def _total(rows: Rows, evaluator: str, weights: Mapping[str, Any]) -> Curve:
    steps, values = [], []
    for row in rows:
        terms = {t: row.get(f"eval/{evaluator}/{t}", np.nan) for t in weights}
        total = sum(float(schedule(weights[t], row["step"])) * x for t, x in terms.items())
        if np.isfinite(total):
            steps.append(row["step"])
            values.append(total)
    return steps, values
