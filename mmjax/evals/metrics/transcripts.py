"""Whisper's normalizers of transcripts, applied to both sides of a word error rate."""

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from mmjax.data import text_file
from mmjax.evals.metrics.spoken_numbers import to_digits

SPELLINGS = "normalizer.json"  # in a published folder: British -> American spellings

# Letters that compatibility decomposition does not split into a letter and a mark.
_LETTERS = {"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ß": "ss", "ẞ": "SS", "þ": "th", "Þ": "th"}
_LETTERS |= dict(zip("øØđĐðÐłŁ", "oOdDdDlL"))
_FILLERS = re.compile(r"\b(hmm|mm|mhm|mmm|uh|um)\b")
_CONTRACTIONS = {
    "won't": "will not",
    "can't": "can not",
    "let's": "let us",
    "ain't": "aint",
    "y'all": "you all",
    "wanna": "want to",
    "gotta": "got to",
    "gonna": "going to",
    "i'ma": "i am going to",
    "imma": "i am going to",
    "woulda": "would have",
    "coulda": "could have",
    "shoulda": "should have",
    "ma'am": "madam",
}
_TITLES = {
    "mr": "mister",
    "mrs": "missus",
    "st": "saint",
    "dr": "doctor",
    "prof": "professor",
    "capt": "captain",
    "gov": "governor",
    "ald": "alderman",
    "gen": "general",
    "sen": "senator",
    "rep": "representative",
    "pres": "president",
    "rev": "reverend",
    "hon": "honorable",
    "asst": "assistant",
    "assoc": "associate",
    "lt": "lieutenant",
    "col": "colonel",
    "jr": "junior",
    "sr": "senior",
    "esq": "esquire",
}
_PERFECT = {
    "'d been": "had been",
    "'s been": "has been",
    "'d gone": "had gone",
    "'s gone": "has gone",
    "'d done": "had done",
    "'s got": "has got",
}
_VERBS = {"n't": "not", "'re": "are", "'s": "is", "'d": "would", "'ll": "will", "'t": "not"}
_VERBS |= {"'ve": "have", "'m": "am"}
# In this order: an earlier pattern may be part of a later one.
_REPLACED = [
    *((rf"\b{short}\b", long) for short, long in _CONTRACTIONS.items()),
    *((rf"\b{short}\b", f"{long} ") for short, long in _TITLES.items()),
    *((rf"{short}\b", f" {long}") for short, long in (_PERFECT | _VERBS).items()),
]


def basic(text: str, remove_diacritics: bool = False) -> str:
    """A text of any language in lower case, without what is in brackets, symbols and punctuation.

    For languages that are written without spaces, use the character error rate.

    Args:
      remove_diacritics: also accents.

    Source: openai/whisper, normalizers/basic.py, BasicTextNormalizer.
    """
    text = _without_brackets(text.lower())
    if remove_diacritics:
        text = _without_symbols_and_marks(text)
    else:
        text = unicodedata.normalize("NFKC", text)
        text = "".join(" " if _is_symbol(c) else c for c in text)
    return re.sub(r"\s+", " ", text.lower())


def english(text: str, spellings: Mapping[str, str] | None = None) -> str:
    """An English text as `basic`, with contractions expanded and numbers in digits.

    Amounts come out oddly, as in the original: "$1.50" is "one.50", "five o'clock" "50 clock".

    Args:
      spellings: word -> the spelling that replaces it, see `read_spellings`; None: none. The
        original's 1,739 pairs are in every published folder of Whisper in transformers' layout.

    Source: Radford et al. 2022 (arXiv 2212.04356), appendix C; openai/whisper,
    normalizers/english.py, EnglishTextNormalizer.
    """
    text = _FILLERS.sub("", _without_brackets(text.lower()))
    text = re.sub(r"\s+'", "'", text)
    for pattern, replacement in _REPLACED:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"(\d),(\d)", r"\1\2", text)
    text = re.sub(r"\.([^0-9]|$)", r" \1", text)
    text = to_digits(_without_symbols_and_marks(text, keep=".%$¢€£"))
    spellings = spellings or {}
    text = " ".join(spellings.get(word, word) for word in text.split())
    text = re.sub(r"[.$¢€£]([^0-9])", r" \1", text)
    text = re.sub(r"([^0-9])%", r"\1 ", text)
    return re.sub(r"\s+", " ", text)


def read_spellings(folder: str | Path) -> dict[str, str]:
    """The spellings in a published folder's normalizer.json; {} where it has none.

    Raises:
      ValueError: a file that is not a JSON object.
    """
    path = Path(folder) / SPELLINGS
    if not path.is_file():
        return {}
    try:
        found = text_file.parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be read: {error}; copy it again.") from None
    if not isinstance(found, dict) or not all(isinstance(x, str) for x in found.values()):
        raise ValueError(f"'{path}' holds no spellings by word: copy it again.")
    return found


def _without_brackets(text: str) -> str:
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text)
    return re.sub(r"\(([^)]+?)\)", "", text)


def _is_symbol(character: str) -> bool:
    """Whether it is a mark, a symbol or punctuation."""
    return unicodedata.category(character)[0] in "MSP"


def _without_symbols_and_marks(text: str, keep: str = "") -> str:
    def replaced(c: str) -> str:
        if c in keep:
            return c
        if c in _LETTERS:
            return _LETTERS[c]
        if unicodedata.category(c) == "Mn":
            return ""
        return " " if _is_symbol(c) else c

    return "".join(map(replaced, unicodedata.normalize("NFKD", text)))
