"""A source in which, for each question type, every answer is equally frequent."""

import collections
from collections.abc import Mapping
from typing import Any

from mmjax.data.source import Source
from mmjax.data.sources.subset import Subset


class Balanced(Subset):
    """Repeats the examples of rarer answers in a source of questions.

    Args:
      source: its examples have a question as caption, and a label.
      words: number of leading words that define a question's type (as in VQA's question types,
        Antol et al. 2015, arXiv 1505.00468).
      max_repeats: maximum number of times an example is repeated.

    Raises:
      ValueError: a source without labels or captions.
    """

    def __init__(self, source: Source, words: int = 3, max_repeats: int = 20):
        groups: dict[str, dict[Any, list[int]]] = {}
        for i in range(len(source)):
            example = source.meta(i)
            if "label" not in example or not example.get("captions"):
                raise ValueError(
                    f"Example {i} of {source.name} has no label or no caption: 'balanced' is for "
                    "sources of questions with their answers."
                )
            kind = " ".join(example["captions"][0].split()[:words])
            groups.setdefault(kind, collections.defaultdict(list))[example["label"]].append(i)
        super().__init__(source, [i for g in groups.values() for i in even(g, max_repeats)])
        self.name = f"balanced {source.name}"


def even(answers: Mapping[Any, list[int]], max_repeats: int) -> list[int]:
    """Repeat each answer's examples until all answers are as frequent as the most common one."""
    most = max(map(len, answers.values()))
    return [
        examples[k % len(examples)]
        for _, examples in sorted(answers.items())
        for k in range(min(most, max_repeats * len(examples)))
    ]
