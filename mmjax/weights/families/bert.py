"""BERT and RoBERTa, with a head for classes or without, and sentence-transformers built on them,
such as MiniLM."""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.bert import BERT
from mmjax.models.encoder import BertEncoder
from mmjax.models.text_encoder import TextEncoder
from mmjax.weights import encoder_config, published, sentences
from mmjax.weights.layouts import Row, linear, merge_heads, norm, qkv, same
from mmjax.weights.published import Published

SYSTEM = "text_encoder"
# Position ids in older files, the pretraining heads, and a pooler that a head does not use.
IGNORED = (r"embeddings\.(position|token_type)_ids", r"(cls|lm_head)\..*", r"pooler\..*")

# Settings that config.json may omit: defaults of BertConfig and, where they differ, RobertaConfig.
SETTINGS = {
    **encoder_config.DEFAULTS,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
ROBERTA = {"vocab_size": 50265, "pad_token_id": 1}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: models with a head have a prefix, and the oldest files have
    other names for the parameters of norms."""
    name = re.sub(r"^(bert|roberta)\.", "", name)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name).replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the tensors of sentence-transformers' Dense modules; no notes."""
    return found._replace(tensors=sentences.tensors(found.folder, found.tensors)), []


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    shapes, fields = found.tensors.shapes, {}
    is_bert = found.config["model_type"] == "bert"
    defaults = SETTINGS if is_bert else SETTINGS | ROBERTA
    settings = published.settings(found.config, defaults, found.folder / published.CONFIG)
    head = _head(found)
    if not is_bert:
        fields["position_pad"] = settings["pad_token_id"]
    if head and head["classify"] == "text":
        fields |= {"pooler": True, "pool": "pooler"}
    else:
        pooler = not head and "pooler.dense.weight" in shapes
        pool = None if head else sentences.pool(found.folder)
        fields |= {"pooler": pooler, "pool": pool or ("pooler" if pooler else "cls")}
    text = tower_fields(settings, "config.json") | fields
    if not is_bert:
        text["length"] -= fields["position_pad"] + 1
    if maps := [] if head else sentences.dense(found.folder):
        text["dense"] = maps
    return {"name": "text_encoder", "text": text, **head}


def _head(found: Published) -> dict[str, Any]:
    """The fields of a `TextEncoder` with a head; {} without one.

    A text has one more map in front of the head: BERT's pooler, or RoBERTa's own. What a BERT
    classifies that has the pooler and a head is written in `architectures` alone.
    """
    shapes, architecture = found.tensors.shapes, str(found.config.get("architectures"))
    texts = "classifier.out_proj.weight" in shapes or (
        "pooler.dense.weight" in shapes and "TokenClassification" not in architecture
    )
    name = "classifier.out_proj.weight"
    name = name if name in shapes else "classifier.weight"
    if name not in shapes:
        return {}
    return {"num_classes": shapes[name][0], "classify": "text" if texts else "tokens"}


def tower_fields(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of `BERT` from config.json, or from a tower's section of it, with defaults.

    Raises:
      ValueError: settings that our model does not support.
    """
    if settings["is_decoder"] or settings["position_embedding_type"] != "absolute":
        raise ValueError(
            f"{where} describes a BERT with is_decoder {settings['is_decoder']} and "
            f"position_embedding_type '{settings['position_embedding_type']}'; only encoders with "
            "'absolute' positions can be loaded."
        )
    return {
        **encoder_config.read(settings, where),
        "vocab_size": settings["vocab_size"],
        "length": settings["max_position_embeddings"],
        "segments": settings["type_vocab_size"],
    }


def text_length(found: Published) -> int | None:
    """Maximum tokens of a text as sentence-transformers truncates it; None: as many as fit."""
    return sentences.text_length(found.folder)


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer of the folder, with the default prompt of sentence-transformers."""
    return sentences.read_tokenizer(found.folder)


def prompts(found: Published) -> dict[str, str]:
    """The prompts of sentence-transformers by name."""
    return sentences.prompts(found.folder)


def rows(model: TextEncoder) -> list[Row]:
    """The rename table of a model."""
    text = model.text_tower(parent=None)
    if model.num_classes is None:
        return tower_rows("text", "", text)
    if text.position_pad is None or model.classify == "tokens":
        return [*tower_rows("text", "", text), *linear("head", "classifier")]
    return [
        *tower_rows("text", "", text, pooler="classifier.dense"),
        *linear("head", "classifier.out_proj"),
    ]


def published_name(name: str, model: TextEncoder) -> str:
    """The name of a tensor in the files: of a model with a head, the encoder's have a prefix."""
    if model.num_classes is None or name.startswith("classifier."):
        return name
    return f"{_kind(model.text_tower(parent=None))}.{name}"


def tower_rows(ours: str, theirs: str, text: BERT, pooler: str = "pooler.dense") -> list[Row]:
    """The rename table of a tower whose tensors have the prefix `theirs`."""
    embeddings, layer = f"{theirs}embeddings", f"{theirs}encoder.layer.{{i}}"
    attention = f"{layer}.attention"
    block = f"{ours}/encoder/layers"
    return [
        *same(f"{ours}/embedding", f"{embeddings}.word_embeddings.weight"),
        *same(f"{ours}/position/table", f"{embeddings}.position_embeddings.weight"),
        *same(f"{ours}/segment_embedding", f"{embeddings}.token_type_embeddings.weight"),
        *norm(f"{ours}/norm_embedding", f"{embeddings}.LayerNorm"),
        *_dense_rows(ours, text),
        *qkv(
            f"{block}/attention/qkv",
            [f"{attention}.self.{name}" for name in ("query", "key", "value")],
            text.heads,
        ),
        *merge_heads(f"{block}/attention/out", f"{attention}.output.dense", text.heads),
        *norm(f"{block}/norm_attention", f"{attention}.output.LayerNorm"),
        *linear(f"{block}/mlp/up", f"{layer}.intermediate.dense"),
        *linear(f"{block}/mlp/down", f"{layer}.output.dense"),
        *norm(f"{block}/norm_mlp", f"{layer}.output.LayerNorm"),
        *(linear(f"{ours}/pooler", f"{theirs}{pooler}") if text.pooler else ()),
    ]


def _dense_rows(ours: str, text: BERT) -> list[Row]:
    """The maps after the pooling, each in its own folder of sentence-transformers."""
    table = []
    for i, (_, _, bias) in enumerate(text.dense):
        table += linear(f"{ours}/dense_{i}", f"{sentences.dense_place(i)}/linear", bias)
    return table


def published_config(model: TextEncoder) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: a head that a published BERT cannot have.
    """
    text = model.text_tower(parent=None)
    pad, kind = text.position_pad, _kind(text)
    heads = {"text": "ForSequenceClassification", "tokens": "ForTokenClassification"}
    head = "Model" if model.num_classes is None else heads[model.classify]
    if head == heads["text"]:
        published.check_settings(kind, {"text.pool with a head": (text.pool, "pooler")})
    return {
        "model_type": kind,
        "architectures": [f"{kind.capitalize()}{head}"],
        **published_tower(text),
        "max_position_embeddings": text.length + (0 if pad is None else pad + 1),
        "pad_token_id": 0 if pad is None else pad,
    }


def _kind(text: BERT) -> str:
    return "bert" if text.position_pad is None else "roberta"


def published_tower(text: BERT) -> dict[str, Any]:
    """A tower's section of config.json; the inverse of `tower_fields`."""
    return {**published_text(text), "type_vocab_size": text.segments}


def published_text(text: BertEncoder) -> dict[str, Any]:
    """What config.json, or a section of it, has of every encoder of texts."""
    return {
        **encoder_config.write(text),
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.length,
    }


def plain(text: BERT, **settings: tuple[Any, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings and their values in the text tower of a published dual encoder, for
    `published.check_settings`; `settings` are further settings."""
    return {
        "text.pool": (text.pool, "cls"),
        "text.position_pad": (text.position_pad, None),
        "text.dense": (tuple(text.dense), ()),
        **settings,
    }


def published_files(pretrained: Any) -> dict[str, Any]:
    """Further files of sentence-transformers, for a model with one of its poolings."""
    text = pretrained.model.text_tower(parent=None)
    if text.pool == "pooler" or pretrained.model.num_classes is not None:
        return {}
    words = pretrained.tokenizer
    return sentences.files(
        text,
        pretrained.text_length,
        pretrained.prompts,
        words.prefix if words is not None else "",
    )
