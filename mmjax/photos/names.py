"""What the classes of an image classifier are called, in many ways."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mmjax.data.builders.imagenet_classes import ImageNetClass
from mmjax.data.builders.wordnet import Synset, members

PHRASES = ("{}", "a photo of a {}", "a photo of the {}", "a close-up of a {}")


class Concept(NamedTuple):
    """Classes of a classifier by their numbers, and texts that describe them together."""

    key: str
    texts: tuple[str, ...]
    classes: tuple[int, ...]


def class_concepts(classes: Iterable[ImageNetClass]) -> list[Concept]:
    """Each class alone, with its names and its definition."""
    return [
        Concept(one.synset, phrasings(one.names, one.definition), (number,))
        for number, one in enumerate(classes)
    ]


def group_concepts(classes: Sequence[ImageNetClass], nouns: Mapping[str, Synset]) -> list[Concept]:
    """What several classes are a kind of, such as "dog" of 118 classes, by WordNet.

    Of synsets above the same classes all are given, the most specific and its hypernyms.
    """
    above = members(nouns, [one.synset for one in classes])
    return [
        Concept(key, phrasings(nouns[key].words, nouns[key].definition), tuple(places))
        for key, places in sorted(above.items())
    ]


def phrasings(names: Iterable[str], definition: str) -> tuple[str, ...]:
    """The names in `PHRASES`, the definition, and both together."""
    names = list(names)
    phrased = [phrase.replace("{}", name) for name in names for phrase in PHRASES]
    texts = [*phrased, definition, *(f"{name}: {definition}" for name in names)]
    return tuple(dict.fromkeys(texts))
