"""Filling in missing arrays, so that all batches have the same keys and the step compiles once.

Arrays of a missing modality are zeros, with `<modality>_present` False; a missing `label` is -1,
which losses ignore, and without regions no slot has one. No other array of the spec may be missing:
the model would train on zeros.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES, REGIONS

Row = dict[str, Any]
SAMPLES = 64  # maximum number of examples per part that are inspected for their arrays


def make_fill(
    samples: Mapping[str, Row], spec: Mapping[str, Any], needed: bool = False
) -> Callable[[Row], Row]:
    """(row) -> row with the keys common to all rows.

    Args:
      samples: part -> sample of each array found in its examples.
      spec: what the system reads: name -> shape with a leading 1, and dtype.
      needed: require every array that any part has, not only those of the spec.

    Raises:
      ValueError: a required array that no part, or not every part, has; or arrays whose shape or
        dtype differs between parts.
    """
    first: dict[str, str] = {}  # key -> the first part that has it
    for part, row in samples.items():
        for key, value in row.items():
            other = samples[first.setdefault(key, part)][key]
            if _kind(value) != _kind(other):
                raise ValueError(
                    f"Parts '{first[key]}' and '{part}' of the mixture give '{key}' as "
                    f"{_kind(other)} and {_kind(value)} per example: end their transforms with "
                    "steps that give every example the same shape."
                )
    nowhere = sorted(k for k in spec if k not in first and not _is_presence(k))
    if nowhere:
        raise ValueError(
            f"No example gives '{nowhere[0]}', which config.model needs (the first {SAMPLES} of "
            f"each source have {', '.join(sorted(first))}): add the step that makes it to the "
            "transform."
        )
    defaults, dropped = {}, set()  # values for missing keys, and keys that are removed
    for key, part in first.items():
        without = [other for other, row in samples.items() if key not in row]
        if _is_presence(key):
            continue
        if key.split("_")[0] in MODALITIES:
            defaults[key] = np.zeros_like(samples[part][key])
        elif without and key in REGIONS:
            defaults[key] = np.full_like(samples[part][key], REGIONS[key])
        elif without and key == "label":
            defaults[key] = np.full_like(samples[part][key], -1)
        elif without and (needed or key in spec):
            raise ValueError(
                f"Part '{without[0]}' of the mixture gives no '{key}', which part '{part}' gives "
                "and the model or the batch transform reads: add the step that makes it."
            )
        elif without:
            dropped.add(key)

    presence = {name: f"{name}_present" for name in MODALITIES if name in defaults}

    def fill(row: Row) -> Row:
        filled = {key: value for key, value in row.items() if key not in dropped}
        for modality, key in presence.items():
            filled.setdefault(key, np.bool_(modality in row))
        return {**defaults, **filled}

    return fill


def _kind(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _is_presence(key: str) -> bool:
    return key.endswith("_present")
