"""Tokens of a caption, much as the Penn Treebank tokenizer of the COCO evaluation makes them.

That one is Stanford's Java program (`-lowerCase`), after which COCO drops punctuation. Ours is a
few rules of our own: lower case, contractions split (do n't, cat 's, can not), hyphenated words,
numbers and abbreviations kept whole, punctuation dropped. It differs in that it
- drops brackets, which there become -lrb- and slip through COCO's list of what is dropped,
- treats a curly apostrophe as a straight one (o'clock), and keeps no apostrophe at a word's start,
- keeps £, € and ½ as they are written (there: #, $, 1/2), and knows few abbreviations, and no
  URLs, e-mail addresses and smileys.
Of 7,472 captions of emoji and tuxpaint, 50 came out differently, nearly all by brackets and curly
apostrophes. A figure that is to stand beside published ones needs the Java program for both.
"""

import re
import unicodedata

_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "´": "'"})
_TWO_WORDS = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(lem|gim)(me)\b")
_NOT = re.compile(r"(?<=\w)(n't)\b")
_CLITIC = re.compile(r"(?<=\w)('(?:s|m|d|ll|re|ve))\b")
# Numbers with separators; abbreviations; words, with hyphens, apostrophes and dots inside; signs.
_TOKEN = re.compile(
    r"n't\b|'(?:s|m|d|ll|re|ve)\b"
    r"|\.?\d+(?:[-.,:/]\d+)*(?![^\W\d])"
    r"|(?:[^\W\d_]\.){2,}"
    r"|\b(?:mr|mrs|ms|dr|st|jr|sr|vs|prof)\."
    r"|\w+(?:[-'.&/@_]\w+)*"
    r"|[^\s\w]"
)


def tokenize(text: str) -> list[str]:
    """Lower-case tokens without punctuation; none for a text that is all punctuation."""
    text = unicodedata.normalize("NFC", text).lower().translate(_QUOTES)
    text = _TWO_WORDS.sub(lambda m: " ".join(part for part in m.groups() if part), text)
    text = _CLITIC.sub(r" \1", _NOT.sub(r" \1", text))
    return [token for token in _TOKEN.findall(text) if not _is_punctuation(token)]


def _is_punctuation(token: str) -> bool:
    # Signs that are words when read aloud stay: & % # @ * and all symbols (category S).
    return len(token) == 1 and unicodedata.category(token)[0] == "P" and token not in "&%#@*/"
