"""Rows with every array of the run, so that all batches have the same keys and compile once.

What a row lacks of a modality is zeros, and its `<modality>_present` is False. Other arrays, such
as `label`, cannot be missing unless the system's spec has `<name>_present` too: zeros would be
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
    absent = sorted(k for k in spec if k not in first and not _is_presence(k))
    if absent:
        raise ValueError(
            f"No example gives '{absent[0]}', which config.model needs (the first {SAMPLES} of "
            f"each source have {', '.join(sorted(first))}): add the step that makes it to the "
            "transform."
        )
    zeros = {key: np.zeros_like(samples[part][key]) for key, part in first.items()}
    optional, dropped = [], set()
    for key in [k for k in zeros if _modality(k) is None and not _is_presence(k)]:
        lacking = [part for part, row in samples.items() if key not in row]
        if f"{key}_present" in spec:
            optional.append(key)
        elif lacking and (needed or key in spec):
            raise ValueError(
                f"Part '{lacking[0]}' of the mixture gives no '{key}', which part '{first[key]}' "
                "gives and the model or the batch transform reads: add the step that makes it."
            )
        elif lacking:
            dropped.add(key)
    optional += [m for m in MODALITIES if m in zeros]
    # Of others `stack` says which row lacks them.
    wanted = {k: z for k, z in zeros.items() if _modality(k) or k in optional}
    wanted = {k: z for k, z in wanted.items() if not _is_presence(k)}

    def fill(row: Row) -> Row:
        filled = {k: v for k, v in row.items() if k not in dropped}
        for key in optional:
            filled.setdefault(f"{key}_present", np.bool_(key in row))
        return {**wanted, **filled}

    return fill


def _kind(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _modality(key: str) -> str | None:
    name = key.split("_")[0]
    return name if name in MODALITIES else None


def _is_presence(key: str) -> bool:
    return key.endswith("_present")
