"""Reading an index while `mmjax.search index` updates it."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mmjax.search.index import Index, stamp


class Live:
    """The latest version of an index.

    Checking for a new version costs one `stat`. It is opened in a background thread while the old
    one keeps serving: deleted files stay readable while they are mapped.

    Args:
      index: the first version.
      check: raises ValueError for a version that must not be used, such as one of another model.
    """

    def __init__(self, index: Index, check: Callable[[Index], None]):
        self._index, self._check, self._tried = index, check, index.stamp
        self._opener = ThreadPoolExecutor(1)

    def now(self) -> Index:
        """The version to use."""
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
            print(f"warning: {error} The previous version stays in use.", file=sys.stderr)
        else:
            self._index = index
