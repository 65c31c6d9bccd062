"""The tokenizer of a published folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
from tokenizers.processors import TemplateProcessing

from mmjax.data.text import clip_vocab
from mmjax.data.text.clip_bpe import clip_bpe
from mmjax.data.text.from_file import from_file
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.weights.published import CONFIG, read_json
from mmjax.workdir import whole_file

GENERATION = "generation_config.json"
FILE, SETTINGS, SPECIALS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
ROLES = ("pad_token", "bos_token", "eos_token")
# What generation_config.json says of its origin, which is not that of the file we write.
ORIGIN = ("_from_model_config", "transformers_version")


def read(folder: Path, begins: bool | None = True, lowercase: bool = False) -> Tokenizer | None:
    """A published folder's tokenizer: its tokenizer.json, or CLIP's vocab.json and merges.txt.

    For CLIP's vocabulary, recognized by its end-of-word marker, texts are cleaned as in the
    original code in either case.

    Args:
      begins: texts begin with the begin token, if there is one; None: if the file says so.
      lowercase: lowercase texts before the normalization of tokenizer.json.

    Returns:
      None where there is neither.

    Raises:
      ValueError: damaged files, or a special token that is not in the vocabulary.
    """
    if (folder / FILE).is_file():
        tokenizer = from_file(str(folder / FILE), **_specials(folder), lowercase=lowercase)
        if tokenizer.end_of_word == "</w>":
            tokenizer.clean = clip_vocab.clean
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = clip_bpe(str(folder))
    else:
        return None
    if begins is None:
        begins = tokenizer.bos_id in tokenizer.wrapped("a")[:1]
    if not begins:
        tokenizer.bos_id = None
    return tokenizer


def read_for_generation(folder: Path, begins: bool | None = None) -> Tokenizer | None:
    """The tokenizer of a language model's folder.

    Its end tokens are the `eos_token_id` of generation_config.json or else of config.json.

    Args:
      begins: as in `read`.

    Raises:
      ValueError: as `read`.
    """
    tokenizer = read(folder, begins)
    if tokenizer is None:
        return None
    files = (folder / name for name in (GENERATION, CONFIG))
    found = (read_json(file).get("eos_token_id") for file in files if file.is_file())
    ends = next((ids for ids in found if ids is not None), ())
    tokenizer.end_ids = tuple(dict.fromkeys((tokenizer.eos_id, *np.atleast_1d(ends).tolist())))
    return tokenizer


def read_generation(folder: Path) -> dict[str, Any]:
    """What a language model's folder says about generation: generation_config.json, and the ids of
    special tokens that only config.json has.

    Raises:
      ValueError: as `read_json`.
    """
    config = read_json(folder / CONFIG)
    ids = {f"{role}_id": config[f"{role}_id"] for role in ROLES if f"{role}_id" in config}
    found = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    return ids | {k: v for k, v in found.items() if k not in ORIGIN}


def generation_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids of special tokens in the form of config.json and generation_config.json."""
    ends = tokenizer.end_ids
    ids = {"pad_token_id": tokenizer.pad_id, "eos_token_id": ends[0] if len(ends) == 1 else ends}
    return ids if tokenizer.bos_id is None else ids | {"bos_token_id": tokenizer.bos_id}


def _specials(folder: Path) -> dict[str, str]:
    """role -> token, from the files next to tokenizer.json."""
    found = {}
    for name in (SPECIALS, SETTINGS):
        settings = read_json(folder / name) if (folder / name).is_file() else {}
        for role in ROLES:
            token = settings.get(role)
            token = token["content"] if isinstance(token, dict) else token
            if token is not None:
                found[role] = token
    return found


def write(folder: Path, tokenizer: Tokenizer, length: int, ends: bool = True) -> None:
    """Write tokenizer.json and tokenizer_config.json, for this and other libraries.

    They include the special tokens and the padding that `Tokenizer` adds.

    Args:
      ends: texts end with the end token; false for language models, which continue them.
    """
    backend = hf.Tokenizer.from_str(tokenizer.json())
    roles = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    names = {role: backend.id_to_token(i) for role, i in roles.items() if i is not None}
    before = [names["bos"]] if "bos" in names else []
    after = [names["eos"]] if ends else []
    backend.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        special_tokens=[(name, backend.token_to_id(name)) for name in {*before, *after}],
    )
    whole_file.write(folder / FILE, backend.to_str(pretty=False))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "padding_side": "right",
        **{f"{role}_token": name for role, name in names.items()},
    }
    whole_file.write(folder / SETTINGS, json.dumps(settings, indent=2))


def with_end(tokenizer: Tokenizer, eos_id: int) -> Tokenizer:
    """The same tokenizer with another id for its end token."""
    content = json.loads(tokenizer.json())
    name = next(t["content"] for t in content["added_tokens"] if t["id"] == tokenizer.eos_id)
    for token in content["added_tokens"]:
        token["id"] = eos_id if token["content"] == name else token["id"]
    content["model"]["vocab"][name] = eos_id
    return tokenizer.replace(hf.Tokenizer.from_str(json.dumps(content)), eos_id=eos_id)
