"""An index that is read while `mmjax.search index` renews it."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mmjax.search.index import Index, stamp


class Live:
    """The newest state of an index.

    A look for a newer one costs one `stat`. It is opened in a thread of its own, while the one
    before goes on answering: the files of that stay readable while they are mapped, deleted or not.

    Args:
      index: the first state.
      check: raises ValueError for a state that is not to be used, such as one of another model.
    """

    def __init__(self, index: Index, check: Callable[[Index], None]):
        self._index, self._check, self._tried = index, check, index.stamp
        self._opener = ThreadPoolExecutor(1)

    def now(self) -> Index:
        """The state to answer from."""
        found = stamp(self._index.folder)
        if found != self._tried:
            self._tried = found
            self._opener.submit(self._open)
        return self._index

    def _open(self) -> None:
        try:
            index = Index(self._index.folder)
            self._check(index)
            index.prepare()
        except ValueError as error:
            print(f"warning: {error} What was there before still answers.", file=sys.stderr)
        else:
            self._index = index
