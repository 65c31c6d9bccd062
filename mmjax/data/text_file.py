"""Text files that a user gives (captions, labels, shards' texts): one way to read them.

UTF-8 with or without a byte order mark. Anything else is refused: a guessed encoding changes the
text without a word.
"""

import codecs
import os
import re
from pathlib import Path

# UTF-32's little-endian mark begins with that of UTF-16.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
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


def lines(text: str) -> list[str]:
    """The lines of a text, ended by a line feed, a carriage return or both.

    `str.splitlines` would also split at characters that a caption may hold, such as U+2028.
    """
    found = _LINE_END.split(text)
    return found if found[-1] else found[:-1]
