"""File names and other foreign text as one line that can be printed and encoded."""

import re

# Control characters, line and paragraph separators, and surrogates, which stand for the bytes of a
# file name that is not UTF-8 (PEP 383) and cannot be encoded.
_ESCAPED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: object) -> str:
    """`str(text)` with such characters as escapes: `\\n`, `\\u2028`, `\\udcff` (the byte 0xff)."""
    return _ESCAPED.sub(lambda m: m[0].encode("unicode_escape").decode(), str(text))
