"""BPE dropout: a text in other tokens each time, since merges are left out at random."""

import json

import numpy as np

from mmjax.data.text.locations import TOKENS
from mmjax.data.text.tokenizer import Tokenizer


class BPEDropout:
    """Token ids by the merges of a byte-level BPE, some left out.

    In each round every merge that could be made is left out with probability p, and of the others
    the first learned one is made, at its first place; where none is left, the word is done. Special
    tokens inside a text are plain text.

    Raises:
      ValueError: another kind of tokenizer, one with tokens of locations, or no probability.

    Source: Provilkov et al. 2020 (arXiv 1910.13267), algorithm 1; in the `tokenizers` library the
    option `dropout`, whose random numbers take no seed.
    """

    def __init__(self, tokenizer: Tokenizer, p: float):
        whole = json.loads(tokenizer.json())
        model = whole["model"]
        letters = "ByteLevel" in json.dumps(whole["pre_tokenizer"])
        if model["type"] != "BPE" or not letters or model.get("continuing_subword_prefix"):
            raise ValueError(
                "Dropout in tokenize leaves out merges of a byte-level BPE, and this tokenizer is "
                f"a '{model['type']}' of another kind: use 'train_bpe', or leave dropout at 0."
            )
        if tokenizer.token_id(TOKENS[0]) is not None:
            raise ValueError(
                "Dropout in tokenize would write the tokens of locations byte by byte: leave it at "
                "0, or config.tokenizer.locations out."
            )
        if not 0 <= p < 1:
            raise ValueError(f"tokenize has dropout={p}: give a probability below 1.")
        self._split, self._p = tokenizer.split, p
        self._suffix = model.get("end_of_word_suffix") or ""
        self._id = model["vocab"]
        pairs = [x.split(" ") if isinstance(x, str) else x for x in model["merges"]]
        self._rank = {tuple(pair): rank for rank, pair in enumerate(pairs)}

    def __call__(self, text: str, rng: np.random.Generator) -> tuple[int, ...]:
        """The ids of a text, without special tokens."""
        words = [self._word(word, rng) for word in self._split(text)]
        return tuple(self._id[symbol] for word in words for symbol in word)

    def _word(self, word: str, rng: np.random.Generator) -> list[str]:
        symbols = [*word[:-1], word[-1] + self._suffix]
        while True:
            found = [
                (self._rank[pair], place)
                for place, pair in enumerate(zip(symbols, symbols[1:]))
                if pair in self._rank
            ]
            kept = rng.random(len(found)) >= self._p
            found = [merge for merge, keep in zip(found, kept) if keep]
            if not found:
                return symbols
            _, place = min(found)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
