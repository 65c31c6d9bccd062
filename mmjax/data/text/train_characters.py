"""A vocabulary of single characters, for small models of running text."""

from collections.abc import Iterable

import tokenizers as hf
from tokenizers import decoders, models, pre_tokenizers

from mmjax.data.text.tokenizer import Tokenizer


def train_characters(corpus: Iterable[str]) -> Tokenizer:
    """Every character of the corpus, line breaks included; all others are unknown.

    pad is 0, eos 1, unknown 2; the characters follow in the order of their code points. There is
    no begin token, and text is neither normalized nor folded.

    Raises:
      ValueError: an empty corpus.
    """
    characters = sorted(set().union(*corpus))
    if not characters:
        raise ValueError("the corpus for the tokenizer is empty: the training set has no text")
    # Several characters long, so that no character of a text is one of them.
    specials = ["<pad>", "<eos>", "<unk>"]
    names = {name: i for i, name in enumerate([*specials, *characters])}
    backend = hf.Tokenizer(models.WordLevel(names, unk_token=specials[-1]))
    backend.pre_tokenizer = pre_tokenizers.Split(hf.Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(specials)
    backend.encode_special_tokens = True  # "<eos>" inside a text is plain text
    return Tokenizer(backend, pad_id=0, bos_id=None, eos_id=1)
