"""Numbers in English words as digits: "twenty five dollars" is "$25"."""

import re
from collections.abc import Sequence
from fractions import Fraction

Value = int | str | None  # of the number so far; text once it has a fraction or was spelled out

_NUMBER = re.compile(r"^\d+(\.\d+)?$")
_ZEROS = ("o", "oh", "zero")
_TEENS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
_TEENS = f"{_TEENS} sixteen seventeen eighteen nineteen".split()
_ONES = {word: n for n, word in enumerate(_TEENS, start=1)}
_TIES = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TENS = {word: 10 * n for n, word in enumerate(_TIES, start=2)}
_POWERS = "thousand million billion trillion quadrillion quintillion sextillion septillion"
_POWERS = f"{_POWERS} octillion nonillion decillion".split()
_MULTIPLIERS = {"hundred": 100} | {word: 1000**n for n, word in enumerate(_POWERS, start=1)}
_IRREGULAR = {"first": (1, "st"), "second": (2, "nd"), "third": (3, "rd")}
_IRREGULAR |= {"zeroth": (0, "th"), "fifth": (5, "th"), "twelfth": (12, "th")}
_PLURALS = {("sixes" if w == "six" else f"{w}s"): (n, "s") for w, n in _ONES.items()}
_ORDINALS = {
    f"{w}{'h' if w.endswith('t') else 'th'}": (n, "th")
    for w, n in _ONES.items()
    if n > 3 and n not in (5, 12)
}
_ENDINGS = {"ies": "s", "ieth": "th"}
# word -> (number, what follows the digits)
_SUFFIXED_ONES = {**_PLURALS, **_IRREGULAR, **_ORDINALS}
_SUFFIXED_TENS = {w[:-1] + e: (n, s) for w, n in _TENS.items() for e, s in _ENDINGS.items()}
_SUFFIXED_MULTIPLIERS = {w + s: (n, s) for w, n in _MULTIPLIERS.items() for s in ("s", "th")}
_SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
_UNITS = {"pound": "£", "euro": "€", "dollar": "$", "cent": "¢"}
_UNITS |= {f"{word}s": symbol for word, symbol in _UNITS.items()}
_PREFIXES = {*_SIGNS.values(), *_UNITS.values()}
_REPEATS = {"double": 2, "triple": 3}
_DIGITS = {*_ZEROS, *_ONES, *_TENS}
_WORDS = {
    *_DIGITS,
    *_SUFFIXED_ONES,
    *_SUFFIXED_TENS,
    *_MULTIPLIERS,
    *_SUFFIXED_MULTIPLIERS,
    *_SIGNS,
    *_UNITS,
    *_REPEATS,
    *("per", "percent", "and", "point"),
}


def to_digits(text: str) -> str:
    """A lower-case text with its spoken numbers in digits, except "one" and "ones".

    Ordinals and plurals keep their ending (`274th`, `1960s`), currencies are put in front, and
    digits that are spelled out are joined: "one oh one" is 101.

    Source: openai/whisper, normalizers/english.py, EnglishNumberNormalizer, whose every peculiarity
    is kept, so that word error rates compare.
    """
    text = _halves(text)
    text = re.sub(r"([a-z])([0-9])", r"\1 \2", text)
    text = re.sub(r"([0-9])([a-z])", r"\1 \2", text)
    text = re.sub(r"([0-9])\s+(st|nd|rd|th|s)\b", r"\1\2", text)
    text = " ".join(_Reader().read(text.split()))
    text = re.sub(
        r"([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})\b",
        lambda m: f"{m[1]}{m[2]}.{int(m[3]):02d}",
        text,
    )
    text = re.sub(r"[€£$]0.([0-9]{1,2})\b", lambda m: f"¢{int(m[1])}", text)
    return re.sub(r"\b1(s?)\b", r"one\1", text)


def _halves(text: str) -> str:
    """ "and a half" after a number becomes "point five"."""
    *parts, last = re.split(r"\band\s+a\s+half\b", text)
    found = []
    for part in parts:
        if part.strip():
            counts = part.split()[-1] in _DIGITS | _MULTIPLIERS.keys()
            found += [part, "point five" if counts else "and a half"]
    return " ".join([*found, last] if last.strip() else found)


