"""File names that no one expects."""

import os

import pytest

NOT_UTF8 = b"caf\xe9"  # Latin-1
SEPARATED = "a\u2028b\nc"


def write(path, data, name):
    """Write a file with a name of bytes below a folder; skip the test where that cannot be."""
    try:
        with open(os.path.join(os.fsencode(path), name), "wb") as file:
            file.write(data)
    except OSError as error:
        pytest.skip(f"the file system refuses the name {name!r}: {error}")
