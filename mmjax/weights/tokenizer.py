"""The tokenizer of a published folder."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers as hf
from tokenizers.processors import TemplateProcessing

from mmjax import storage
from mmjax.data import text_file
from mmjax.data.text import clip_vocab
from mmjax.data.text.from_file import from_backend, open_backend
from mmjax.data.text.library import one_error
from mmjax.data.text.tokenizer import CLEANERS, Tokenizer, cleaner_name
from mmjax.weights import schema, tokenizer_classes
from mmjax.weights.published import CONFIG, PROCESSOR, read_json

GENERATION = "generation_config.json"
FILE, SETTINGS, SPECIALS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
# Vocabularies that some libraries read without tokenizer.json.
VOCABULARIES = (
    *("vocab.txt", "vocab.json", "merges.txt", "bpe.codes", "bpe_simple_vocab_16e6.txt.gz"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
# Our key in tokenizer_config.json: how texts are cleaned, one of `CLEANERS`.
CLEANING = "text_cleaning"
ROLES = ("pad_token", "bos_token", "eos_token")
# What generation_config.json says of its origin, which is not that of the file we write.
ORIGIN = ("_from_model_config", "transformers_version")


def read(
    folder: Path,
    begins: bool | None = True,
    lowercase: bool = False,
    given: Mapping[str, Any] | None = None,
) -> Tokenizer | None:
    """A published folder's tokenizer, read as `transformers` does.

    The files are tokenizer.json; or else vocab.txt, or vocab.json and merges.txt, as the folder's
    tokenizer class needs. The settings and special tokens in tokenizer_config.json,
    special_tokens_map.json and added_tokens.json apply.

    For CLIP's vocabulary, recognized by its end-of-word marker, texts are cleaned as in the
    original code in either case.

    Args:
      begins: texts begin with the begin token, if there is one; None: if the file says so.
      lowercase: lowercase texts before the normalization of tokenizer.json.
      given: settings that replace those of tokenizer_config.json.

    Returns:
      None without the files: `missing` says which.

    Raises:
      ValueError: damaged files, or a special token that is not in the vocabulary.
    """
    settings = {**settings_of(folder), **(given or {})}
    kind = tokenizer_classes.find(folder, settings)
    named = tokenizer_classes.roles(kind, settings)
    if (folder / FILE).is_file():
        where = folder / FILE
        backend = open_backend(where)
        if CLEANING not in settings:  # else one of ours, which is complete
            tokenizer_classes.adapt(backend, folder, kind, settings)
        stated = tokenizer_classes.roles(None, settings).keys()
        has = lambda token: backend.token_to_id(token) is not None  # noqa: E731
        # Tokens that only the class names may be missing.
        named = {k: x for k, x in named.items() if k in stated or has(x)}
    elif kind is not None and tokenizer_classes.has_files(folder, kind):
        where = folder
        backend = tokenizer_classes.build(folder, kind, settings)
    else:
        return None
    backend.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    first, last = kind.ends if kind else ("bos_token", "eos_token")
    with one_error(f"the tokenizer in {where} cannot encode a letter"):
        around, one = backend.encode("").tokens, backend.encode("a").tokens
    if kind is None and len(around) == 2 and [one[0], one[-1]] == around:
        named |= dict(zip((first, last), around))  # the file says what begins and ends a text
    pad = named.get("pad_token")
    tokenizer = from_backend(
        backend,
        where,
        # Padding is masked, so another token can replace one that the model does not have.
        pad_token=None if pad is None or backend.token_to_id(pad) is None else pad,
        bos_token=named.get(first, named.get("cls_token")),
        eos_token=named.get(last, named.get("sep_token")),
        lowercase=lowercase,
    )
    tokenizer.clean = clip_vocab.clean if tokenizer.end_of_word == "</w>" else None
    if CLEANING in settings:
        tokenizer.clean = CLEANERS.get(settings[CLEANING])
    if begins is None:
        begins = tokenizer.bos_id in tokenizer.wrapped("a")[:1]
    if not begins:
        tokenizer.bos_id = None
    tokenizer.chat_template = _chat_template(folder, settings)
    return tokenizer


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: chat_template.jinja, that of a processor, or of tokenizer_config.json.

    Raises:
      ValueError: a template that is no text, or not in UTF-8.
    """
    if (folder / TEMPLATE).is_file():
        return text_file.read(folder / TEMPLATE)
    files = [
        folder / name for name in ("chat_template.json", PROCESSOR) if (folder / name).is_file()
    ]
    for given in (*map(read_json, files), settings):
        found = given.get("chat_template")
        if isinstance(found, list):  # several by name
            found = {x.get("name"): x.get("template") for x in found if isinstance(x, dict)}
            found = found.get("default")
        if isinstance(found, str):
            return found
        if found is not None:
            raise ValueError(f"The chat template in '{folder}' is no text: get it again.")
    return None


