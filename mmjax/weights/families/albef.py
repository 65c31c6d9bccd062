"""ALBEF under the names of the original code (salesforce/ALBEF), which LAVIS has kept.

Its checkpoints are pickles, and hold no settings. A folder of ours has

    config.json         {"model_type": "albef"}, the settings of configs/Pretrain.yaml (`image_res`,
                        `vision_width`, `embed_dim`, ...), and `bert_config`: the content of
                        configs/config_bert.json
    model.safetensors   the checkpoint's "model", saved by safetensors' save_file
    tokenizer           the files of bert-base-uncased

What the original fixes in code may be given in config.json too: `patch_size`, `vision_depth`,
`vision_heads`, `vision_mlp_dim`, `image_mean`, `image_std` and `mask_token_id`. Pretraining
checkpoints are read, and those fine-tuned for retrieval, which have no word head; momentum copies
and queues are not.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.text.clean_caption import clean_caption
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.albef import ALBEF
from mmjax.models.vit import ViT
from mmjax.weights import published, schema, tokenizer
from mmjax.weights.families import bert, vit
from mmjax.weights.image_defaults import CLIP_MEAN, CLIP_STD
from mmjax.weights.image_processor import channels
from mmjax.weights.layouts import (
    Arrays,
    Joined,
    Row,
    class_and_grid,
    fused_qkv,
    linear,
    merge_heads,
    norm,
    patches,
    qkv,
    same,
    split_heads,
)
from mmjax.weights.published import CONFIG, Published
from mmjax.weights.tensor_file import Renamed

SYSTEM = "albef"
# Momentum copies, queues, position ids, and the word head's table, which is that of the words.
IGNORED = (
    r"(visual_encoder|text_encoder|vision_proj|text_proj)_m\..*",
    r"(image|text|idx)_queue|queue_ptr",
    r"text_encoder\.embeddings\.position_ids",
    r"text_encoder\.cls\.predictions\.decoder\.(weight|bias)",
)
# Of configs/Pretrain.yaml, and what the original fixes in code.
SETTINGS = {
    "image_res": 256,
    "vision_width": 768,
    "embed_dim": 256,
    "patch_size": 16,
    "vision_depth": 12,
    "vision_heads": 12,
    "vision_mlp_dim": schema.Maybe(1),  # 4 times the width
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "mask_token_id": 103,
}
BERT = bert.SETTINGS | {"fusion_layer": 6}
TEXT_LENGTH = 30  # Retrieval.py; pretraining has 25
_WORDS = "text_encoder.cls.predictions.bias"
_LAYER = re.compile(r"text_encoder\.encoder\.layer\.(\d+)\.")


def canonical(name: str) -> str:
    """The name of a tensor where the text encoder has no head for words."""
    return name.replace("text_encoder.bert.", "text_encoder.", 1)


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the layers of the fusion encoder numbered from 0; no notes."""
    first = _bert(found)["fusion_layer"]

    def rename(name: str) -> str:
        layer = _LAYER.match(name)
        if layer is None or int(layer[1]) < first:
            return name
        return f"text_encoder.fusion.layer.{int(layer[1]) - first}.{name[layer.end() :]}"

    return found._replace(tensors=Renamed(found.tensors, rename)), []


def published_name(name: str, model: ALBEF) -> str:
    """The inverse of `prepare` and `canonical`."""
    text = model.text_tower(parent=None)
    first = text.depth - text.fusion_depth
    name = re.sub(
        r"\.fusion\.layer\.(\d+)", lambda found: f".encoder.layer.{int(found[1]) + first}", name
    )
    inner = text.mask_token is not None and not name.startswith("text_encoder.cls.")
    return name.replace("text_encoder.", "text_encoder.bert.", 1) if inner else name


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    path, settings = found.folder / CONFIG, _settings(found)
    text, shapes = _bert(found), found.tensors.shapes
    segments = shapes.get("text_encoder.embeddings.token_type_embeddings.weight", (0,))[0]
    width = text.get("encoder_width", settings["vision_width"])
    if width != settings["vision_width"]:
        raise ValueError(
            f"'{path}' has vision_width {settings['vision_width']} and bert_config.encoder_width "
            f"{width}: the text attends to images of one width; correct them."
        )
    words = _WORDS in shapes
    return {
        "name": "albef",
        "embed_dim": settings["embed_dim"],
        "image": image_fields(settings),
        "text": {
            **bert.tower_fields(text, f"{path}: bert_config"),
            "segments": segments,
            "fusion_depth": text["num_hidden_layers"] - text["fusion_layer"],
            "mask_token": settings["mask_token_id"] if words else None,
        },
    }


