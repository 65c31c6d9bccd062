"""ViLT, alone or with any of its heads (model_type "vilt")."""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.models.vilt_model import ViLT
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.layouts import (
    Row,
    class_and_grid,
    linear,
    merge_heads,
    norm,
    patches,
    qkv,
    same,
)
from mmjax.weights.published import Published

SYSTEM = "vilt"
# Position ids in older files, and the word table where the head repeats it.
IGNORED = (r"(vilt\.)?embeddings\.text_embeddings\.\w+_ids", r"mlm_score\.decoder\.weight")
# Settings that config.json may omit: defaults of ViltConfig.
SETTINGS = {
    "vocab_size": 30522,
    "type_vocab_size": 2,
    "modality_type_vocab_size": 2,
    "max_position_embeddings": 40,
    **encoder_config.DEFAULTS,
    "image_size": 384,
    "patch_size": 32,
    "qkv_bias": True,
    "max_image_length": None,
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: models with a head have a prefix, and older files another
    name for the bias of the word head."""
    return re.sub(r"^vilt\.", "", name).replace("mlm_score.bias", "mlm_score.decoder.bias")


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    path, shapes = found.folder / published.CONFIG, found.tensors.shapes
    published.check_fixed(found, {"num_channels": 3})
    settings = published.settings(found.config, SETTINGS, path)
    images = image_processor.read(found.preprocessor)
    image = {
        **published.image_sides(settings, path),
        "image_mean": images.mean,
        "image_std": images.std,
    }
    image.pop("drop_partial_patches", None)
    longest = settings["max_image_length"]
    if not isinstance(longest, int | None):
        raise ValueError(f"'{path}' has max_image_length {longest!r}: it must be a whole number.")
    if longest is not None and longest > 0:
        image["max_patches"] = longest
    return {
        "name": "vilt",
        **encoder_config.read(settings, "config.json"),
        "qkv_bias": settings["qkv_bias"],
        "modality_types": settings["modality_type_vocab_size"],
        "text": {
            "vocab_size": settings["vocab_size"],
            "length": settings["max_position_embeddings"],
            "segments": settings["type_vocab_size"],
        },
        "image": image,
        "pooler": "pooler.dense.weight" in shapes,
        **_heads(shapes, settings["hidden_size"]),
    }


def _heads(shapes: Mapping[str, tuple[int, ...]], width: int) -> dict[str, Any]:
    """The fields of the heads, from the tensors."""
    heads: dict[str, Any] = {}
    if "mlm_score.transform.dense.weight" in shapes:
        heads["words"] = True
    if "rank_output.weight" in shapes:
        heads["matching"] = shapes["rank_output.weight"][0]
    if "classifier.weight" in shapes:
        heads |= {"num_classes": shapes["classifier.weight"][0], "classify": "tokens"}
    if "classifier.0.weight" in shapes:
        inner, given = shapes["classifier.0.weight"]
        heads["num_classes"] = shapes["classifier.3.weight"][0]
        if inner == given:
            heads |= {"classify": "images", "images": given // width}
    return heads


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    path = found.folder / published.CONFIG
    patch = published.image_sides(published.settings(found.config, SETTINGS, path), path)
    return image_processor.Source("ViltImageProcessor", usual={"size_divisor": patch["patch_size"]})


def rows(model: ViLT) -> list[Row]:
    """The rename table of a model."""
    embeddings, words = "embeddings", "embeddings.text_embeddings"
    image = model.patches(parent=None)
    ours, theirs = "transformer/layers", "encoder.layer.{i}"
    attention = f"{theirs}.attention"
    names = [f"{attention}.attention.{x}" for x in ("query", "key", "value")]
    table = [
        *same("text/embedding", f"{words}.word_embeddings.weight"),
        *same("text/position/table", f"{words}.position_embeddings.weight"),
        *same("text/segment_embedding", f"{words}.token_type_embeddings.weight"),
        *norm("text/norm_embedding", f"{words}.LayerNorm"),
        *same("modality_embedding", f"{embeddings}.token_type_embeddings.weight"),
        *patches("stem/projection", f"{embeddings}.patch_embeddings.projection", image.patch_size),
        class_and_grid(
            "", (f"{embeddings}.cls_token", f"{embeddings}.position_embeddings"), image.grid
        ),
        *norm(f"{ours}/norm_attention", f"{theirs}.layernorm_before"),
        *qkv(f"{ours}/attention/qkv", names, model.heads, model.qkv_bias),
        *merge_heads(f"{ours}/attention/out", f"{attention}.output.dense", model.heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layernorm_after"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        *norm("norm", "layernorm"),
    ]
    if model.pooler:
        table += linear("pooler", "pooler.dense")
    if model.words:
        table += linear("word_head/transform", "mlm_score.transform.dense")
        table += norm("word_head/norm", "mlm_score.transform.LayerNorm")
        table += same("word_head/bias", "mlm_score.decoder.bias")
    if model.matching:
        table += linear("match_head", "rank_output")
    if model.num_classes is not None and model.classify == "tokens":
        table += linear("head", "classifier")
    elif model.num_classes is not None:
        table += linear("head_inner", "classifier.0")
        table += norm("head_norm", "classifier.1")
        table += linear("head", "classifier.3")
    return table


def published_name(name: str, model: ViLT) -> str:
    """The name of a tensor in the files: of a model with a head, all others have a prefix."""
    own = name.startswith(("mlm_score.", "rank_output.", "classifier."))
    return name if own or _head(model) == "Model" else f"vilt.{name}"


def _head(model: ViLT) -> str:
    """The last part of the class in `transformers` for one of our models."""
    if model.words:
        return "ForMaskedLM"
    if model.matching:
        return "ForImageAndTextRetrieval"
    if model.num_classes is None:
        return "Model"
    kinds = {
        "question": "ForQuestionAnswering",
        "images": "ForImagesAndTextClassification",
        "tokens": "ForTokenClassification",
    }
    return kinds[model.classify]


def published_config(model: ViLT) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: heads or an image size that a published ViLT cannot have.
    """
    head, image = _head(model), model.patches(parent=None)
    height, width = image.train_size
    text = model.text_embed(parent=None)
    heads = [model.words, bool(model.matching), model.num_classes is not None]
    published.check_settings(
        "vilt",
        {
            "heads of several kinds": (sum(heads) > 1, False),
            "matching": (model.matching, min(model.matching, 1)),
            "image_size": ((height, width), (height, height)),
            "pooler": (model.pooler, head != "ForTokenClassification"),
            "text.position_pad": (text.position_pad, None),
            "text.segments 0": (text.segments == 0, False),
        },
    )
    return {
        "model_type": "vilt",
        "architectures": [f"Vilt{head}"],
        "vocab_size": text.vocab_size,
        "type_vocab_size": text.segments,
        "modality_type_vocab_size": model.modality_types,
        "max_position_embeddings": text.length,
        **encoder_config.write(model),
        "image_size": height,
        "patch_size": image.patch_size,
        "qkv_bias": model.qkv_bias,
        "max_image_length": image.max_patches or -1,
        "num_images": model.images if model.classify == "images" else -1,
    }


def published_preprocessor(model: ViLT, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform.

    Raises:
      ValueError: a chain that resizes in another way than ViLT.
    """
    kind = "ViltImageProcessor"
    found = image_processor.write(model.patches(parent=None), transform, kind)
    if "size_divisor" not in found or found["do_center_crop"]:
        raise ValueError(
            f"The images of '{transform}' are not resized by resize_between alone, as a {kind} "
            "does: save the model with another transform."
        )
    del found["do_center_crop"], found["crop_size"]
    return found
