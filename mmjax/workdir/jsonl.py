"""Files of JSON lines that survive kills and full disks."""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# What JSON allows in a string, and what ends a line for many readers or cannot be encoded.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KINDS = {int: "integer", float: "number", str: "text", dict: "object", list: "list"}


def line(value: Any) -> str:
    """A value as one line of JSON in readable characters, without the line break.

    Line separators, control characters and surrogates are escapes, which `json.loads` reads back.
    """
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append a line for each row; rows hold JSON values.

    Raises:
      ValueError: the file cannot be written, for instance because the disk is full.
    """
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    try:
        # Unbuffered and closed at once: a kill or a full disk tears at most one line.
        with open(path, "ab", buffering=0) as file:
            if file.write(lines) != len(lines):
                raise OSError("the disk is full")
    except OSError as error:
        raise ValueError(
            f"Cannot write {path}: {error.strerror or error}; make room, and start again to resume "
            "from the last checkpoint."
        ) from error


def read(path: Path, /, **fields: type) -> list[dict[str, Any]]:
    """The rows, without an incomplete last line; empty if there is no file.

    Args:
      fields: name -> type of what every row has; float: or an integer.

    Raises:
      ValueError: a complete line that is no JSON object, or has not these fields; names its number.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or empty
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{path}, line {number}, is not JSON: delete that line.") from None
        fault = fault_of(row, **fields)
        if fault is not None:
            raise ValueError(f"{path}, line {number}, {fault}: delete that line.")
        rows.append(row)
    return rows


def fault_of(value: Any, /, **fields: type) -> str | None:
    """Why a JSON value is no object with fields of these types; None if it is. See `read`."""
    if not isinstance(value, dict):
        return "is no JSON object"
    for name, kind in fields.items():
        if name not in value:
            return f"has no '{name}'"
        has = type(value[name])
        if has is not kind and not (kind is float and has is int):
            return f"has a '{name}' that is no {_KINDS[kind]}"
    return None


def cut_torn_end(path: Path) -> None:
    """Cut off a last line that a kill left incomplete."""
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


def plain(value: Any) -> Any:
    """Plain JSON values; NaN and infinities as strings, unknown objects by their repr."""
    if hasattr(value, "to_dict"):  # ml_collections
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
