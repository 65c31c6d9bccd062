"""Tokenizer classes of `transformers`: their vocabulary files, special tokens and settings.

Source: transformers 5.23: tokenization_{bert,roberta,gpt2,clip}.py, tokenization_auto.py (which
class a folder has) and tokenization_utils_base.py (which special tokens).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from mmjax.data.text.clip_bpe import clip_backend
from mmjax.data.text.library import one_error
from mmjax.weights.published import CONFIG, read_json

ADDED = "added_tokens.json"
PAD = "pad_token"
# In the order in which they are added.
ROLES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_WORDS, _PAIRS = ("vocab.txt",), ("vocab.json", "merges.txt")
_END = "<|endoftext|>"


class Kind(NamedTuple):
    """A tokenizer class.

    Attributes:
      files: of its vocabulary.
      model: what tokenizer.json calls its algorithm.
      tokens: special tokens by default, role -> token.
      ends: the roles of the tokens before and after a text.
    """

    files: tuple[str, ...]
    model: str
    tokens: Mapping[str, str]
    ends: tuple[str, str]


def _tokens(**tokens: str) -> dict[str, str]:
    return {f"{role}_token": token for role, token in tokens.items()}


BERT = Kind(
    _WORDS,
    "WordPiece",
    _tokens(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]"),
    ("cls_token", "sep_token"),
)
ROBERTA = Kind(
    _PAIRS,
    "BPE",
    _tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>", mask="<mask>"),
    ("cls_token", "sep_token"),
)
GPT2 = Kind(_PAIRS, "BPE", _tokens(bos=_END, eos=_END, unk=_END), ("bos_token", "eos_token"))
CLIP = Kind(
    _PAIRS,
    "BPE",
    _tokens(bos="<|startoftext|>", eos=_END, unk=_END, pad=_END),
    ("bos_token", "eos_token"),
)
KINDS = {
    **{f"{name}Tokenizer": BERT for name in ("Bert", "DistilBert", "Electra", "MobileBert")},
    **{f"{name}Tokenizer": ROBERTA for name in ("Roberta", "Bart", "Longformer")},
    "GPT2Tokenizer": GPT2,
    "CLIPTokenizer": CLIP,
    "WhisperTokenizer": GPT2,
}
# By model_type, for folders that name no class.
BY_TYPE = {
    "albef": "BertTokenizer",
    "align": "BertTokenizer",
    "bert": "BertTokenizer",
    "blip": "BertTokenizer",
    "chinese_clip": "BertTokenizer",
    "clip": "CLIPTokenizer",
    "flava": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "whisper": "WhisperTokenizer",
}


def class_name(folder: Path, settings: Mapping[str, Any]) -> str:
    """The tokenizer class of a folder, without "Fast"; "" if nothing in it tells.

    Args:
      settings: the content of tokenizer_config.json.

    Raises:
      ValueError: damaged files.
    """
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if not isinstance(named, str | None):
        raise ValueError(f"tokenizer_class in '{folder}' is {named!r}: it must be a name.")
    kind = config.get("model_type")
    named = named or (BY_TYPE.get(kind, "") if isinstance(kind, str) else "")
    return named.removesuffix("Fast")


def find(folder: Path, settings: Mapping[str, Any]) -> Kind | None:
    """The tokenizer class of a folder; None: none of ours. Without a name the files decide."""
    name = class_name(folder, settings)
    if name:
        return KINDS.get(name)
    return next((kind for kind in (BERT, CLIP) if has_files(folder, kind)), None)


def has_files(folder: Path, kind: Kind) -> bool:
    """Whether the folder has all files of the vocabulary."""
    return all((folder / name).is_file() for name in kind.files)


def roles(kind: Kind | None, settings: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by role, as the files name them or else the class; null: none."""
    tokens = {role: _content(x) for role, x in settings.items() if role.endswith("_token")}
    tokens = {**(kind.tokens if kind else {}), **tokens}
    return {role: name for role, name in tokens.items() if isinstance(name, str)}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def build(folder: Path, kind: Kind, settings: Mapping[str, Any]) -> hf.Tokenizer:
    """The tokenizer of a vocabulary without tokenizer.json.

    Raises:
      ValueError: damaged files, or an added token whose id does not follow those of the vocabulary.
    """
    named = roles(kind, settings)
    where = " and ".join(kind.files) + f" in '{folder}'"
    paths = [str(folder / name) for name in kind.files]
    unknown = named.get("unk_token", "")
    if kind is CLIP:
        backend = clip_backend(str(folder))
    else:
        with one_error(f"{where} cannot be read as a vocabulary"):
            backend = hf.Tokenizer(_model(kind, paths, unknown))
    if kind is BERT:
        if backend.token_to_id(unknown) is None:
            raise ValueError(f"{where} has no token '{unknown}' for unknown words.")
        backend.normalizer = _bert_normalizer(settings)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
    elif kind is not CLIP:
        prefix = bool(settings.get("add_prefix_space", False))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        backend.decoder = decoders.ByteLevel()
    for token, i in _added(backend, folder, settings, named):
        _add(backend, token, i, folder)
    adds = (True, True)
    if kind is GPT2:  # which continues texts
        adds = (settings.get("add_bos_token", False), settings.get("add_eos_token", False))
    _wrap(backend, *(named.get(role) if add else None for role, add in zip(kind.ends, adds)))
    return backend


