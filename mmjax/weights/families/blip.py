"""BLIP's captioner, retrieval model and VQA model (model_type "blip")."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmjax.models.blip import BLIP
from mmjax.models.grounded_encoder import with_shared
from mmjax.models.systems import make_system
from mmjax.models.vit import ViT
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.families import bert, clip, vit
from mmjax.weights.layouts import (
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
from mmjax.weights.published import Published

SYSTEM = "blip"
# Position ids in older files, and tensors that are tied to others.
IGNORED = (r".*\.position_ids", r"text_decoder\.cls\.predictions\.decoder\.(weight|bias)")

# Settings that config.json may omit: defaults of BlipTextConfig, BlipVisionConfig and BlipConfig.
TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "bos_token_id": 30522,
    "sep_token_id": 102,
    "is_decoder": True,
    "tie_word_embeddings": True,
}
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
EMBED_DIM = "image_text_hidden_size"
_WORDS = "embeddings.word_embeddings.weight"
ENCODER, DECODER = f"text_encoder.{_WORDS}", f"text_decoder.bert.{_WORDS}"
_ARCHITECTURES = {  # encoder, decoder
    (False, True): "BlipForConditionalGeneration",
    (True, False): "BlipForImageTextRetrieval",
    (True, True): "BlipForQuestionAnswering",
}


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support, or another model than those three.
    """
    text = published.tower(found, TEXT, "text_config")
    vision = published.tower(found, VISION, "vision_config")
    for name in ("is_decoder", "tie_word_embeddings"):
        if not text[name]:
            raise ValueError(
                f"'{found.folder / published.CONFIG}' has {name} false in text_config; only models "
                "where it is true can be loaded."
            )
    shapes = found.tensors.shapes
    parts = ENCODER in shapes, DECODER in shapes
    if not any(parts):
        raise ValueError(
            f"The model in '{found.folder}' is not one of {', '.join(_ARCHITECTURES.values())}, "
            "which can be loaded."
        )
    images = image_processor.read(found.preprocessor)
    config = {
        "name": "blip",
        "image": {
            **encoder_config.read(vision, "vision_config"),
            **published.image_sides(vision, "vision_config"),
            "image_mean": images.mean,
            "image_std": images.std,
            "position_resize": "bicubic",
        },
        "text": {
            **encoder_config.read(text, "text_config"),
            "vocab_size": text["vocab_size"],
            "length": text["max_position_embeddings"],
        },
        "encoder": parts[0],
        "decoder": parts[1],
        "share": False,
    }
    if parts[1]:
        if text["bos_token_id"] >= text["vocab_size"]:
            raise ValueError(
                f"'{found.folder / published.CONFIG}' has bos_token_id {text['bos_token_id']} and "
                f"vocab_size {text['vocab_size']} in text_config: a text begins with a token of "
                "the vocabulary; correct them."
            )
        config |= {"decode_token": text["bos_token_id"], "answers": parts[0]}
    else:
        where = found.folder / published.CONFIG
        settings = published.settings(found.config, {EMBED_DIM: 256}, where)
        config |= {"embed_dim": settings[EMBED_DIM], "fixed_scale": True}
    return config


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("BlipImageProcessor", "vision_config")


def rows(model: BLIP) -> list[Row]:
    """The rename table of a model."""
    heads, table = model.text_encoder(parent=None).heads, image_rows(model.image_tower(parent=None))
    if model.encoder:
        ours = "text_encoder"
        layers = f"{ours}/encoder/layers"
        table += _embedding_rows(f"{ours}/embedding", ours, "text_encoder")
        table += _layer_rows(layers, f"{layers}/cross", "text_encoder", heads)
    if model.embeds:
        table += linear("image_proj", "vision_proj")
        table += linear("text_proj", "text_proj")
        table += linear("match_head", "itm_head")
    if model.decoder:
        ours, head = "text_decoder/decoder", "text_decoder.cls.predictions"
        table += _embedding_rows("text_decoder/embed/embedding", ours, "text_decoder.bert")
        table += _layer_rows(
            f"{ours}/stack/layers", f"{ours}/stack/cross", "text_decoder.bert", heads
        )
        table += linear("text_decoder/head/transform", f"{head}.transform.dense")
        table += norm("text_decoder/head/norm", f"{head}.transform.LayerNorm")
        table += same("text_decoder/head/bias", f"{head}.bias")
    return table


