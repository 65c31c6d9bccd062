"""CLIP in the layout of `transformers`: OpenAI's and LAION's weights (model_type "clip")."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mmjax.models.clip import CLIP
from mmjax.models.text import TextTransformer
from mmjax.models.vit import ViT
from mmjax.weights import encoder_config, image_processor, published, tokenizer
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

# Settings that config.json may omit: defaults of CLIPTextConfig, CLIPVisionConfig and CLIPConfig.
_TOWER = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
TEXT = {
    **_TOWER,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
VISION = {
    **_TOWER,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
SYSTEM = "clip"
# Position ids in older files.
IGNORED = (r"(text|vision)_model\.embeddings\.position_ids",)


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    text, vision = (
        # The first CLIP repositories have the correct values under "<tower>_config_dict".
        published.tower(found, defaults, k, f"{k}_dict")
        for k, defaults in (("text_config", TEXT), ("vision_config", VISION))
    )
    return {
        "name": "clip",
        "embed_dim": embed_dim(found, 512),
        "image": image_fields(vision, found),
        "text": {
            **encoder_config.read(text, "text_config"),
            "vocab_size": text["vocab_size"],
            "length": text["max_position_embeddings"],
        },
    }


def embed_dim(found: Published, default: int) -> int:
    """The width of the shared space, from config.json."""
    where = found.folder / published.CONFIG
    return published.settings(found.config, {"projection_dim": default}, where)["projection_dim"]


def image_fields(
    vision: Mapping[str, Any], found: Published, where: str = "vision_config"
) -> dict[str, Any]:
    """Fields of `ViT` from the tower's settings and the image processor.

    Raises:
      ValueError: settings that our model does not support.
    """
    images = image_processor.read(found.preprocessor)
    return {
        **encoder_config.read(vision, where),
        **published.image_sides(vision, where),
        "image_mean": images.mean,
        "image_std": images.std,
        "pool": "cls",
        "patch_bias": False,
        "pre_norm": True,
        "position_resize": "bicubic",
    }


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("CLIPImageProcessor", "vision_config")


def rows(model: CLIP) -> list[Row]:
    """The rename table of a model."""
    return [
        *image_rows(model.image_tower(parent=None)),
        *linear("image_proj", "visual_projection", bias=False),
        *text_rows(model.text_tower(parent=None)),
        *norm("text/norm", "text_model.final_layer_norm"),
        *linear("text_proj", "text_projection", bias=False),
        *same("logit_scale", "logit_scale"),
    ]


def image_rows(image: ViT) -> list[Row]:
    """The image tower."""
    embeddings = "vision_model.embeddings"
    patch = image.sizes["patch_size"]
    return [
        class_and_grid(
            "image/",
            (f"{embeddings}.class_embedding", f"{embeddings}.position_embedding.weight"),
            image.grid,
            batched=False,
        ),
        *patches("image/stem/projection", f"{embeddings}.patch_embedding", patch, bias=False),
        *norm("image/pre_norm", "vision_model.pre_layrnorm"),
        *blocks("image", "vision_model", image.sizes["heads"]),
        *norm("image/norm", "vision_model.post_layernorm"),
    ]


def text_rows(text: TextTransformer) -> list[Row]:
    """Embeddings and blocks of the text tower."""
    return [
        *same("text/embedding", "text_model.embeddings.token_embedding.weight"),
        *same("text/position/table", "text_model.embeddings.position_embedding.weight"),
        *blocks("text", "text_model", text.sizes["heads"]),
    ]


def blocks(ours: str, theirs: str, heads: int) -> list[Row]:
    """The transformer blocks of a tower."""
    ours, theirs = f"{ours}/transformer/layers", f"{theirs}.encoder.layers.{{i}}"
    attention = f"{theirs}.self_attn"
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.layer_norm1"),
        *qkv(f"{ours}/attention/qkv", [f"{attention}.{x}_proj" for x in "qkv"], heads),
        *merge_heads(f"{ours}/attention/out", f"{attention}.out_proj", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layer_norm2"),
        *linear(f"{ours}/mlp/up", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}/mlp/down", f"{theirs}.mlp.fc2"),
    ]


def published_config(model: CLIP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published CLIP cannot have.
    """
    image, text = towers(model, "clip", ViT, TextTransformer)
    published.check_settings(
        "clip",
        {
            **plain(model, image),
            "text.causal": (text.causal, True),
            "text.pool": (text.pool, "end"),
        },
    )
    return {
        **published_fields(model, image, "clip", "CLIPModel"),
        "text_config": {
            **encoder_config.write(text),
            "model_type": "clip_text_model",
            "projection_dim": model.embed_dim,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.length,
        },
    }


