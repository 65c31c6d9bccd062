"""What is fuzzed: a reader, its valid files, and how they are mutated."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz.mutate import mutated_bytes, mutated_json, with_pieces

GOLDEN = Path(__file__).parents[1] / "golden"


class Seed(NamedTuple):
    """A valid file.

    Attributes:
      about: what its reader needs to know: its name, the folder around it.
      tree: JSON, which is mutated by its tree.
      pieces: texts that are inserted into half of the mutated files.
      repaired: sets the checksums of a mutated file, without which most changes would only be seen
        by their check.
    """

    data: bytes
    about: Any = None
    tree: bool = False
    pieces: Sequence[bytes] = ()
    repaired: Callable[[bytes], bytes] = bytes


class Reader(NamedTuple):
    """A reader of files that others write.

    Attributes:
      seeds: folder for temporary files -> valid files, of which `read` accepts every one.
      read: (mutated bytes, seed, folder); raises ValueError for a file that cannot be used.
      tested: how many inputs `make test` gives it, in about 0.7 s.
    """

    seeds: Callable[[Path], list[Seed]]
    read: Callable[[bytes, Seed, Path], None]
    tested: int


def inputs(name: str, seeds: list[Seed], first: int):
    """(number, mutated bytes, seed) without end; a number's input is the same in every run."""
    number = first
    while True:
        draw = random.Random(f"{name} {number}")
        seed, other = draw.choice(seeds), draw.choice(seeds).data
        mutate = mutated_json if seed.tree else mutated_bytes
        data = mutate(seed.data, draw, other)
        if seed.pieces and draw.random() < 0.5:
            data = with_pieces(seed.data, draw, seed.pieces)
        yield number, seed.repaired(data) if draw.random() < 0.7 else data, seed
        number += 1
