"""Captions with one thing exchanged: attributes, a direction, or the order of the words.

A model that reads a caption as a bag of its words does not tell some of them apart. After the swaps
of ARO (Yuksekgonul et al. 2023, arXiv 2210.01936), by the words of people's names for drawings:

    color       "red heart"                         -> "blue heart", ...
    gender      "woman astronaut"                   -> "man astronaut"
    skin_tone   "waving hand: dark skin tone"       -> "waving hand: light skin tone", ...
    direction   "right arrow curving left"          -> "left arrow curving right"
    tone_order  "kiss: light ..., dark skin tone"   -> "kiss: dark ..., light skin tone"
    word_order  "person in suit levitating"         -> "suit person levitating in"
"""

import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

COLORS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white")
COLORS += ("yellow",)
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
OPPOSITES = {"left": "right", "up": "down", "upwards": "downwards", "leftwards": "rightwards"}
GENDERS = {"man": "woman", "men": "women", "boy": "girl", "prince": "princess", "king": "queen"}
OPPOSITES, GENDERS = (m | {b: a for a, b in m.items()} for m in (OPPOSITES, GENDERS))

_TONE = "(" + "|".join(TONES) + ") skin tone"
_ONE_TONE = re.compile(f"(.*): {_TONE}")
_TWO_TONES = re.compile(f"(.*): {_TONE}, {_TONE}")


def _words(names: Sequence[str]) -> re.Pattern:
    return re.compile(r"\b(" + "|".join(names) + r")\b", re.IGNORECASE)


_COLOR, _DIRECTION, _GENDER = (_words([*m]) for m in (COLORS, OPPOSITES, GENDERS))


def alternatives(caption: str) -> Mapping[str, list[str]]:
    """The swapped captions of every kind that a caption has; each differs from it."""
    found = {
        "color": _colors(caption),
        "gender": _exchanged(caption, _GENDER, GENDERS, most=1),
        "skin_tone": _tones(caption),
        "direction": _exchanged(caption, _DIRECTION, OPPOSITES, most=9),
        "tone_order": _tone_order(caption),
        "word_order": _shuffled(caption),
    }
    return {kind: texts for kind, texts in found.items() if texts}


def _colors(caption: str) -> list[str]:
    found = _COLOR.findall(caption)
    if len(found) != 1:
        return []
    return [_COLOR.sub(color, caption) for color in COLORS if color != found[0].lower()]


def _exchanged(caption: str, pattern: re.Pattern, other: Mapping[str, str], most: int) -> list[str]:
    """Every word of the pattern replaced by its opposite, of at most so many."""
    if not 1 <= len(pattern.findall(caption)) <= most:
        return []
    return [pattern.sub(lambda m: other[m[0].lower()], caption)]


def _tones(caption: str) -> list[str]:
    match = _ONE_TONE.fullmatch(caption)
    if not match:
        return []
    return [f"{match[1]}: {tone} skin tone" for tone in TONES if tone != match[2]]


def _tone_order(caption: str) -> list[str]:
    match = _TWO_TONES.fullmatch(caption)
    if not match or match[2] == match[3]:
        return []
    return [f"{match[1]}: {match[3]} skin tone, {match[2]} skin tone"]


def _shuffled(caption: str) -> list[str]:
    """Its words in another order, which follows from the caption; [] of fewer than three words."""
    words = caption.split()
    if len(words) < 3:
        return []
    rng = np.random.default_rng(zlib.crc32(caption.encode()))
    for _ in range(10):
        shuffled = " ".join(words[i] for i in rng.permutation(len(words)))
        if shuffled != caption:
            return [shuffled]
    return []
