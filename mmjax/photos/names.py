"""What the classes of an image classifier are called, in many ways."""

from collections.abc import Iterable

PHRASES = ("{}", "a photo of a {}", "a photo of the {}", "a close-up of a {}")


def phrasings(names: Iterable[str], definition: str) -> tuple[str, ...]:
    """The names in `PHRASES`, the definition, and both together."""
    names = list(names)
    phrased = [phrase.replace("{}", name) for name in names for phrase in PHRASES]
    texts = [*phrased, definition, *(f"{name}: {definition}" for name in names)]
    return tuple(dict.fromkeys(texts))
