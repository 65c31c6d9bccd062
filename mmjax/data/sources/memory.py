"""A source that caches its decoded examples in memory."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mmjax.data.source import Source


class InMemory(Source):
    """`source` after `transform`; each example is computed at its first use and cached.

    For data sets that fit in memory, where parsing and decoding cost more than augmentation.

    Args:
      transform: (example, rng) -> example, deterministic; its rng is None.
    """

    def __init__(self, source: Source, transform: Callable[[dict, None], dict]):
        self.name, self.class_names = source.name, source.class_names
        self.unchecked = getattr(source, "unchecked", False)
        self._source, self._transform = source, transform
        self._examples: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # Two threads may compute the same example; the results are equal.
        if index not in self._examples:
            self._examples[index] = self._transform(self._source[index], None)
        return self._examples[index]

    def __getstate__(self):
        """For another process, which fills a cache of its own."""
        return {**vars(self), "_examples": {}}

    def meta(self, index: int) -> dict[str, Any]:
        """The source's `meta`, before the transform."""
        return self._source.meta(index)

    def is_bad(self, index: int) -> bool:
        """See `Source.is_bad`."""
        return self._source.is_bad(index)


@contextlib.contextmanager
def filled(steps: Iterable[list[tuple[Source, int]]]) -> Iterator[None]:
    """Computes the examples of steps, (source, index), in a thread until the context is left.

    An error is not reported: whoever reads the example meets it again.
    """
    left = threading.Event()

    def work() -> None:
        for examples in steps:
            for source, index in examples:
                if left.is_set():
                    return
                with contextlib.suppress(Exception):
                    source[index]

    threading.Thread(target=work, name="fill_cache", daemon=True).start()
    try:
        yield
    finally:
        left.set()
