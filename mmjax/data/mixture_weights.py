"""Weights of a mixture's parts that are a word: by how many examples each has."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES
from mmjax.config import nearest
from mmjax.data.transforms import chain

# Word for a weight -> power of a combination's fraction of all examples. Between 0 and 1 this is
# sampling at a temperature, of 2 for "sqrt": Arivazhagan et al. 2019 (arXiv 1907.05019), section 4.
POWERS = {"balanced": 0.0, "sqrt": 0.5, "proportional": 1.0}
WORDS = "'balanced', 'sqrt' or 'proportional'"

_MAKES = {  # step -> modality it makes
    "clap_input": "audio",
    "decode": "image",
    "log_mel": "audio",
    "tokenize": "text",
    "waveform": "audio",
}


def resolved(weights: dict[str, Any], parts: Sequence[Any], after: str) -> dict[str, Any]:
    """The weights with one of the words of `POWERS` replaced by numbers.

    Args:
      parts: see `mixture.Part`; after: the transforms that all of them end with.

    Raises:
      ValueError: another word, or one that not all parts have.
    """
    worded = {name: weight for name, weight in weights.items() if isinstance(weight, str)}
    if not worded:
        return weights
    name, word = next(iter(worded.items()))
    if word not in POWERS:
        raise ValueError(
            f"Part '{name}' of the mixture has the weight '{word}': use a number, points, or "
            f"{WORDS}.{nearest(word, POWERS)}"
        )
    other = next((name for name, weight in weights.items() if weight != word), None)
    if other is not None:
        raise ValueError(
            f"Part '{name}' of the mixture has the weight '{word}' and part '{other}' has "
            f"{weights[other]!r}: give all parts '{word}', or none."
        )
    given = {part.name: _modalities(part, after) for part in parts}
    total: collections.Counter = collections.Counter()
    for part in parts:
        total[given[part.name]] += len(part.source)
    every = sum(total.values())

    def weight(part: Any) -> float:
        same = total[given[part.name]]
        return len(part.source) / same * (same / every) ** POWERS[word]

    return {part.name: weight(part) for part in parts}


def _modalities(part: Any, after: str) -> frozenset[str]:
    """Modalities of a part, by the steps of its transforms and the arrays of its first example."""
    steps = {
        name
        for text in (part.cached_transform, part.transform, after)
        for name, *_ in chain.read(text)
    }
    example = part.source[0]
    found = {_MAKES[name] for name in steps & _MAKES.keys()}
    return frozenset(found | {m for m in MODALITIES if isinstance(example.get(m), np.ndarray)})
