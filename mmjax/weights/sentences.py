"""The files of sentence-transformers beside a published encoder: pooling, maps, length, prompts.

Source: sentence-transformers 6.2: base/model.py, base/modules/transformer.py,
sentence_transformer/modules/pooling.py.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.bert import BERT
from mmjax.weights import tokenizer
from mmjax.weights.published import CONFIG, read_json
from mmjax.weights.tensor_file import Files, Safetensors, Tensors

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
# Settings of the encoder and its tokenizer: the first of these files that is there and not empty.
SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Our poolings by the mode in the Pooling module's config.json, and its older name there, a flag.
POOLS = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "end",
}
EMBEDDING = "sentence_embedding"  # what Pooling gives
# Class in torch.nn -> our name and its module there.
ACTIVATIONS = {
    "Tanh": ("tanh", "activation"),
    "Identity": ("identity", "linear"),
    "ReLU": ("relu", "activation"),
    "Sigmoid": ("sigmoid", "activation"),
}
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def encoder_folder(folder: Path) -> Path:
    """Where the encoder's config.json is: in older models a folder such as 0_Transformer."""
    if not (folder / MODULES).is_file():
        return folder
    inner = folder / next((path for path, _ in _modules(folder)), "")
    return inner if (inner / CONFIG).is_file() else folder


def _modules(root: Path) -> list[tuple[str, str]]:
    """(path, type) of each module, where the type is a class name alone."""
    modules = read_json(root / MODULES, list)
    if not all(isinstance(m, dict) and isinstance(m.get("type"), str) for m in modules):
        raise ValueError(f"'{root / MODULES}' is not a list of modules with types: get it again.")
    for path in (str(m.get("path", "")) for m in modules):
        if not re.fullmatch(r"[\w.-]{0,100}", path) or path == "..":
            raise ValueError(f"'{root / MODULES}' has the path {path!r}: not a folder.")
    return [(str(m.get("path", "")), m["type"].rsplit(".", 1)[-1]) for m in modules]


def _root(folder: Path) -> Path | None:
    """The folder of modules.json for that of an encoder; None: it is not one of such a model."""
    for place in (folder, folder.resolve().parent):
        if (place / MODULES).is_file() and encoder_folder(place).resolve() == folder.resolve():
            return place
    return None


def pool(folder: Path) -> str | None:
    """The pooling of a sentence-transformers model; None for other folders.

    Args:
      folder: of the encoder, here and below.

    Raises:
      ValueError: a pooling, or further modules, that are not supported.
    """
    settings = _pooling(folder)
    if settings is None:
        return None
    modes = settings.get("pooling_mode") or [k for k, f in FLAGS.items() if settings.get(f)]
    modes = [modes] if isinstance(modes, str) else modes or ["mean"]
    if len(modes) > 1 or modes[0] not in POOLS:
        raise ValueError(
            f"'{folder}' pools its tokens by '{'+'.join(map(str, modes))}'; one of "
            f"{', '.join(POOLS)} can be loaded."
        )
    if default_prompt(folder) and not settings.get("include_prompt", True):
        raise ValueError(
            f"'{folder}' has a default prompt that its pooling leaves out (include_prompt false), "
            "which cannot be loaded."
        )
    return POOLS[modes[0]]


def _pooling(folder: Path) -> dict[str, Any] | None:
    """The settings of the Pooling module; None for a folder without modules."""
    root = _root(folder)
    if root is None:
        return None
    paths = {kind: path for path, kind in _modules(root)}
    kinds = [kind for _, kind in _modules(root) if kind != "Dropout"]  # it is for training
    dense = ["Dense"] * kinds.count("Dense")
    if kinds not in (whole := ["Transformer", "Pooling", *dense, "Normalize"], whole[:-1]):
        raise ValueError(
            f"'{root / MODULES}' has the modules {', '.join(kinds)}; Transformer, Pooling, any "
            "number of Dense, and Normalize or not, in this order, can be loaded."
        )
    return read_json(root / paths["Pooling"] / CONFIG)


def dense(folder: Path) -> list[tuple[int, str, bool]]:
    """The Dense modules as fields of `BERT`.

    Raises:
      ValueError: settings that are not supported.
    """
    return [_dense(path) for path in _dense_folders(folder)]


def _dense_folders(folder: Path) -> list[Path]:
    root = _root(folder)
    return [] if root is None else [root / p for p, kind in _modules(root) if kind == "Dense"]


def _dense(folder: Path) -> tuple[int, str, bool]:
    settings = {"activation_function": "Tanh", "bias": True, **read_json(folder / CONFIG)}
    activation = str(settings["activation_function"]).rsplit(".", 1)[-1]
    width, named = settings.get("out_features"), settings.get("module_input_name", EMBEDDING)
    if (
        activation not in ACTIVATIONS
        or not isinstance(width, int)
        or settings.get("use_residual")
        or {named, settings.get("module_output_name") or named} != {EMBEDDING}
    ):
        raise ValueError(
            f"'{folder / CONFIG}' describes {settings}; a Dense module of {EMBEDDING} without a "
            f"residual and with one of {', '.join(ACTIVATIONS)} can be loaded."
        )
    return width, ACTIVATIONS[activation][0], bool(settings["bias"])


