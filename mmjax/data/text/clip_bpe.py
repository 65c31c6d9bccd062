"""OpenAI's CLIP tokenizer."""

import os

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mmjax.data.text import clip_vocab
from mmjax.data.text.library import one_error
from mmjax.data.text.tokenizer import Tokenizer

_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_bpe(path: str | os.PathLike) -> Tokenizer:
    """OpenAI's CLIP tokenizer from its published vocabulary.

    Lower case, end-of-word marks, bos 49406, eos 49407, padding 0 (which is also a token: use the
    mask). Texts are cleaned as in the original.

    Args:
      path: `bpe_simple_vocab_16e6.txt.gz`, or a folder with `vocab.json` and `merges.txt`.

    Source: github.com/openai/CLIP, clip/simple_tokenizer.py.

    Raises:
      ValueError: the files are missing or not such a vocabulary.
    """
    backend = clip_backend(path)
    return Tokenizer(
        backend,
        pad_id=0,
        bos_id=backend.token_to_id(clip_vocab.BOS),
        eos_id=backend.token_to_id(clip_vocab.EOS),
        clean=clip_vocab.clean,
    )


def clip_backend(path):
    """The tokenizer of `clip_bpe` as the `tokenizers` library has it, without padding and cleaning.

    Raises:
      ValueError: as `clip_bpe`.
    """
    vocab, merges = clip_vocab.read(path)
    if clip_vocab.BOS not in vocab or clip_vocab.EOS not in vocab:
        raise ValueError(
            f"{path} is no CLIP vocabulary: {clip_vocab.BOS} or {clip_vocab.EOS} is missing"
        )
    with one_error(f"{path} is no CLIP vocabulary"):
        model = models.BPE(
            vocab=vocab,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=clip_vocab.EOS,
        )
    backend = hf.Tokenizer(model)
    # `clip_vocab.clean` already does all this; here it serves other programs that load the file.
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(hf.Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(hf.Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("</w>", " "), decoders.ByteLevel()],
    )
    backend.add_special_tokens([clip_vocab.BOS, clip_vocab.EOS])
    return backend
