"""Any tokenizer.json of the `tokenizers` library."""

import os

import tokenizers as hf
from tokenizers import normalizers

from mmjax.data.text.library import one_error
from mmjax.data.text.tokenizer import FILE, Tokenizer

_UNKNOWN = "\u0378 \U000f0000"  # characters that no vocabulary has
_PAD = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>")
_BOS = ("<bos>", "<s>", "[CLS]", "<|startoftext|>", "<|begin_of_text|>", "<|im_start|>")
_EOS = ("<eos>", "</s>", "[SEP]", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>")


def from_file(path, pad_token=None, bos_token=None, eos_token=None, lowercase=False):
    """A tokenizer from any tokenizer.json of the `tokenizers` library.

    Special tokens that are not given are found by their common names; without a begin token rows
    start with the text, without a padding token the end token pads. `lowercase` folds case before
    the file's own normalization.

    Raises:
      ValueError: an unreadable file, a given special token that is not in it, or no end token.
    """
    backend = open_backend(path)
    return from_backend(backend, path, pad_token, bos_token, eos_token, lowercase)


def open_backend(path):
    """A tokenizer.json, or the one in a folder, as the `tokenizers` library has it, without the
    file's truncation and padding.

    Raises:
      ValueError: an unreadable file.
    """
    if os.path.isdir(path):
        path = os.path.join(path, FILE)
    with one_error(f"cannot read a tokenizer from {path}"):
        backend = hf.Tokenizer.from_file(str(path))
    backend.no_truncation()
    backend.no_padding()
    with one_error(f"the tokenizer in {path} cannot encode unknown words"):
        backend.encode(_UNKNOWN)
    return backend


def from_backend(
    backend, path, pad_token=None, bos_token=None, eos_token=None, lowercase=False, clean=None
):
    """As `from_file`, from a tokenizer of the library; `path` is only for messages.

    Raises:
      ValueError: a given special token that is not in it, or no end token.
    """
    if lowercase:
        own = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])

    def find(given, names, role):
        if given is not None and backend.token_to_id(given) is None:
            raise ValueError(f"{path} has no token {given!r}, which the config names as {role}")
        ids = (backend.token_to_id(name) for name in ([given] if given is not None else names))
        return next((i for i in ids if i is not None), None)

    eos_id = find(eos_token, _EOS, "eos_token")
    if eos_id is None:
        raise ValueError(f"{path} has none of {', '.join(_EOS)}; set eos_token in the config")
    pad_id = find(pad_token, _PAD, "pad_token")
    return Tokenizer(
        backend,
        pad_id=eos_id if pad_id is None else pad_id,
        bos_id=find(bos_token, _BOS, "bos_token"),
        eos_id=eos_id,
        clean=clean,
    )