def towers(model: CLIP, family: str, image_kind: type, text_kind: type) -> tuple[Any, Any]:
    """The towers of a model to save; raises ValueError for towers of other kinds."""
    image, text = model.image_tower(parent=None), model.text_tower(parent=None)
    kinds = {"image.kind": (type(image), image_kind), "text.kind": (type(text), text_kind)}
    published.check_settings(
        family, {name: tuple(kind.__name__ for kind in pair) for name, pair in kinds.items()}
    )
    return image, text


def plain(model: CLIP, image: ViT) -> dict[str, tuple[Any, Any]]:
    """Settings of a model without its text tower, and their values in a published CLIP, for
    `published.check_settings`."""
    return {
        **{f"image.{name}": pair for name, pair in plain_image(image).items()},
        "image_proj": (model.image_proj, True),
        "text_proj": (model.text_proj, True),
        "proj_bias": (model.proj_bias, False),
        "logit_bias_init": (model.logit_bias_init, None),
    }


def plain_image(image: ViT) -> dict[str, tuple[Any, Any]]:
    """As `plain`, of the image tower."""
    return {
        "pool": (image.pool, "cls"),
        "stem": (image.stem, "patch"),
        "position": (image.position, "learned"),
        "patch_bias": (image.patch_bias, False),
        "pre_norm": (image.pre_norm, True),
        "image_size": (image.train_size, (image.train_size[0],) * 2),
    }


def published_fields(model: CLIP, image: ViT, kind: str, architecture: str) -> dict[str, Any]:
    """config.json for one of our models, without its text tower."""
    return {
        "model_type": kind,
        "architectures": [architecture],
        "projection_dim": model.embed_dim,
        "logit_scale_init_value": model.logit_scale_init,
        "vision_config": {
            **published_image(image),
            "model_type": f"{kind}_vision_model",
            "projection_dim": model.embed_dim,
        },
    }


def published_image(image: ViT) -> dict[str, Any]:
    """vision_config of an image tower of square images."""
    return {
        **encoder_config.write(image),
        "image_size": image.train_size[0],
        "patch_size": image.sizes["patch_size"],
    }


def published_preprocessor(model: CLIP, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    return image_processor.write(model.image_tower(parent=None), transform, "CLIPImageProcessor")


def for_saving(pretrained: Any) -> Any:
    """The model with an end token at which `transformers` pools.

    If the end token's id is 2, `transformers` pools at the largest id of a text, as OpenAI's
    weights need (modeling_clip.py, CLIPTextTransformer); so the end token gets the largest id.
    """
    words = pretrained.tokenizer
    return pretrained if words is None or words.eos_id != 2 else with_largest_end(pretrained)


def with_largest_end(pretrained: Any) -> Any:
    """The same model, whose end token has the largest id of its vocabulary."""
    words = pretrained.tokenizer
    table = pretrained.params["text"]["embedding"]
    table = jnp.concatenate([table, table[words.eos_id][None]])
    config = pretrained.config | {"text": {**pretrained.config["text"], "vocab_size": len(table)}}
    params = {**pretrained.params, "text": {**pretrained.params["text"], "embedding": table}}
    return dataclasses.replace(
        pretrained,
        config=config,
        model=pretrained.model.clone(text=config["text"]),
        params=params,
        tokenizer=tokenizer.with_end(words, len(table) - 1),
    )