def _model(kind: Kind, paths: list[str], unknown: str) -> models.Model:
    if kind is BERT:
        return models.WordPiece(models.WordPiece.read_file(*paths), unk_token=unknown)
    return models.BPE(
        *models.BPE.read_file(*paths), continuing_subword_prefix="", end_of_word_suffix=""
    )


def _added(
    backend: hf.Tokenizer, folder: Path, settings: Mapping[str, Any], named: Mapping[str, str]
) -> Iterator[tuple[hf.AddedToken, int | None]]:
    """Added tokens in order, with their ids where the files tell, and special tokens. Of several
    with the same content the last counts."""
    listed = settings.get("added_tokens_decoder")
    if not isinstance(listed, Mapping | None):
        raise ValueError(f"added_tokens_decoder in '{folder}' is {listed!r}: it must be an object.")
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
    more = list(more.values() if isinstance(more, dict) else more)
    special = {*named.values(), *map(_content, more)}
    given = {}
    if listed is not None:
        given = {int(i): _token(token) for i, token in listed.items()}
    elif (folder / ADDED).is_file():
        ids = read_json(folder / ADDED)
        given = {i: _token(name, name in special) for name, i in ids.items()}
    yield from ((given[i], i) for i in sorted(given))
    seen = {token.content for token in given.values()}
    in_order = [*(role for role in ROLES if role in named), *(named.keys() - set(ROLES))]
    # The model may have no vector for the token of a role, such as a mask: then it is left out.
    in_order = [r for r in in_order if backend.token_to_id(named[r]) is not None]
    if getattr(backend.model, "end_of_word_suffix", None) == "</w>" and PAD in in_order:
        in_order.remove(PAD)  # CLIP's may be "!", which its texts have too
    tokens = [*(settings.get(role, named[role]) for role in in_order), *more]
    for i, token in enumerate(tokens):
        if _content(token) not in seen and token not in tokens[:i]:
            yield _token(token), None


def _token(token: str | Mapping[str, Any], special: bool = True) -> hf.AddedToken:
    if isinstance(token, str):
        return hf.AddedToken(token, special=special, normalized=not special)
    fields = dict(token) if isinstance(token, Mapping) else {}
    if not isinstance(fields.get("content"), str):
        raise ValueError(f"The tokenizer's files list {token!r}, which is not a token.")
    known = ("content", "special", "normalized", "lstrip", "rstrip", "single_word")
    return hf.AddedToken(**{"special": special, **{k: fields[k] for k in known if k in fields}})


def _add(backend: hf.Tokenizer, token: hf.AddedToken, i: int | None, folder: Path) -> None:
    """Add a token; raise ValueError if it gets another id than `i`; None: any."""
    backend.add_tokens([token])
    found = backend.token_to_id(token.content)
    if i not in (None, found):
        raise ValueError(
            f"The added token '{token.content}' in '{folder}' has the id {i}, and the vocabulary "
            f"gives it {found}: the tokenizer's files are from different models."
        )


def _wrap(backend: hf.Tokenizer, first: str | None, last: str | None) -> None:
    """Set the special tokens around a text, if the vocabulary has them."""
    before, after = ([] if name is None else [name] for name in (first, last))
    ids = [(name, backend.token_to_id(name)) for name in (*before, *after)]
    if all(i is not None for _, i in ids):
        backend.post_processor = TemplateProcessing(
            single=[*before, "$A", *after], special_tokens=list(dict(ids).items())
        )


def adapt(
    backend: hf.Tokenizer, folder: Path, kind: Kind | None, settings: Mapping[str, Any]
) -> None:
    """Change a tokenizer read from tokenizer.json by the other files and its class.

    Steps of other kinds than the class makes are kept, such as digits taken apart before GPT-2's
    words: the model was trained with them. (transformers 4 keeps them too, 5.23 drops them.) Only
    what differs is set: the fingerprint of an equal tokenizer stays the same.

    Raises:
      ValueError: as `build`.
    """
    if kind is not None and type(backend.model).__name__ != kind.model:
        kind = None
    named = roles(kind, settings)
    there = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token, i in list(_added(backend, folder, settings, named)):
        if token.content not in there:
            known = backend.token_to_id(token.content)
            _add(backend, token, i if known is None else None, folder)
    if kind is BERT:
        unknown = roles(None, settings).get("unk_token")
        other = unknown not in (None, backend.model.unk_token)
        if other and backend.token_to_id(unknown) is not None:
            backend.model.unk_token = unknown
        wanted = _bert_normalizer(settings)
        usual = isinstance(backend.normalizer, normalizers.BertNormalizer | None)
        if usual and _state(backend.normalizer) != _state(wanted):
            backend.normalizer = wanted
    usual = isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel)
    if kind in (ROBERTA, GPT2) and usual:
        backend.pre_tokenizer.add_prefix_space = bool(settings.get("add_prefix_space", False))
    if kind in (BERT, ROBERTA):
        ends = [named.get(role) for role in kind.ends]
        if backend.encode("").tokens != ends:
            _wrap(backend, *ends)


def _bert_normalizer(settings: Mapping[str, Any]) -> normalizers.Normalizer:
    defaults = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    given = {k: settings[k] for k in defaults if settings.get(k) is not None}
    wrong = [f"{k} {x!r}" for k, x in given.items() if not isinstance(x, bool)]
    if wrong:
        raise ValueError(f"tokenizer_config.json has {wrong[0]}: it must be true or false.")
    lowercase, accents, chinese = (defaults | given).values()
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese,
        strip_accents=accents,  # None: where lowercased
        lowercase=lowercase,
    )


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())