def dense_place(i: int) -> str:
    """The folder of our i-th Dense module."""
    return f"{2 + i}_Dense"


def tensors(folder: Path, encoder: Tensors) -> Tensors:
    """The tensors of the encoder, and of the Dense modules under the names of our folders."""
    parts = {
        f"{dense_place(i)}/": Safetensors(path) for i, path in enumerate(_dense_folders(folder))
    }
    return Files({"": encoder, **parts}) if parts else encoder


def prompts(folder: Path) -> dict[str, str]:
    """Prompts by name, which sentence-transformers puts before texts on request; {}: none."""
    return _prompts(folder)[0]


def default_prompt(folder: Path) -> str:
    """What sentence-transformers puts before every text.

    Raises:
      ValueError: the name of a prompt that is not there.
    """
    named, default = _prompts(folder)
    if default is not None and default not in named:
        raise ValueError(
            f"{PROMPTS} of '{folder}' has the default_prompt_name '{default}' and no such prompt; "
            f"there are {', '.join(named) or 'none'}."
        )
    return named.get(default, "")


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    root = _root(folder)
    if root is None or not (root / PROMPTS).is_file():
        return {}, None
    settings = read_json(root / PROMPTS)
    given = settings.get("prompts") or {}
    if not isinstance(given, dict) or not all(isinstance(x, str | None) for x in given.values()):
        raise ValueError(f"'{root / PROMPTS}' has prompts {given!r}: they must be texts by name.")
    given = {k: x for k, x in given.items() if x is not None}
    # These two are always there, empty.
    return {"query": "", "document": "", **given}, settings.get("default_prompt_name")


def _settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the encoder, and those that replace the tokenizer's own; {} where there is no
    modules.json, without which sentence-transformers does not read them."""
    if _root(folder) is None:
        return {}, {}
    files = (read_json(folder / name) for name in SETTINGS if (folder / name).is_file())
    settings = next(filter(None, files), {})
    given = settings.get("tokenizer_args", settings.get("processor_kwargs")) or {}
    if not isinstance(given, dict):
        raise ValueError(f"tokenizer_args in '{folder}' is {given!r}: it must be an object.")
    for length in (settings.get("max_seq_length"), given.get("model_max_length")):
        if not isinstance(length, int | None):
            raise ValueError(f"max_seq_length in '{folder}' is {length!r}: it must be a number.")
    return settings, given


def text_length(folder: Path) -> int | None:
    """Maximum tokens of a text: max_seq_length, or else that of the tokenizer; None: no limit."""
    settings, given = _settings(folder)
    for length in (given.get("model_max_length"), settings.get("max_seq_length")):
        if length is not None:
            return length
    return tokenizer.max_length(folder)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer, with do_lower_case of the encoder's settings and the default prompt.

    Raises:
      ValueError: as `tokenizer.read`.
    """
    settings, given = _settings(folder)
    words = tokenizer.read(
        folder, lowercase=bool(settings.get("do_lower_case", False)), given=given
    )
    if words is not None:
        words.prefix = default_prompt(folder)
    return words


def files(text: BERT, length: int | None, named: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """The files of a model with one of our poolings, name -> content; the inverse of the above.

    Args:
      named: prompts by name; prefix: the default prompt.
    """
    paths = {"": "Transformer", "1_Pooling": "Pooling"}
    paths |= {dense_place(i): "Dense" for i in range(len(text.dense))}
    paths[f"{len(paths)}_Normalize"] = "Normalize"
    content: dict[str, Any] = {
        MODULES: [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(paths.items())
        ],
        f"1_Pooling/{CONFIG}": {
            "word_embedding_dimension": text.width,
            **{flag: POOLS[mode] == text.pool for mode, flag in FLAGS.items()},
        },
        SETTINGS[0]: {"max_seq_length": length, "do_lower_case": False},
    }
    inputs = text.width
    for i, (width, ours, bias) in enumerate(text.dense):
        name, where = next((k, where) for k, (x, where) in ACTIVATIONS.items() if x == ours)
        content[f"{dense_place(i)}/{CONFIG}"] = {
            "in_features": inputs,
            "out_features": width,
            "bias": bias,
            "activation_function": f"torch.nn.modules.{where}.{name}",
        }
        inputs = width
    default = next((name for name, text in named.items() if text == prefix), "default")
    if named or prefix:
        content[PROMPTS] = {
            "prompts": {**named, **({default: prefix} if prefix else {})},
            "default_prompt_name": default if prefix else None,
        }
    return content
