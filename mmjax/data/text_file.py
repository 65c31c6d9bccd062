"""Text and JSON files that a user gives (captions, labels, configs): one way to read them.

UTF-8 with or without a byte order mark. Anything else is refused: a guessed encoding changes the
text without a word.
"""

import codecs
import json
import os
import re
from pathlib import Path
from typing import Any

# UTF-32's little-endian mark begins with that of UTF-16.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
MAX_DEPTH = 100  # of lists and objects within each other in JSON
_MEASURED = 1 << 20  # characters up to which the depth is counted; Python itself bounds the rest
_SURROGATE = re.compile("[\ud800-\udfff]")
_PERHAPS_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
_LINE_END = re.compile(r"\r\n|\n|\r")


def read(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file, without its byte order mark; line ends are kept as they are.

    Raises:
      ValueError: another encoding; names the file and the line.
    """
    return decode(Path(path).read_bytes(), str(path))


def decode(data: bytes, name: str) -> str:
    """As `read`, of a file's bytes; `name` is the file's, for messages."""
    for mark, encoding in _OTHER_MARKS.items():
        if data.startswith(mark):
            raise ValueError(f"{name} is {encoding}, by its byte order mark: save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The error's position does not count a byte order mark; its bytes do not either.
        before = error.object[: error.start]
        line = 1 + len(_LINE_END.findall(before.decode("utf-8")))
        raise ValueError(
            f"{name}, line {line}, is not UTF-8 (byte 0x{error.object[error.start]:02x}): save it "
            "as UTF-8."
        ) from None
    if "\0" in text:
        line = 1 + len(_LINE_END.findall(text[: text.index("\0")]))
        raise ValueError(
            f"{name}, line {line}, has a null character, which no text has (UTF-16 without a byte "
            "order mark has many): save it as UTF-8."
        )
    return text


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text that others wrote: `json.loads` without its other errors.

    Raises:
      ValueError: no JSON, or values that are nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(text)
        if len(text) > _MEASURED or not _is_deep(value):
            return value
    except RecursionError:
        pass
    raise ValueError(f"its values are nested more than {MAX_DEPTH} deep")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def what_is_wrong(error: Exception) -> str:
    """Why reading the values of a JSON file failed, as words: of what Python raises, the missing
    key alone."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def is_text(text: str) -> bool:
    """Whether a text is one of Unicode: an escape in JSON may be half of a surrogate pair, as where
    a program cut a text within an emoji, which no tokenizer takes."""
    return not _SURROGATE.search(text)


def has_surrogate(data: bytes, value: Any) -> bool:
    """Whether a text within a JSON value is none of Unicode, see `is_text`; `data` is its file."""
    if not _PERHAPS_SURROGATE.search(data):
        return False
    left = [value]
    while left:
        x = left.pop()
        if isinstance(x, dict):
            left += [*x.keys(), *x.values()]
        elif isinstance(x, list):
            left += x
        elif isinstance(x, str) and not is_text(x):
            return True
    return False


def lines(text: str) -> list[str]:
    """The lines of a text, ended by a line feed, a carriage return or both.

    `str.splitlines` would also split at characters that a caption may hold, such as U+2028.
    """
    found = _LINE_END.split(text)
    return found if found[-1] else found[:-1]
