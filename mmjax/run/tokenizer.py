"""The tokenizer of a config: a published model's, or one trained on the corpus."""

import inspect
import json

from mmjax import pretrained
from mmjax.config import check_type, nearest
from mmjax.data.text.clip_bpe import clip_bpe
from mmjax.data.text.from_file import from_file
from mmjax.data.text.tokenizer import is_saved, load_tokenizer
from mmjax.data.text.train_bpe import train_bpe
from mmjax.data.text.train_characters import train_characters
from mmjax.data.text.train_words import train_words
from mmjax.weights.families.llama_gguf import from_gguf


def make_tokenizer(config, corpus=None, saved=None):
    """The tokenizer that a config asks for.

    Args:
      config: mapping with `kind`, one of `KINDS` below, optionally `strict`, and the arguments of
        the function of that kind.
      corpus: iterable of str, for the kinds 'train_bpe', 'train_characters' and
        'train_words'.
      saved: folder of a tokenizer saved earlier in this run; used if it exists.

    Raises:
      ValueError: an unknown kind or key, an unreadable file, or a saved tokenizer that was made
        from another config.
    """
    config = dict(config)
    strict = config.pop("strict", False)
    kind = config.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(
            f"config.tokenizer.kind is {kind!r}: use one of {', '.join(KINDS)}."
            + nearest(str(kind), KINDS)
        )
    if saved is not None and is_saved(saved):
        tokenizer = load_tokenizer(saved, strict)
        # As it is read from JSON, where a tuple is a list.
        now, before = json.loads(json.dumps({"kind": kind, **config})), tokenizer.origin
        changed = sorted(
            key for key in {*now, *before} - {"path"} if now.get(key) != before.get(key)
        )
        if changed:
            was = ", ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in changed)
            raise ValueError(
                f"The tokenizer in {saved} was made from another config ({was}): set "
                "config.tokenizer back, or train in another workdir."
            )
        return tokenizer
    if kind in ("train_bpe", "train_characters", "train_words"):
        if corpus is None:
            raise ValueError(f"tokenizer kind '{kind}' needs the corpus of the training set")
        args = (corpus,)
    else:
        args = ()
    signature = inspect.signature(KINDS[kind])
    try:
        signature.bind(*args, **config)
    except TypeError as error:
        raise ValueError(f"tokenizer kind {kind!r}: {error}") from None
    for key, value in config.items():
        check_type(value, signature.parameters[key].annotation, f"config.tokenizer.{key}")
    tokenizer = KINDS[kind](*args, **config)
    tokenizer.origin = {"kind": kind, **config}
    tokenizer.strict = strict
    return tokenizer


def from_pretrained(path):
    """The tokenizer of a published model's folder, or of the workdir of a run.

    Raises:
      ValueError: no model there, or one without a tokenizer.
    """
    return pretrained.describe(path).need_tokenizer()


KINDS = {
    "clip_bpe": clip_bpe,
    "file": from_file,
    "gguf": from_gguf,
    "pretrained": from_pretrained,
    "train_bpe": train_bpe,
    "train_characters": train_characters,
    "train_words": train_words,
}
