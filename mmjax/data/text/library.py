"""What the `tokenizers` library raises at a damaged file or vocabulary."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_error(about: str) -> Iterator[None]:
    """Within it whatever the library raises becomes a ValueError: what it is about, and its words.

    The library raises a bare Exception, or a panic of its Rust code, which is no Exception at all:
    it would end a command with a traceback.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ValueError(f"{about}: {error}") from None
        raise
