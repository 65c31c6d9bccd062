"""Sentencepiece vocabularies as tokenizers of `tokenizers`: unigram (`spiece.model`) and BPE.

The model file is parsed here, because the package `sentencepiece` exposes the normalizer's table,
which `tokenizers` needs, only through generated protobuf code.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mmjax.data.text.library import one_error

_UNKNOWN = 2  # of SentencePiece.type
_UNIGRAM = 1  # of TrainerSpec.model_type
_SPACE = "▁"


def read(path: str | Path) -> hf.Tokenizer:
    """The vocabulary, normalization and splitting of a sentencepiece model.

    Ids are those of the file; no special tokens are added around a text.

    Raises:
      ValueError: a file that is missing, damaged, or not a unigram model.

    Source: sentencepiece_model.proto of github.com/google/sentencepiece (ModelProto: pieces 1,
    trainer_spec 2, normalizer_spec 3); Kudo 2018 (arXiv 1804.10959).
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}.") from None
    try:
        model = list(_fields(data))
        pieces = [dict(_fields(value)) for number, value in model if number == 1]
        trainer, normalizer = (_merged(model, number) for number in (2, 3))
        vocabulary = [(x[1].decode(), struct.unpack("<f", x.get(2, bytes(4)))[0]) for x in pieces]
        unknown = next(i for i, x in enumerate(pieces) if x.get(3) == _UNKNOWN)
    except (IndexError, KeyError, ValueError, TypeError, struct.error, StopIteration):
        raise ValueError(f"'{path}' is damaged or no sentencepiece model: get it again.") from None
    if trainer.get(3, _UNIGRAM) != _UNIGRAM:
        raise ValueError(
            f"'{path}' is no unigram model of sentencepiece, the only kind that can be read: put "
            "the tokenizer.json of the same model beside it."
        )
    with one_error(f"'{path}' is damaged, get it again"):
        backend = hf.Tokenizer(models.Unigram(vocabulary, unk_id=unknown))
        steps = [normalizers.Precompiled(normalizer[2])] if normalizer.get(2) else []
    if normalizer.get(4, 1):  # remove_extra_whitespaces
        steps += [normalizers.Replace(hf.Regex(" {2,}"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence(steps)
    scheme = "always" if normalizer.get(3, 1) else "never"  # add_dummy_prefix
    backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(_SPACE, prepend_scheme=scheme)
    return backend


def bpe(
    pieces: Sequence[tuple[str, float]],
    unknown: int | None,
    merged: Sequence[bool],
    byte_fallback: bool,
    space_prefix: bool,
) -> hf.Tokenizer:
    """A BPE tokenizer whose merges are all pairs that form a piece, by decreasing score.

    Args:
      pieces: (text, score) by id.
      unknown: id of the unknown token; merged: whether each piece is made by merges.
      byte_fallback: characters outside the vocabulary become pieces `<0x..>`.
      space_prefix: a space is prepended to each text, also after a special token.

    Source: sentencepiece, src/bpe_model.cc; llama.cpp, `llm_tokenizer_spm`.
    """
    vocabulary = {text: i for i, (text, _) in enumerate(pieces)}
    merges = [
        (-score, vocabulary[text[:at]], vocabulary[text[at:]], (text[:at], text[at:]))
        for (text, score), is_merged in zip(pieces, merged)
        if is_merged
        for at in range(1, len(text))
        if text[:at] in vocabulary and text[at:] in vocabulary
    ]
    model = models.BPE(
        vocab=vocabulary,
        merges=[pair for *_, pair in sorted(merges)],
        unk_token=None if unknown is None else pieces[unknown][0],
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )
    backend = hf.Tokenizer(model)
    prefix = [normalizers.Prepend(_SPACE)] if space_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if space_prefix else [])
    )
    return backend


def _merged(model: list[tuple[int, Any]], number: int) -> dict[int, Any]:
    return dict(field for n, value in model if n == number for field in _fields(value))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protocol buffer: an int, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        else:
            if wire == 2:
                size, at = _varint(data, at)
            else:
                size = {1: 8, 5: 4}[wire]
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise ValueError("truncated")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
