"""Results of a step that recur, such as the tokens of a caption."""

import functools

CAPTIONS = 2**14  # captions whose tokens are kept: a few hundred bytes each


class Cached:
    """The last `size` results of a function of one argument; another process has its own."""

    def __init__(self, function, size):
        self._given = (function, size)
        self._call = functools.lru_cache(size)(function)

    def __call__(self, argument):
        return self._call(argument)

    def __reduce__(self):
        return Cached, self._given
