"""WordNet's nouns: words, definitions, and which synset is a kind of which.

The file data.noun of WordNet 3.0, as in Debian's package `wordnet-base`. Format: wndb(5WN).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

_KIND_OF = ("@", "@i")  # hypernym, and that of an instance


@dataclasses.dataclass(frozen=True)
class Synset:
    """A meaning: the words that have it, its definition, and the ids of what it is a kind of."""

    words: tuple[str, ...]
    definition: str
    kind_of: tuple[str, ...]


def read_nouns(path: Path) -> dict[str, Synset]:
    """{id: synset} of a data.noun; ids are ImageNet's, 'n' and 8 digits.

    Raises:
      ValueError: a line that is not in the format; names it.
    """
    nouns = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip() or line.startswith("  "):  # the license, at the top
            continue
        try:
            name, synset = _synset(line)
            nouns[name] = synset
        except (ValueError, IndexError):
            raise ValueError(
                f"{path}, line {number}, is no noun of WordNet 3.0 ('{line[:40]}'): take the file "
                "data.noun of Debian's package wordnet-base."
            ) from None
    return nouns


def _synset(line: str) -> tuple[str, Synset]:
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    words = 4 + 2 * int(fields[3], 16)  # where they end
    pointers = [fields[words + 1 + 4 * i :][:4] for i in range(int(fields[words]))]
    return f"n{int(fields[0]):08d}", Synset(
        words=tuple(word.replace("_", " ") for word in fields[4:words:2]),
        definition=gloss.split('; "')[0].strip(),  # without the example sentences
        kind_of=tuple(f"n{to}" for kind, to, _, _ in pointers if kind in _KIND_OF),
    )


def members(nouns: Mapping[str, Synset], ids: Iterable[str]) -> dict[str, list[int]]:
    """For each synset that some of `ids` are a kind of, their places in `ids`, ascending.

    Args:
      ids: synsets, which are not in the result unless they are above others.
    """
    found: dict[str, list[int]] = {}
    for place, own in enumerate(ids):
        above: set[str] = set()
        waiting = list(nouns[own].kind_of)
        while waiting:
            name = waiting.pop()
            if name not in above:
                above.add(name)
                waiting += nouns[name].kind_of
        for name in above:
            found.setdefault(name, []).append(place)
    return found
