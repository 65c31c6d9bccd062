"""The tokenizer in the metadata of a GGUF file: byte-level BPE, or BPE of sentencepiece.

Source of the names and defaults: llama.cpp, src/llama-vocab.cpp.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers as hf
from tokenizers import decoders, models, pre_tokenizers

from mmjax.data.text import sentencepiece
from mmjax.data.text.library import one_error
from mmjax.data.text.tokenizer import Tokenizer

# Values of tokenizer.ggml.token_type.
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
_END_IDS = ("eot_token_id", "eom_token_id")  # end tokens besides eos_token_id

# Word pattern of Llama 3: contractions, letters with an optional preceding symbol, up to three
# digits, and the rest. Words that are in its vocabulary are not merged. Qwen 2: single digits.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


class Words(NamedTuple):
    """How a byte-level BPE splits text into words, and whether texts start with a begin token by
    default."""

    pattern: str | None = None  # None: GPT-2's
    digits_apart: bool = False
    whole_words: bool = False  # a word that is in the vocabulary is not merged
    begins: bool = False


# tokenizer.ggml.pre -> how words are split
KINDS = {
    "default": Words(),
    "gpt-2": Words(),
    "smollm": Words(digits_apart=True),
    "llama-bpe": Words(_LLAMA3, whole_words=True, begins=True),
    "llama3": Words(_LLAMA3, whole_words=True, begins=True),
    "qwen2": Words(_QWEN2),
}


def read(path: str | Path, metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a file with the given metadata.

    Control tokens, such as <|im_start|>, are recognized in texts. Rows start with the begin token
    if the file says so, or by default of its kind. `eot_token_id` is an end token too.

    Args:
      path: of the file, for messages.

    Raises:
      ValueError: no tokenizer, one of an unknown kind, or an incomplete one.
    """
    kind = metadata.get("tokenizer.ggml.model")
    tokens, end = (metadata.get(f"tokenizer.ggml.{x}") for x in ("tokens", "eos_token_id"))
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"'{path}' has a tokenizer of kind '{kind}'; 'gpt2' (byte-level BPE) and 'llama' "
            "(sentencepiece) can be read."
        )
    if not tokens or end is None:
        raise ValueError(
            f"tokenizer.ggml.tokens or tokenizer.ggml.eos_token_id is missing in '{path}'."
        )
    for name, of in (("tokens", str), ("merges", str), ("token_type", int), ("scores", float)):
        found = metadata.get(f"tokenizer.ggml.{name}", [])
        if not isinstance(found, list) or not all(isinstance(x, of) for x in found):
            raise ValueError(
                f"'{path}' has tokenizer.ggml.{name} that is no list of a {of.__name__} for each: "
                "get it again."
            )
    ids = ("eos_token_id", "bos_token_id", "padding_token_id", *_END_IDS)
    for name in (name for name in ids if f"tokenizer.ggml.{name}" in metadata):
        value = metadata[f"tokenizer.ggml.{name}"]
        if type(value) is not int or not 0 <= value < len(tokens):
            raise ValueError(
                f"'{path}' has {name} {str(value)[:80]}, no id of its {len(tokens)} tokens."
            )
    backend, begins = (_byte_level if kind == "gpt2" else _sentencepiece)(path, metadata, tokens)
    types = metadata.get("tokenizer.ggml.token_type", ())
    of_type = lambda wanted: [t for t, found in zip(tokens, types) if found == wanted]  # noqa: E731
    backend.add_special_tokens(of_type(_CONTROL))
    backend.add_tokens([hf.AddedToken(t, normalized=False) for t in of_type(_USER_DEFINED)])
    begins = metadata.get("tokenizer.ggml.add_bos_token", begins)
    also = (metadata.get(f"tokenizer.ggml.{name}") for name in _END_IDS)
    return Tokenizer(
        backend,
        pad_id=metadata.get("tokenizer.ggml.padding_token_id", end),
        bos_id=metadata.get("tokenizer.ggml.bos_token_id") if begins else None,
        eos_id=end,
        end_ids=[i for i in also if i is not None],
        chat_template=metadata.get("tokenizer.chat_template"),
    )


def _byte_level(path, metadata, tokens) -> tuple[hf.Tokenizer, bool]:
    name, merges = (metadata.get(f"tokenizer.ggml.{x}") for x in ("pre", "merges"))
    name = name or "default"
    if name not in KINDS:
        raise ValueError(
            f"'{path}' splits its words by '{name}' (tokenizer.ggml.pre); "
            f"{', '.join(KINDS)} can be read."
        )
    words = KINDS[name]
    if merges is None:
        raise ValueError(f"tokenizer.ggml.merges is missing in '{path}'.")
    with one_error(f"'{path}' has an incomplete BPE vocabulary"):
        model = models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ", 1)) for merge in merges],
            ignore_merges=words.whole_words,
        )
    backend = hf.Tokenizer(model)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", False)
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=words.pattern is None)]
    if words.digits_apart:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    if words.pattern is not None:
        steps.insert(0, pre_tokenizers.Split(hf.Regex(words.pattern), behavior="isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend, words.begins


def _sentencepiece(path, metadata, tokens) -> tuple[hf.Tokenizer, bool]:
    scores = metadata.get("tokenizer.ggml.scores")
    types = metadata.get("tokenizer.ggml.token_type")
    if scores is None or types is None or not len(scores) == len(types) == len(tokens):
        raise ValueError(
            f"tokenizer.ggml.scores or token_type is missing for some of the {len(tokens)} tokens "
            f"in '{path}'."
        )
    backend = sentencepiece.bpe(
        list(zip(tokens, scores)),
        unknown=types.index(_UNKNOWN) if _UNKNOWN in types else None,
        merged=[kind not in (_UNKNOWN, _CONTROL, _BYTE) for kind in types],
        byte_fallback=_BYTE in types,
        space_prefix=metadata.get("tokenizer.ggml.add_space_prefix", True),
    )
    return backend, True
