"""FLAVA, with the heads of pretraining and the image codebook or without (model_type "flava")."""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.data.transforms import chain
from mmjax.models.flava import FLAVA
from mmjax.models.flava_encoders import MultimodalEncoder, TextEncoder
from mmjax.models.image_codebook import DVAEEncoder
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.families import clip, flava_codebook, vit
from mmjax.weights.layouts import (
    Row,
    linear,
    merge_heads,
    norm,
    patches,
    qkv,
    reshaped,
    same,
)
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of the configs of transformers' FLAVA.
_TOWER = {**encoder_config.DEFAULTS, "qkv_bias": True}
IMAGE = {**_TOWER, "image_size": 224, "patch_size": 16, "mask_token": True, "vocab_size": 8192}
TEXT = {
    **_TOWER,
    "vocab_size": 30522,
    "type_vocab_size": 2,
    "max_position_embeddings": 512,
}
MULTIMODAL = {**_TOWER, "num_hidden_layers": 6, "use_cls_token": True}
CODEBOOK = "image_codebook."
DVAE = DVAEEncoder.__name__
# Our heads, and theirs.
HEADS = {
    "masked_image_head": "mim_head",
    "masked_text_head": "mlm_head",
    "multimodal_image_head": "mmm_image_head",
    "multimodal_text_head": "mmm_text_head",
}
SYSTEM = "flava"
# Position ids, and a second name of the heads' biases, in older files.
IGNORED = (r"text_model\.embeddings\.(position|token_type)_ids", r"(mim|mlm|mmm_\w+)_head\.bias")


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: without the prefix in a model with heads."""
    return name.removeprefix("flava.")


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with all settings of its image processor, and notes for the report."""
    return image_processor.complete(found, flava_codebook.SOURCE)


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    image, text, multimodal = (
        # The first repositories have the values under "<name>_config_dict".
        published.tower(found, defaults, f"{name}_config", f"{name}_config_dict")
        for name, defaults in (("image", IMAGE), ("text", TEXT), ("multimodal", MULTIMODAL))
    )
    images = image_processor.read(found.preprocessor)
    heads = any(name.startswith("mim_head.") for name in found.tensors.shapes)
    config = {
        "name": "flava",
        "embed_dim": clip.embed_dim(found, 768),
        "image": {
            **_fields(image, "image_config"),
            **published.image_sides(image, "image_config"),
            "image_mean": images.mean,
            "image_std": images.std,
            "mask_token": image["mask_token"],
            "position_resize": "bicubic",
        },
        "text": {
            **_fields(text, "text_config"),
            "vocab_size": text["vocab_size"],
            "length": text["max_position_embeddings"],
            "segments": text["type_vocab_size"],
        },
        "multimodal": {
            **_fields(multimodal, "multimodal_config"),
            "class_token": multimodal["use_cls_token"],
        },
        "codebook_size": image["vocab_size"],
        "heads": heads,
        "pooler": True,
    }
    if _has_codebook(found):
        path = found.folder / published.CONFIG
        section = published.section(found.config, "image_codebook_config", path)
        where = f"{path}: image_codebook_config"
        config["codebook"] = {"kind": "dvae", **flava_codebook.fields(found, section, where)}
    return config


def _has_codebook(found: Published) -> bool:
    return any(name.startswith(CODEBOOK) for name in found.tensors.shapes)


