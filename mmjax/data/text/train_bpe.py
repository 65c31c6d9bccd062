"""A byte-level BPE trained on the run's own corpus."""

from collections.abc import Iterable

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mmjax.data.text.locations import TOKENS
from mmjax.data.text.tokenizer import Tokenizer


def train_bpe(
    corpus: Iterable[str],
    vocab_size: int = 8192,
    lowercase: bool = True,
    specials: tuple[str, ...] = (),
    locations: bool = False,
) -> Tokenizer:
    """Byte-level BPE trained on the corpus; it encodes any text in any language.

    pad is 0, bos 1, eos 2, then `specials` and the 256 bytes follow, the merges by frequency, and
    the tokens of locations.
    The same corpus gives the same file, byte for byte.

    Args:
      corpus: iterable of str.
      vocab_size: maximum number of ids; fewer if the corpus has too few pairs that recur.
      lowercase: fold case first.
      specials: further special tokens, such as "<image>" (id 3).
      locations: also the 1,024 tokens of `locations.py`, which count in vocab_size; unlike special
        tokens they are part of a decoded text.

    Raises:
      ValueError: an empty corpus, or a vocabulary that cannot hold the bytes.
    """
    specials = ["<pad>", "<bos>", "<eos>", *specials]
    added = TOKENS if locations else ()
    least = 256 + len(specials) + len(added)
    if vocab_size < least:
        places = f" and {len(added)} of locations" if added else ""
        raise ValueError(
            f"The tokenizer's vocab_size {vocab_size} cannot hold 256 bytes and {len(specials)} "
            f"special tokens{places}: set it to at least {least}."
        )
    backend = hf.Tokenizer(models.BPE())
    steps = [normalizers.NFC(), normalizers.Replace(hf.Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence(steps + [normalizers.Lowercase()] * bool(lowercase))
    # The leading space gives a word the same token at the start of a caption as elsewhere.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(added),
        min_frequency=2,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = 0

    def counted():
        nonlocal seen
        for text in corpus:
            seen += 1
            yield text

    backend.train_from_iterator(counted(), trainer)
    if not seen:
        raise ValueError("the corpus for the tokenizer is empty: the training set has no captions")
    backend.add_tokens([hf.AddedToken(token, normalized=False) for token in added])
    # "<eos>" inside a caption is plain text.
    backend.encode_special_tokens = True
    return Tokenizer(backend, pad_id=0, bos_id=1, eos_id=2)
