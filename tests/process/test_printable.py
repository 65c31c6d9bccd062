"""Foreign text on one line, whatever is in it."""

import os

import pytest

from mmjax.process.printable import printable


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Täfelchen ☃ 本\u3000.png", "Täfelchen ☃ 本\u3000.png"),
        ("two\nlines\t\r.png", r"two\nlines\t\r.png"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\udce9.png"),
        (3, "3"),
    ],
)
def test_what_ends_a_line_or_cannot_be_encoded_is_escaped(text, want):
    found = printable(text)
    assert found == want and len(found.splitlines()) == 1
    found.encode()