def _fields(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields that the three encoders share."""
    return {**encoder_config.read(settings, where), "qkv_bias": settings["qkv_bias"]}


def transform(found: Published) -> str:
    """The chain of transforms up to uint8 pixels; with a codebook, also up to its own."""
    steps = image_processor.read(found.preprocessor).transform
    if not _has_codebook(found):
        return steps
    size, method = flava_codebook.size(found)
    return steps.replace("decode", f"decode | codebook_image({size}, '{method}')", 1)


def rows(model: FLAVA) -> list[Row]:
    """The rename table of a model."""
    image, text = model.image_tower(parent=None), model.text_tower(parent=None)
    joint, codebook = model.multimodal_tower(parent=None), model.image_codebook(parent=None)
    embeddings = "image_model.embeddings"
    table = [
        *patches(
            "image/stem/projection",
            f"{embeddings}.patch_embeddings.projection",
            image.sizes["patch_size"],
        ),
        vit.first_and_grid(image, embeddings, "image/"),
        *_encoder("image", image.sizes["heads"], image.qkv_bias, model.pooler),
        *_text(text, model.pooler),
        *_encoder("multimodal", joint.heads, joint.qkv_bias, model.pooler),
        *same("logit_scale", "logit_scale"),
    ]
    if image.mask_token:
        table += reshaped("image/mask_token", f"{embeddings}.mask_token", (-1,), (1, 1, -1))
    if joint.class_token:
        table += reshaped("multimodal/class_token", "multimodal_model.cls_token", (-1,), (1, 1, -1))
    for name in ("image", "text"):
        table += linear(f"{name}_proj", f"{name}_projection")
        table += linear(f"{name}_to_multimodal", f"{name}_to_mm_projection")
    if model.heads:
        for ours, theirs in HEADS.items():
            table += linear(f"{ours}/transform", f"{theirs}.transform.dense")
            table += norm(f"{ours}/norm", f"{theirs}.transform.LayerNorm")
            table += same(f"{ours}/table", f"{theirs}.decoder.weight")
            table += same(f"{ours}/bias", f"{theirs}.decoder.bias")
        table += linear("match_pooler", "itm_head.pooler.dense")
        table += linear("match_head", "itm_head.seq_relationship")
    if codebook is not None:
        table += flava_codebook.rows(codebook, "codebook/", CODEBOOK)
    return table


def _text(text: TextEncoder, pooler: bool) -> list[Row]:
    embeddings = "text_model.embeddings"
    return [
        *same("text/embedding", f"{embeddings}.word_embeddings.weight"),
        *same("text/position/table", f"{embeddings}.position_embeddings.weight"),
        *same("text/segment_embedding", f"{embeddings}.token_type_embeddings.weight"),
        *norm("text/norm_embedding", f"{embeddings}.LayerNorm"),
        *_encoder("text", text.heads, text.qkv_bias, pooler),
    ]


def _encoder(name: str, heads: int, bias: bool, pooler: bool) -> list[Row]:
    """The blocks of an encoder, its norm and its pooler."""
    ours, theirs = f"{name}/transformer/layers", f"{name}_model.encoder.layer.{{i}}"
    attention = f"{theirs}.attention"
    names = [f"{attention}.attention.{x}" for x in ("query", "key", "value")]
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.layernorm_before"),
        *qkv(f"{ours}/attention/qkv", names, heads, bias),
        *merge_heads(f"{ours}/attention/out", f"{attention}.output.dense", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layernorm_after"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        *norm(f"{name}_norm", f"{name}_model.layernorm"),
        *(linear(f"{name}_pooler", f"{name}_model.pooler.dense") if pooler else ()),
    ]


def published_name(name: str, model: FLAVA) -> str:
    """The name of a tensor in the files: of a model with heads, the encoders' have a prefix."""
    own = re.match(r"(image|text|multimodal)_(model|projection|to_mm)|logit_scale", name)
    return f"flava.{name}" if model.heads and own else name


def published_config(model: FLAVA) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published FLAVA cannot have.
    """
    image, text = model.image_tower(parent=None), model.text_tower(parent=None)
    joint, codebook = model.multimodal_tower(parent=None), model.image_codebook(parent=None)
    usual = {**vit.plain(image), "image_size": (image.train_size,) * 2}
    usual |= {"qkv_bias": (image.qkv_bias,) * 2, "pool": (image.pool, "all")}
    usual |= {"class_token": (image.class_token, True)}
    published.check_settings(
        "flava",
        {
            **{f"image.{k}": x for k, x in usual.items()},
            "pooler": (model.pooler, True),
            **({} if codebook is None else {"codebook.kind": (type(codebook).__name__, DVAE)}),
            "multimodal.class_token with heads": (joint.class_token or not model.heads, True),
        },
    )
    height, width = image.train_size
    config = {
        "model_type": "flava",
        "architectures": ["FlavaForPreTraining" if model.heads else "FlavaModel"],
        "projection_dim": model.embed_dim,
        "hidden_size": joint.width,
        "layer_norm_eps": joint.norm_epsilon,
        "logit_scale_init_value": model.logit_scale_init,
        "init_codebook": codebook is not None,
        "image_config": {
            **encoder_config.write(image),
            "model_type": "flava_image_model",
            "image_size": height if height == width else [height, width],
            "patch_size": image.sizes["patch_size"],
            "qkv_bias": image.qkv_bias,
            "mask_token": image.mask_token,
            "vocab_size": model.codebook_size,
        },
        "text_config": {
            **_published(text),
            "model_type": "flava_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.length,
            "type_vocab_size": text.segments,
        },
        "multimodal_config": {
            **_published(joint),
            "model_type": "flava_multimodal_model",
            "use_cls_token": joint.class_token,
        },
    }
    if codebook is not None:
        config["image_codebook_config"] = flava_codebook.published_config(codebook)
    return config


def _published(encoder: TextEncoder | MultimodalEncoder) -> dict[str, Any]:
    """An encoder's section of config.json; the inverse of `_fields`."""
    return {**encoder_config.write(encoder), "qkv_bias": encoder.qkv_bias}


def published_preprocessor(model: FLAVA, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    kind, codebook = flava_codebook.PROCESSOR, model.image_codebook(parent=None)
    settings = image_processor.write(model.image_tower(parent=None), transform, kind)
    if codebook is None:
        return settings
    steps = [s for s in chain.read(transform) if s[0] == "codebook_image"]
    method = [*steps[0][1], "lanczos"][1] if steps else "lanczos"
    resized = image_processor.write(codebook, f"resize({codebook.train_size}, '{method}')", kind)
    return {**settings, **flava_codebook.codebook_settings(codebook, resized)}
