"""The published vocabulary of OpenAI's CLIP, and how its texts are cleaned.

Source: github.com/openai/CLIP, clip/simple_tokenizer.py.
"""

import gzip
import hashlib
import html
import os
import re
import string

from mmjax.data import text_file

# sha256 of its tokens by id, one per line.
_PUBLISHED = "7cccc44d334555d1ff3c0ac5f0246b428fab2918383e77ee745cf30d41010b78"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_WITHOUT_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))
_MERGES = 49152 - 256 - 2  # the published file holds more lines than the model uses


def read(path):
    """(vocab {token: id}, merges [(left, right)]) from either published format.

    Args:
      path: `bpe_simple_vocab_16e6.txt.gz`, or a folder with `vocab.json` and `merges.txt`.

    Raises:
      ValueError: missing or damaged files.
    """
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, "vocab.json"), encoding="utf-8") as file:
                vocab = text_file.parse_json(file.read())
            with open(os.path.join(path, "merges.txt"), encoding="utf-8") as file:
                merges = _merges(file.read())
            if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
                raise ValueError("vocab.json is no object of ids by token")
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


def is_published(vocab):
    """Whether {token: id} is the vocabulary of bpe_simple_vocab_16e6.txt.gz."""
    tokens = "\n".join(sorted(vocab, key=vocab.get))
    return hashlib.sha256(tokens.encode()).hexdigest() == _PUBLISHED


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


def clean(text):
    """The text after the original's `basic_clean`, `whitespace_clean` and `lower`."""
    return clean_whitespace(text).lower()


def clean_whitespace(text):
    """As `clean` without lowercasing: open_clip's cleaning for tokenizers of `transformers`.

    ftfy fixes wrongly decoded text and replaces typographic quotes, ligatures and wide characters
    by plain ones; then entities are resolved and white space is collapsed.
    """
    # ftfy leaves printable ASCII without entities unchanged, and takes 0.1 ms per caption.
    if "&" in text or not (text.isascii() and text.isprintable()):
        import ftfy  # imported late: it takes 0.1 s

        text = ftfy.fix_text(text)
    text = html.unescape(html.unescape(text))
    return re.sub(r"\s+", " ", text).strip()


def clean_canonical(text):
    """As `clean` without punctuation (underscores become spaces): open_clip's cleaning for SigLIP.

    Source: big_vision, evaluators/proj/image_text/prompt_engineering.py, `canonicalize`.
    """
    return " ".join(clean_whitespace(text).translate(_WITHOUT_PUNCTUATION).lower().split())
