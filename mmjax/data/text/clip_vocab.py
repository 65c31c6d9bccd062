"""The published vocabulary of OpenAI's CLIP, and how its texts are cleaned.

Source: github.com/openai/CLIP, clip/simple_tokenizer.py.
"""

import gzip
import html
import json
import os
import re
import unicodedata

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_MERGES = 49152 - 256 - 2  # the published file holds more lines than the model uses


def read(path):
    """(vocab {token: id}, merges [(left, right)]) of either published form.

    Args:
      path: `bpe_simple_vocab_16e6.txt.gz`, or a folder with `vocab.json` and `merges.txt`.

    Raises:
      ValueError: missing or damaged files.
    """
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, "vocab.json"), encoding="utf-8") as file:
                vocab = json.load(file)
            with open(os.path.join(path, "merges.txt"), encoding="utf-8") as file:
                merges = _merges(file.read())
            return vocab, merges
        opener = gzip.open if str(path).endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8") as file:
            merges = _merges(file.read())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read a CLIP vocabulary from {path} ({error}); give "
            "bpe_simple_vocab_16e6.txt.gz or a folder with vocab.json and merges.txt"
        ) from None
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [left + right for left, right in merges] + [BOS, EOS]
    return {token: i for i, token in enumerate(tokens)}, merges


def _merges(content):
    lines = content.split("\n")[1:]  # the first line is the version
    pairs = [tuple(line.split()) for line in lines[:_MERGES] if line.strip()]
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"a merge is two tokens, not {' '.join(pair)!r}")
    return pairs


def byte_letters():
    """The 256 printable characters that stand for bytes, in the order of the published ids.

    Source: Radford et al. 2019 (GPT-2), `bytes_to_unicode`: printable Latin-1 stands for itself
    and comes first; the others follow, moved to 256 and up.
    """
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    return [chr(i) for i in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def _plain(*ranges):
    """{code: its plain spelling} by Unicode's compatibility forms."""
    codes = (code for low, high in ranges for code in range(low, high + 1))
    return {code: unicodedata.normalize("NFKC", chr(code)) for code in codes}


# What ftfy.fix_text changes besides wrongly decoded text: ligatures, wide characters, quotes, and
# control characters, which go.
_MENDS = (
    _plain((0x132, 0x133), (0x149, 0x149), (0x1C4, 0x1CC), (0x1F1, 0x1F3), (0xFB00, 0xFB06))
    | _plain((0x3000, 0x3000), (0xFF01, 0xFFEF))
    | dict.fromkeys([0x2BC, *range(0x2018, 0x201C)], "'")
    | dict.fromkeys(range(0x201C, 0x2020), '"')
    | dict.fromkeys([*range(9), 0xB, *range(0xE, 0x20), 0x7F, 0xFEFF])
    | dict.fromkeys([*range(0x206A, 0x2070), *range(0xFFF9, 0xFFFD)])
    | {0x149: "'n"}
)


def clean(text):
    """The text as the original's `basic_clean`, `whitespace_clean` and `lower` leave it.

    Entities are resolved, typographic quotes, ligatures and wide characters made plain, white
    space collapsed, case folded. (ftfy's repair of wrongly decoded text is not applied.)
    """
    text = html.unescape(html.unescape(text)).translate(_MENDS)
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip().lower()
