"""The head of a language model that its config ties to the embedding: what the file has counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmjax.weights.published import Published
from mmjax.weights.tensor_file import Renamed, view

TIED = "tie_word_embeddings"


class Head(NamedTuple):
    """Names of the head and the embedding, the default of `tie_word_embeddings`, and
    `architectures` in config.json of models without a head."""

    name: str
    embedding: str
    tied: bool
    bare: Sequence[str]


def resolve(found: Published, head: Head) -> tuple[Published, list[str]]:
    """The folder with `tie_word_embeddings` as its tensors are, and notes for the report.

    Where the config ties the two, the file may have either, and a head that differs from the
    embedding is used, as in transformers 5 (PreTrainedModel.tie_weights).
    """
    shapes = found.tensors.shapes
    tied = bool(found.config.get(TIED, head.tied))
    found = found._replace(config=found.config | {TIED: tied})
    if not tied or head.name not in shapes:
        return found, []
    if head.embedding not in shapes:
        renamed = Renamed(found.tensors, lambda n: head.embedding if n == head.name else n)
        return found._replace(tensors=renamed), [f"{head.name} is the embedding too"]
    if np.array_equal(*(view(found.tensors, name) for name in (head.name, head.embedding))):
        without = Renamed(found.tensors, lambda n: None if n == head.name else n)
        return found._replace(tensors=without), [f"{head.name} equals {head.embedding}"]
    note = f"{head.name} differs from {head.embedding}: used, although {TIED} is true"
    return found._replace(config=found.config | {TIED: False}), [note]


def is_bare(found: Published, head: Head) -> bool:
    """Whether a folder, as `resolve` returns it, has no head, as its architecture says."""
    has = found.config[TIED] or head.name in found.tensors.shapes
    return not has and found.config.get("architectures") in ([name] for name in head.bare)
