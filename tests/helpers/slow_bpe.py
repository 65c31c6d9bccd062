"""A slow byte-pair encoding written from the paper, and small tokenizers to compare with it."""

import gzip
import json
import unicodedata
from collections import Counter

import tokenizers as hf
from hypothesis import strategies as st

ALPHABET = st.sampled_from("abcdeghilmnorstuäüß猫寝 '.,!?-12349🎉é_")
CORPUS = [
    "a red cat sleeps on the red mat",
    "the cat and the dog, and the bird",
    "it's the cat's mat, isn't it",
    "drawing of a thinking face",
    "Ein grünes Blatt und ein gelbes Blatt",
    "le chat rouge et le chien rouge",
    "猫が寝ている 猫",
    "party popper 🎉 🎉 numbers 123 1234",
]


def byte_to_letter():
    """GPT-2's printable bytes: visible Latin-1 is itself, the rest count from 256."""
    table, moved = {}, 0
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + moved)
            moved += 1
    return table


LETTER = byte_to_letter()


def letters_of(word):
    return [LETTER[byte] for byte in word.encode("utf-8")]


def join(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def apply_merges(symbols, ranks):
    """Sennrich et al. 2016: merge the earliest learned pair everywhere, until none is left."""
    while True:
        pairs = [pair for pair in zip(symbols, symbols[1:]) if pair in ranks]
        if not pairs:
            return symbols
        symbols = join(symbols, min(pairs, key=ranks.get))


def pair_counts(words):
    counts = Counter()
    for symbols, times in words:
        for pair in zip(symbols, symbols[1:]):
            counts[pair] += times
    return counts


def learn_merges(words, number):
    words = [(list(symbols), times) for symbols, times in words]
    merges = []
    for _ in range(number):
        counts = pair_counts(words)
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        words = [(join(symbols, best), times) for symbols, times in words]
    return merges


CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def clip_words(text):
    """CLIP's word pattern by hand: contractions, runs of letters, single digits, runs of others."""
    kind = {"L": "letter", "N": "number"}
    words, i = [], 0
    kinds = [
        "space" if c.isspace() else kind.get(unicodedata.category(c)[0], "other") for c in text
    ]
    while i < len(text):
        contraction = next((s for s in CONTRACTIONS if text[i:].startswith(s)), None)
        if contraction:
            words.append(contraction)
            i += len(contraction)
        elif kinds[i] == "space":
            i += 1
        elif kinds[i] == "number":
            words.append(text[i])
            i += 1
        else:
            end = i
            while end < len(text) and kinds[end] == kinds[i]:
                end += 1
            words.append(text[i:end])
            i = end
    return words


def clip_symbols(word):
    letters = letters_of(word)
    return letters[:-1] + [letters[-1] + "</w>"]


def clip_reference(text, merges):
    """Ids of lower-case, single-spaced text by the order of the published vocabulary."""
    order = sorted(LETTER.values(), key=lambda c: (ord(c) >= 256, ord(c)))
    tokens = order + [c + "</w>" for c in order] + [a + b for a, b in merges]
    number = {token: i for i, token in enumerate(tokens)}
    ranks = {pair: i for i, pair in enumerate(merges)}
    return [
        number[symbol]
        for word in clip_words(text)
        for symbol in apply_merges(clip_symbols(word), ranks)
    ]


def write_gz(path, merges):
    lines = ["#version: 0.2 - made for a test", *(" ".join(pair) for pair in merges), ""]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    return str(path)


def encode_one(tokenizer, text, length=400):
    ids, mask = tokenizer.encode([text], length)
    return ids[0][mask[0]].tolist()


def merges_of(tokenizer, directory):
    tokenizer.save(directory)
    return [
        tuple(m) for m in json.loads((directory / "tokenizer.json").read_text())["model"]["merges"]
    ]


def word_level(path, specials):
    words = [*specials, "[UNK]", "red", "cat"]
    model = hf.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = hf.Tokenizer(model)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(specials))
    tokenizer.enable_padding(length=50)  # the file's own settings must not affect our rows
    tokenizer.enable_truncation(1)
    tokenizer.save(str(path))
    return str(path)