def image_rows(image: ViT) -> list[Row]:
    """The image tower and the norm of its tokens."""
    embeddings, patch = "vision_model.embeddings", image.sizes["patch_size"]
    ours, theirs = "image/transformer/layers", "vision_model.encoder.layers.{i}"
    heads, attention = image.sizes["heads"], f"{theirs}.self_attn"
    return [
        class_and_grid(
            "image/",
            (f"{embeddings}.class_embedding", f"{embeddings}.position_embedding"),
            image.grid,
        ),
        *patches("image/stem/projection", f"{embeddings}.patch_embedding", patch),
        *norm(f"{ours}/norm_attention", f"{theirs}.layer_norm1"),
        *fused_qkv(
            f"{ours}/attention/qkv", f"{attention}.qkv.weight", f"{attention}.qkv.bias", heads
        ),
        *merge_heads(f"{ours}/attention/out", f"{attention}.projection", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layer_norm2"),
        *linear(f"{ours}/mlp/up", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}/mlp/down", f"{theirs}.mlp.fc2"),
        *norm("image_norm", "vision_model.post_layernorm"),
    ]


def _embedding_rows(words: str, ours: str, theirs: str) -> list[Row]:
    """Word and position tables and their norm."""
    embeddings = f"{theirs}.embeddings"
    return [
        *same(words, f"{embeddings}.word_embeddings.weight"),
        *same(f"{ours}/position/table", f"{embeddings}.position_embeddings.weight"),
        *norm(f"{ours}/norm_embedding", f"{embeddings}.LayerNorm"),
    ]


def _layer_rows(ours: str, cross: str, theirs: str, heads: int) -> list[Row]:
    """The layers of a text encoder or decoder."""
    layer = f"{theirs}.encoder.layer.{{i}}"
    own, other = f"{layer}.attention", f"{layer}.crossattention"
    return [
        *qkv(
            f"{ours}/attention/qkv",
            [f"{own}.self.{name}" for name in ("query", "key", "value")],
            heads,
        ),
        *merge_heads(f"{ours}/attention/out", f"{own}.output.dense", heads),
        *norm(f"{ours}/norm_attention", f"{own}.output.LayerNorm"),
        *split_heads(f"{cross}/attention/query", f"{other}.self.query", heads),
        *qkv(
            f"{cross}/attention/key_value", [f"{other}.self.{x}" for x in ("key", "value")], heads
        ),
        *merge_heads(f"{cross}/attention/out", f"{other}.output.dense", heads),
        *norm(f"{cross}/norm_attention", f"{other}.output.LayerNorm"),
        *linear(f"{ours}/mlp/up", f"{layer}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{layer}.output.dense"),
        *norm(f"{ours}/norm_mlp", f"{layer}.output.LayerNorm"),
    ]


def published_config(model: BLIP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published BLIP cannot have.
    """
    image, text = model.image_tower(parent=None), model.text_encoder(parent=None)
    both = model.encoder and model.decoder
    published.check_settings(
        "blip",
        {
            **{f"image.{k}": pair for k, pair in vit.plain(image).items()},
            "image.pool": (image.pool, "all"),
            "image.class_token": (image.class_token, True),
            "share with an encoder and a decoder": (both and model.share, False),
            "answers": (model.answers, both),
            "embed_dim with a decoder": (model.embeds and model.decoder, False),
            "encode_token": (model.encode_token, None),
            "fixed_scale": (model.fixed_scale, model.embeds),
            "image.width and text.width where answers are generated": (
                both and image.sizes["width"] != text.width,
                False,
            ),
        },
    )
    config = {
        "model_type": "blip",
        "architectures": [_ARCHITECTURES[model.encoder, model.decoder]],
        "vision_config": {**clip.published_image(image), "model_type": "blip_vision_model"},
        "text_config": {
            "model_type": "blip_text_model",
            **bert.published_text(text),
            "encoder_hidden_size": image.sizes["width"],
        },
    }
    return config | ({EMBED_DIM: model.embed_dim} if model.embeds else {})


def captioner(pretrained: Any) -> Any:
    """The captioner in a pretrained BLIP, which has an encoder too, as a `Pretrained` to save."""
    return _part(pretrained, {"encoder": False, "embed_dim": None, "encode_token": None})


def retrieval(pretrained: Any) -> Any:
    """The retrieval model in a pretrained BLIP, which has a decoder too, as a `Pretrained` to save.

    It keeps encode_token, which published models do not have.
    """
    return _part(pretrained, {"decoder": False, "decode_token": None, "fixed_scale": True})


def _part(pretrained: Any, changes: Mapping[str, Any]) -> Any:
    """A model with other settings, and those of the parameters that it has."""
    config = {**pretrained.config, "share": False, **changes}
    model, params = make_system({"model": config}).model, dict(pretrained.params)
    if model.decoder and pretrained.model.share:
        params["text_decoder"] = with_shared(params["text_decoder"], params["text_encoder"])
    left_out = {"logit_scale"}
    if not model.encoder:
        left_out |= {"text_encoder", "image_proj", "text_proj", "match_head"}
    if not model.decoder:
        left_out |= {"text_decoder"}
    params = {name: x for name, x in params.items() if name not in left_out}
    return dataclasses.replace(pretrained, config=config, model=model, params=params, memory={})


def complete_config(config: dict[str, Any], pretrained: Any) -> dict[str, Any]:
    """config.json with special tokens: a text to generate begins with bos_token_id and ends with
    sep_token_id."""
    words, ids = pretrained.tokenizer, dict(pretrained.kept)
    if words is not None:
        ids |= {"pad_token_id": words.pad_id, "sep_token_id": words.eos_id}
    if pretrained.model.decode_token is not None:
        ids["bos_token_id"] = pretrained.model.decode_token
    elif words is not None and words.bos_id is not None:
        ids.setdefault("bos_token_id", words.bos_id)
    return config | {"text_config": {**config["text_config"], **ids}}


def published_preprocessor(model: BLIP, transform: str) -> Mapping[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    return image_processor.write(model.image_tower(parent=None), transform, "BlipImageProcessor")
