"""The tokenizer of a folder of open_clip, with its text cleaning.

Source: open_clip 3.3, factory.py, get_tokenizer, and tokenizer.py.
"""

import json
from pathlib import Path
from typing import Any

from mmjax.config import nearest
from mmjax.data.text import clip_vocab
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.weights import tokenizer
from mmjax.weights.published import OPEN_CLIP

# Values of text_cfg.tokenizer_kwargs.clean.
CLEANERS = {
    "lower": clip_vocab.clean,
    "whitespace": clip_vocab.clean_whitespace,
    "canonicalize": clip_vocab.clean_canonical,
}
_HUB = "whitespace"  # the default for tokenizers of transformers
# Further settings that change the tokens and are not supported.
_OTHER = ("strip_sep_token", "reduction_mask", "additional_special_tokens", "language")


def read(folder: Path, text: dict[str, Any]) -> Tokenizer | None:
    """The tokenizer; texts are padded with `pad_id`, unless it is a tokenizer of `transformers`.

    Args:
      text: text_cfg of open_clip_config.json.

    Raises:
      ValueError: damaged files, or settings that change the tokens and are not supported.
    """
    hub, given = text.get("hf_tokenizer_name"), text.get("tokenizer_kwargs") or {}
    where = f"'{folder / OPEN_CLIP}' has text_cfg"
    clean = given.get("clean", _HUB if hub else "lower")
    if clean not in CLEANERS:
        raise ValueError(
            f"{where}.tokenizer_kwargs.clean {clean!r}; these can be loaded: "
            f"{', '.join(CLEANERS)}.{nearest(str(clean), CLEANERS)}"
        )
    other = [f"tokenizer_kwargs.{name}" for name in _OTHER if given.get(name)]
    other += ["tokenizer_mode"] * bool(text.get("tokenizer_mode"))
    if other:
        raise ValueError(f"{where}.{other[0]}, which changes the tokens and cannot be loaded.")
    # CLIP's own tokenizer always has a begin token; one of transformers, if its file says so.
    words = tokenizer.read(folder, begins=None if hub else True)
    if words is None:
        return None
    if not hub:
        words.pad_id = text.get("pad_id", 0)
    if tokenizer.CLEANING not in tokenizer.settings_of(folder):  # else one of ours, as it was
        words.clean = CLEANERS[clean]
    return words


def settings(words: Tokenizer, masked: bool) -> dict[str, Any]:
    """The part of text_cfg from which open_clip and `read` get this tokenizer, saved beside it.

    Args:
      masked: the model does not read the padding, so any token can pad.
    """
    clean = next((name for name, x in CLEANERS.items() if x is words.clean), None)
    content = json.loads(words.json())
    added = {token["content"] for token in content["added_tokens"]}
    # open_clip's own tokenizer, for which its package has the vocabulary, pads with 0.
    own = (
        clean is not None
        and (masked or words.pad_id == 0)
        and added <= {clip_vocab.BOS, clip_vocab.EOS}
        and clip_vocab.is_published(content["model"]["vocab"])
    )
    named = {} if own else {"hf_tokenizer_name": "."}
    default = "lower" if own else _HUB
    kwargs = {} if clean in (None, default) else {"tokenizer_kwargs": {"clean": clean}}
    return named | kwargs