def settings_of(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; if it lists no added tokens, those of special_tokens_map.json apply.

    Raises:
      ValueError: damaged files.
    """
    read = (read_json(folder / x) if (folder / x).is_file() else {} for x in (SETTINGS, SPECIALS))
    settings, specials = read
    return settings if "added_tokens_decoder" in settings else settings | specials


def max_length(folder: Path) -> int | None:
    """Maximum tokens of a text by tokenizer_config.json; None: it says nothing.

    Raises:
      ValueError: a damaged file.
    """
    settings = settings_of(folder)
    length = settings.get("model_max_length", settings.get("max_len"))
    if not isinstance(length, int | float | None):
        raise ValueError(f"model_max_length in '{folder}' is {length!r}: it must be a number.")
    return None if length in (None, math.inf) else int(length)


def missing(folder: Path) -> str:
    """Why a folder has no tokenizer: a sentence that names the files."""
    settings = settings_of(folder)
    kind = tokenizer_classes.find(folder, settings)
    name = tokenizer_classes.class_name(folder, settings)
    needs = f"{FILE}, or {' and '.join(kind.files)}" if kind else FILE
    found = [x for x in VOCABULARIES if (folder / x).is_file()]
    alone = f"; {' and '.join(found)} alone cannot be read" if found else ""
    alone += f" as a {name}" if found and name else ""
    return (
        f"The tokenizer files in '{folder}' are missing: put {needs} there, from where the model "
        f"comes from{alone}."
    )


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
    ends = next((ids for ids in found if ids is not None), [])
    ends = ends if isinstance(ends, list) else [ends]
    if not schema.fits("eos_token_id", ends, [0]):
        raise ValueError(f"'{folder}' has eos_token_id {ends!r}: it must be an id, or a list.")
    tokenizer.end_ids = tuple(dict.fromkeys((tokenizer.eos_id, *ends)))
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


def write(
    folder: Path, tokenizer: Tokenizer, length: int, ends: bool = True, masked: bool = False
) -> None:
    """Write tokenizer.json and tokenizer_config.json, for this and other libraries.

    They include the special tokens and the padding that `Tokenizer` adds.

    Args:
      ends: texts end with the end token; false for language models, which continue them.
      masked: the model does not read the padding, so any token can pad. Other libraries take the
        padding token for a special one inside texts too, so it is not one that texts use, as CLIP's
        "!".
    """
    backend = hf.Tokenizer.from_str(tokenizer.json())
    roles = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    names = {role: backend.id_to_token(i) for role, i in roles.items() if i is not None}
    if masked and tokenizer.pad_id not in backend.get_added_tokens_decoder():
        names["pad"] = names["eos"]
    before = [names["bos"]] if "bos" in names else []
    after = [names["eos"]] if ends else []
    backend.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        special_tokens=[(name, backend.token_to_id(name)) for name in {*before, *after}],
    )
    storage.write(folder / FILE, backend.to_str(pretty=False))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "padding_side": "right",
        "split_special_tokens": tokenizer.plain_specials,
        CLEANING: cleaner_name(tokenizer.clean),
        **{f"{role}_token": name for role, name in names.items()},
    }
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    storage.write(folder / SETTINGS, json.dumps(settings, indent=2))


def with_end(tokenizer: Tokenizer, eos_id: int) -> Tokenizer:
    """The same tokenizer with another id for its end token."""
    content = json.loads(tokenizer.json())
    name = next(t["content"] for t in content["added_tokens"] if t["id"] == tokenizer.eos_id)
    for token in content["added_tokens"]:
        token["id"] = eos_id if token["content"] == name else token["id"]
    content["model"]["vocab"][name] = eos_id
    return tokenizer.replace(hf.Tokenizer.from_str(json.dumps(content)), eos_id=eos_id)
