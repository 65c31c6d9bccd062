"""Rows with every array of the run, so that all batches have the same keys and compile once.

What a row lacks of a modality is zeros, and its `<modality>_present` is False; a `label` that it
lacks is -1, which losses leave out. No other array of the spec may be missing: zeros would be
learnt from.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES

Row = dict[str, Any]
SAMPLES = 64  # examples of a part that are looked at, at most, for what others do not give


def make_fill(
    samples: Mapping[str, Row], spec: Mapping[str, Any], needed: bool = False
) -> Callable[[Row], Row]:
    """(row) -> row with the keys that all rows have.

    Args:
      samples: for each part, the arrays that it was seen to give.
      spec: what the system reads: name -> its shape with a leading 1, and dtype.
      needed: every array of a part is needed by what comes after, not only those of the spec.

    Raises:
      ValueError: arrays that no part gives, that differ between parts, or that one part must give.
    """
    first: dict[str, str] = {}  # key -> the first part that gives it
    for part, row in samples.items():
        for key, value in row.items():
            other = samples[first.setdefault(key, part)][key]
            if _kind(value) != _kind(other):
                raise ValueError(
                    f"Parts '{first[key]}' and '{part}' of the mixture give '{key}' as "
                    f"{_kind(other)} and {_kind(value)} an example: end their transforms with "
                    "steps that give every example the same shape."
                )
    nowhere = sorted(k for k in spec if k not in first and not _is_presence(k))
    if nowhere:
        raise ValueError(
            f"No example gives '{nowhere[0]}', which config.model needs (the first {SAMPLES} of "
            f"each source have {', '.join(sorted(first))}): add the step that makes it to the "
            "transform."
        )
    absent, dropped = {}, set()  # what a row is given, and what is taken from it
    for key, part in first.items():
        lacking = [other for other, row in samples.items() if key not in row]
        if _is_presence(key):
            continue
        if key.split("_")[0] in MODALITIES:
            absent[key] = np.zeros_like(samples[part][key])
        elif lacking and key == "label":
            absent[key] = np.full_like(samples[part][key], -1)
        elif lacking and (needed or key in spec):
            raise ValueError(
                f"Part '{lacking[0]}' of the mixture gives no '{key}', which part '{part}' gives "
                "and the model or the batch transform reads: add the step that makes it."
            )
        elif lacking:
            dropped.add(key)

    def fill(row: Row) -> Row:
        filled = {key: value for key, value in row.items() if key not in dropped}
        for modality in MODALITIES:
            if modality in absent:
                filled.setdefault(f"{modality}_present", np.bool_(modality in row))
        return {**absent, **filled}

    return fill


def _kind(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _is_presence(key: str) -> bool:
    return key.endswith("_present")
