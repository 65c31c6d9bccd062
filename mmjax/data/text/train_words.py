"""A vocabulary of whole words, for small closed sets of them such as digits or commands."""

from collections.abc import Iterable

import tokenizers as hf
from tokenizers import models, normalizers, pre_tokenizers, trainers

from mmjax.data.text.tokenizer import Tokenizer


def train_words(corpus: Iterable[str], vocab_size: int = 1000, lowercase: bool = True) -> Tokenizer:
    """The most frequent words of the corpus, split at white space; all others are unknown.

    pad is 0, bos 1, eos 2, unknown 3; the words follow by frequency. A head over them has no token
    that is never used, as the bytes of a BPE would be.

    Args:
      corpus: iterable of str.
      vocab_size: maximum number of ids; lowercase: fold case first.

    Raises:
      ValueError: an empty corpus, or a vocabulary without room for a word.
    """
    # With spaces no word of a text is one of them.
    specials = ["< pad >", "< bos >", "< eos >", "< unk >"]
    if vocab_size <= len(specials):
        raise ValueError(
            f"The tokenizer's vocab_size {vocab_size} holds no word beside {len(specials)} special "
            "tokens: raise it."
        )
    backend = hf.Tokenizer(models.WordLevel(unk_token=specials[-1]))
    steps = [normalizers.NFC(), *[normalizers.Lowercase()] * bool(lowercase)]
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    texts = list(corpus)
    if not any(text.split() for text in texts):
        raise ValueError("the corpus for the tokenizer is empty: the training set has no captions")
    backend.train_from_iterator(
        texts,
        trainers.WordLevelTrainer(
            vocab_size=vocab_size, special_tokens=specials, show_progress=False
        ),
    )
    backend.encode_special_tokens = True  # "< eos >" inside a caption is plain text
    return Tokenizer(backend, pad_id=0, bos_id=1, eos_id=2)
