"""The report's data as plain arrays, collected from a model through its evaluators."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmjax.evals.evaluator import Evaluator
from mmjax.report.evaluated import Evaluated
from mmjax.report.sections.table import SECTIONS
from mmjax.run.evaluation import Runner
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True)
class ReportData:
    """What the report shows of the model's outputs.

    Attributes:
      sections: section -> evaluator -> the data of that section; only where there are some.
      examples: evaluator -> number of examples of its source.
      seed: of the random choice of examples.
    """

    sections: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    examples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0


def gather_report(
    runner: Runner, variables: Variables, evaluators: Mapping[str, Evaluator], *, seed: int = 0
) -> ReportData:
    """The data of every section of `SECTIONS` that has some.

    Args:
      evaluators: from `make_evaluators`.
      seed: of the random choice of examples.
    """
    sections: dict[str, dict[str, Any]] = {}
    examples = {}
    for name, evaluator in evaluators.items():
        evaluated = Evaluated(name, evaluator, runner, variables, seed)
        examples[name] = len(evaluated.source)
        for key, section in SECTIONS.items():
            if section.once and key in sections:
                continue
            found = section.collect(evaluated)
            if found is not None:
                sections.setdefault(key, {})[name] = found
    return ReportData(sections, examples, seed)