def image_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model.image` of the settings of the image encoder."""
    return {
        "width": settings["vision_width"],
        "depth": settings["vision_depth"],
        "heads": settings["vision_heads"],
        "mlp_dim": settings["vision_mlp_dim"] or 4 * settings["vision_width"],
        "patch_size": settings["patch_size"],
        "image_size": settings["image_res"],
        "image_mean": _channels(settings, "image_mean"),
        "image_std": _channels(settings, "image_std"),
        "position_resize": "bicubic",
    }


def _settings(found: Published) -> dict[str, Any]:
    return published.settings(found.config, SETTINGS, found.folder / CONFIG)


def _channels(settings: Mapping[str, Any], name: str) -> tuple[float, ...]:
    return tuple(channels(settings[name], name).tolist())


def _bert(found: Published) -> dict[str, Any]:
    return published.tower(found, BERT, "bert_config")


def transform(found: Published) -> str:
    """The images of the original's evaluation: squashed to a square (dataset/__init__.py)."""
    size = _settings(found)["image_res"]
    return f"decode | resize(({size}, {size}), 'bicubic')"


def read_tokenizer(found: Published) -> Tokenizer | None:
    """BERT's tokenizer, of texts cleaned as in the original.

    Raises:
      ValueError: damaged files.
    """
    words = tokenizer.read(found.folder)
    if words is not None and tokenizer.CLEANING not in tokenizer.settings_of(found.folder):
        words.clean = clean_caption
    return words


def text_length(found: Published) -> int:
    """Maximum tokens of a text in the original's retrieval."""
    return TEXT_LENGTH


def rows(model: ALBEF) -> list[Row]:
    """The rename table of a model."""
    text, embeddings = model.text_tower(parent=None), "text_encoder.embeddings"
    table = [
        *image_rows(model.image_tower(parent=None)),
        *linear("image_proj", "vision_proj"),
        *linear("text_proj", "text_proj"),
        *linear("match_head", "itm_head"),
        *same("temperature", "temp"),
        *same("text/embed/embedding", f"{embeddings}.word_embeddings.weight"),
        *same("text/embed/position/table", f"{embeddings}.position_embeddings.weight"),
        *norm("text/embed/norm_embedding", f"{embeddings}.LayerNorm"),
        *layer_rows("text/encoder/layers", "text_encoder.encoder.layer.{i}", text.heads),
        *layer_rows("text/fusion/layers", "text_encoder.fusion.layer.{i}", text.heads),
        *_cross("text/fusion/layers/cross", "text_encoder.fusion.layer.{i}", text.heads),
    ]
    if text.segments:
        table += same("text/embed/segment_embedding", f"{embeddings}.token_type_embeddings.weight")
    if text.mask_token is not None:
        head, ours = "text_encoder.cls.predictions", "text/word_head"
        table += linear(f"{ours}/transform", f"{head}.transform.dense")
        table += norm(f"{ours}/norm", f"{head}.transform.LayerNorm")
        table += same(f"{ours}/bias", f"{head}.bias")
    return table


def image_rows(image: ViT) -> list[Row]:
    """The image encoder and the norm of its tokens, as timm names them."""
    ours, theirs = "image/transformer/layers", "visual_encoder.blocks.{i}"
    heads, patch = image.sizes["heads"], image.sizes["patch_size"]
    return [
        *patches("image/stem/projection", "visual_encoder.patch_embed.proj", patch),
        class_and_grid(
            "image/", ("visual_encoder.cls_token", "visual_encoder.pos_embed"), image.grid
        ),
        *norm(f"{ours}/norm_attention", f"{theirs}.norm1"),
        *fused_qkv(
            f"{ours}/attention/qkv", f"{theirs}.attn.qkv.weight", f"{theirs}.attn.qkv.bias", heads
        ),
        *merge_heads(f"{ours}/attention/out", f"{theirs}.attn.proj", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.norm2"),
        *linear(f"{ours}/mlp/up", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}/mlp/down", f"{theirs}.mlp.fc2"),
        *norm("image_norm", "visual_encoder.norm"),
    ]


def layer_rows(ours: str, theirs: str, heads: int) -> list[Row]:
    """A layer of BERT."""
    attention = f"{theirs}.attention"
    names = [f"{attention}.self.{name}" for name in ("query", "key", "value")]
    return [
        *qkv(f"{ours}/attention/qkv", names, heads),
        *merge_heads(f"{ours}/attention/out", f"{attention}.output.dense", heads),
        *norm(f"{ours}/norm_attention", f"{attention}.output.LayerNorm"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        *norm(f"{ours}/norm_mlp", f"{theirs}.output.LayerNorm"),
    ]


def _cross(ours: str, theirs: str, heads: int) -> list[Row]:
    """The cross-attention of a layer."""
    theirs = f"{theirs}.crossattention"
    return [
        *split_heads(f"{ours}/attention/query", f"{theirs}.self.query", heads),
        *key_value(f"{ours}/attention/key_value", f"{theirs}.self", heads),
        *merge_heads(f"{ours}/attention/out", f"{theirs}.output.dense", heads),
        *norm(f"{ours}/norm_attention", f"{theirs}.output.LayerNorm"),
    ]


def key_value(ours: str, theirs: str, heads: int) -> list[Row]:
    """Keys and values of a context of any width, in one of our parameters."""

    def read(*parts) -> Arrays:
        return (Joined([x.T.reshape(x.shape[1], 1, heads, -1) for x in parts], axis=1),)

    def write(x) -> Arrays:
        return tuple(x[:, i].reshape(len(x), -1).T for i in range(2))

    def read_bias(*parts) -> Arrays:
        return (np.stack(parts).reshape(2, heads, -1),)

    def write_bias(x) -> Arrays:
        return tuple(x.reshape(2, -1))

    weights, biases = (
        tuple(f"{theirs}.{name}.{kind}" for name in ("key", "value")) for kind in ("weight", "bias")
    )
    return [
        Row((f"{ours}/kernel",), weights, read, write),
        Row((f"{ours}/bias",), biases, read_bias, write_bias),
    ]


def published_config(model: ALBEF) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that the original's model cannot have.
    """
    image, text = model.image_tower(parent=None), model.text_tower(parent=None)
    check_image("albef", image)
    mask = {} if text.mask_token is None else {"mask_token_id": text.mask_token}
    segments = {"type_vocab_size": text.segments} if text.segments else {}
    return {
        "model_type": "albef",
        "embed_dim": model.embed_dim,
        **published_image(image),
        **mask,
        "bert_config": {
            **bert.published_text(text),
            **segments,
            "fusion_layer": text.depth - text.fusion_depth,
            "encoder_width": image.sizes["width"],
        },
    }


def check_image(family: str, image: ViT) -> None:
    """Raise ValueError for an image encoder that the original cannot have."""
    published.check_settings(
        family,
        {
            **{f"image.{name}": pair for name, pair in vit.plain(image).items()},
            "image.activation": (image.activation, "gelu"),
            "image.norm_epsilon": (image.norm_epsilon, 1e-6),
            "image.class_token": (image.class_token, True),
        },
    )


def published_image(image: ViT) -> dict[str, Any]:
    """The inverse of `image_fields`."""
    sizes = image.sizes
    return {
        "image_res": image.train_size[0],
        "vision_width": sizes["width"],
        "patch_size": sizes["patch_size"],
        "vision_depth": sizes["depth"],
        "vision_heads": sizes["heads"],
        "vision_mlp_dim": sizes["mlp_dim"],
        "image_mean": list(image.image_mean),
        "image_std": list(image.image_std),
    }