class _Reader:
    """Reads words one by one; a number is complete when the next word does not continue it."""

    def __init__(self):
        self.found: list[str] = []
        self.prefix = ""
        self.value: Value = None

    def read(self, words: Sequence[str]) -> list[str]:
        """The words, with each number as one word of digits."""
        skip = False
        for i, word in enumerate(words):
            before = words[i - 1] if i else None
            after = words[i + 1] if i + 1 < len(words) else None
            skip = not skip and self._take(word, before, after)
        self._close()
        return self.found

    def _put(self, word: Value) -> None:
        """Add a finished word, with the sign or symbol in front of it."""
        self.found.append(f"{self.prefix}{word}")
        self.prefix, self.value = "", None

    def _close(self) -> None:
        """Finish the number, if there is one."""
        if self.value is not None:
            self._put(self.value)

    def _plain(self, word: str) -> None:
        """Finish the number, and add a word that is none."""
        self._close()
        self._put(word)

    def _take(self, word: str, before: str | None, after: str | None) -> bool:
        """Read one word; whether the next one was read with it."""
        numeric = after in _WORDS or (after is not None and bool(_NUMBER.match(after)))
        if _NUMBER.match(word[1:] if word[0] in _PREFIXES else word):
            self._digits(word)
        elif word not in _WORDS:
            self._plain(word)
        elif word in _ZEROS:
            self.value = str(self.value or "") + "0"
        elif word in _DIGITS:
            self.value = self._joined({**_ONES, **_TENS}[word], before)
        elif word in _SUFFIXED_ONES or word in _SUFFIXED_TENS:
            number, suffix = {**_SUFFIXED_ONES, **_SUFFIXED_TENS}[word]
            self._put(f"{self._joined(number, before)}{suffix}")
        elif word in _MULTIPLIERS:
            self.value = self._times(_MULTIPLIERS[word])
        elif word in _SUFFIXED_MULTIPLIERS:
            number, suffix = _SUFFIXED_MULTIPLIERS[word]
            self._put(f"{self._times(number)}{suffix}")
        elif word in _SIGNS:
            self._close()
            if numeric:
                self.prefix = _SIGNS[word]
            else:
                self._put(word)
        elif word in _UNITS:
            if self.value is None:
                self._put(word)
            else:
                self.prefix = _UNITS[word]
                self._close()
        elif word in ("per", "percent"):
            return self._percent(word, after)
        elif not numeric:
            self._plain(word)
        elif word == "and":
            if before not in _MULTIPLIERS:
                self._plain(word)
        elif word == "point":
            if after in _DIGITS or _NUMBER.match(after):
                self.value = f"{self.value or ''}."
        elif after in _ONES or after in _ZEROS:
            self.value = str(self.value or "") + str(_ONES.get(after, 0)) * _REPEATS[word]
            return True
        else:
            self._plain(word)
        return False

    def _digits(self, word: str) -> None:
        """A number that is in digits already."""
        if isinstance(self.value, str) and self.value.endswith("."):
            self.value += word
            return
        self._close()
        if word[0] in _PREFIXES:
            self.prefix, word = word[0], word[1:]
        number = Fraction(word)
        self.value = number.numerator if number.denominator == 1 else word

    def _joined(self, number: int, before: str | None) -> Value:
        """The value with the number of a word of 1 to 99 added or appended to it."""
        value = self.value
        if value is None:
            return number
        if number < 20 and (isinstance(value, str) or before in _ONES):
            digit = before in _TENS and number < 10
            return f"{value[:-1] if digit else value}{number}"
        if isinstance(value, str):
            return f"{value}{number}"
        return value + number if value % (10 if number < 10 else 100) == 0 else f"{value}{number}"

    def _times(self, number: int) -> Value:
        """The value times a multiplier; a value that is no number is finished first."""
        if self.value is None:
            return number
        if isinstance(self.value, int):
            thousands, rest = divmod(self.value, 1000)
            return 1000 * thousands + rest * number
        try:
            product = Fraction(self.value) * number
        except ValueError:
            product = None
        if product is None or product.denominator != 1:
            self._close()
            return number
        return product.numerator

    def _percent(self, word: str, after: str | None) -> bool:
        if self.value is not None and (word == "percent" or after == "cent"):
            self._put(f"{self.value}%")
            return word == "per"
        self._plain(word)
        return False
