"""ViT and DeiT in the layout of `transformers` (model_type "vit" and "deit")."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.models.vit import ViT
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.layouts import Arrays, Row, linear, merge_heads, norm, patches, qkv
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of ViTConfig and DeiTConfig.
DEFAULTS = {
    **encoder_config.DEFAULTS,
    "image_size": 224,
    "patch_size": 16,
    "qkv_bias": True,
    "pooler_act": "tanh",
}
SYSTEM = "vit"
# The mask token of masked-image training, and a pooler that the head does not use.
IGNORED = (r"(.+\.)?embeddings\.mask_token", r"(vit|deit)\.pooler\.dense\.(weight|bias)")
# Names of transformers 5, which it writes with save_original_format=False, and those of `rows`.
RENAMED = {
    r"^((?:vit|deit)\.)?layers\.": r"\1encoder.layer.",
    r"\.attention\.q_proj\.": ".attention.attention.query.",
    r"\.attention\.k_proj\.": ".attention.attention.key.",
    r"\.attention\.v_proj\.": ".attention.attention.value.",
    r"\.attention\.o_proj\.": ".attention.output.dense.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`."""
    return renamed(name, RENAMED)


def renamed(name: str, patterns: Mapping[str, str]) -> str:
    """The name with each pattern replaced."""
    for new, old in patterns.items():
        name = re.sub(new, old, name)
    return name


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    settings = published.settings(found.config, DEFAULTS, found.folder / published.CONFIG)
    shapes = found.tensors.shapes
    config = {
        **fields(found, settings),
        "pool": "cls",
        "num_classes": classes(shapes, "classifier.weight", "cls_classifier.weight"),
    }
    if settings["model_type"] == "deit":
        config["distillation"] = "head" if "cls_classifier.weight" in shapes else "token"
    return config | pooler(found, settings)


def pooler(found: Published, settings: Mapping[str, Any]) -> dict[str, int]:
    """`pre_logits` of a model with a pooler.

    Raises:
      ValueError: another activation than tanh.
    """
    weight = found.tensors.shapes.get("pooler.dense.weight")
    if weight is None:
        return {}
    if settings["pooler_act"] != "tanh":
        raise ValueError(
            f"'{found.folder}' has pooler_act '{settings['pooler_act']}'; only 'tanh' can be "
            "loaded."
        )
    return {"pre_logits": weight[0]}


def fields(found: Published, settings: dict[str, Any]) -> dict[str, Any]:
    """Fields of `ViT` that every family of `transformers` has.

    Args:
      settings: config.json with defaults filled in.
    """
    images = image_processor.read(found.preprocessor)
    return {
        "name": "vit",
        **encoder_config.read(settings, "config.json"),
        **published.image_sides(settings, found.folder / published.CONFIG),
        "image_mean": images.mean,
        "image_std": images.std,
        "qkv_bias": settings["qkv_bias"],
        "position_resize": "bicubic",
    }


def classes(shapes: dict[str, tuple[int, ...]], *heads: str) -> int | None:
    """Number of classes, from the head's weight: config.json omits it where it is 2."""
    return next((shapes[name][0] for name in heads if name in shapes), None)


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    kinds = {"vit": "ViTImageProcessor", "deit": "DeiTImageProcessor"}
    return image_processor.Source(kinds[found.config["model_type"]])


def rows(model: ViT) -> list[Row]:
    """The rename table of a model."""
    family = "vit" if model.distillation == "none" else "deit"
    table = tower(model, family, mlp=("intermediate.dense", "output.dense"))
    if model.pre_logits is not None:
        table += linear("pre_logits", "pooler.dense")
    if model.distillation == "head":
        table += linear("head", "cls_classifier")
        table += linear("distillation_head", "distillation_classifier")
    elif model.num_classes is not None:
        table += linear("head", "classifier")
    return table


def tower(
    model: ViT,
    family: str,
    mlp: tuple[str, str],
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after"),
) -> list[Row]:
    """The rename table without heads.

    Args:
      family: prefix of the names in a model with a head.
      mlp: names of the two maps; norms: names of the norms before attention and before the MLP.
    """
    prefix = "" if model.num_classes is None else f"{family}."
    ours, theirs = "transformer/layers", f"{prefix}encoder.layer.{{i}}"
    attention = f"{theirs}.attention"
    heads = model.sizes["heads"]
    names = [f"{attention}.attention.{x}" for x in ("query", "key", "value")]
    return [
        *patches(
            "stem/projection",
            f"{prefix}embeddings.patch_embeddings.projection",
            model.sizes["patch_size"],
        ),
        first_and_grid(model, f"{prefix}embeddings"),
        *norm(f"{ours}/norm_attention", f"{theirs}.{norms[0]}"),
        *qkv(f"{ours}/attention/qkv", names, heads, model.qkv_bias),
        *merge_heads(f"{ours}/attention/out", f"{attention}.output.dense", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.{norms[1]}"),
        *(linear(f"{ours}/mlp/up", f"{theirs}.{mlp[0]}") if not model.gated_mlp else []),
        *linear(f"{ours}/mlp/down", f"{theirs}.{mlp[1]}"),
        *norm("norm", f"{prefix}layernorm"),
    ]


def first_and_grid(model: ViT, embeddings: str, ours: str = "") -> Row:
    """Class token, distillation token if any, and one table with the positions of these and of the
    patches [1, n + h · w, D]; `ours`: prefix of our names."""
    patch = model.sizes["patch_size"]
    height, width = (side // patch for side in model.train_size)
    tokens = ["class"] if model.distillation == "none" else ["class", "distillation"]
    n = len(tokens)

    def read(*theirs) -> Arrays:
        *first, table = (x.reshape(-1, x.shape[-1]) for x in theirs)
        return *(x[0] for x in first), *table[:n], table[n:].reshape(height, width, -1)

    def write(*arrays) -> Arrays:
        first, positions, table = arrays[:n], arrays[n:-1], arrays[-1]
        table = np.concatenate([np.stack(positions), table.reshape(height * width, -1)])
        return *(x[None, None] for x in first), table[None]

    names = {"class": "cls_token", "distillation": "distillation_token"}
    return Row(
        (
            *(f"{ours}{name}_token" for name in tokens),
            *(f"{ours}{name}_position" for name in tokens),
            f"{ours}position/table",
        ),
        (*(f"{embeddings}.{names[x]}" for x in tokens), f"{embeddings}.position_embeddings"),
        read,
        write,
    )


def published_config(model: ViT) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published ViT cannot have.
    """
    distilled = model.distillation != "none"
    family = "deit" if distilled else "vit"
    check_tower(family, model)
    return {
        "model_type": family,
        "architectures": [architecture("DeiT" if distilled else "ViT", model)],
        **published_fields(model),
        "intermediate_size": model.sizes["mlp_dim"],
        **({"pooler_output_size": model.pre_logits} if model.pre_logits else {}),
    }


def architecture(name: str, model: ViT) -> str:
    """The class in `transformers` for one of our models."""
    if model.num_classes is None:
        return f"{name}Model"
    teacher = "WithTeacher" if model.distillation == "head" else ""
    return f"{name}ForImageClassification{teacher}"


def plain(model: ViT) -> dict[str, tuple[Any, Any]]:
    """Settings and their values in a plain published ViT, for `published.check_settings`."""
    return {
        "image_size": (model.train_size, (model.train_size[0],) * 2),
        "stem": (model.stem, "patch"),
        "position": (model.position, "learned"),
        "patch_bias": (model.patch_bias, True),
        "pre_norm": (model.pre_norm, False),
        "qkv_bias": (model.qkv_bias, True),
        "distillation": (model.distillation, "none"),
        "registers": (model.registers, 0),
        "layer_scale": (model.layer_scale, None),
        "gated_mlp": (model.gated_mlp, False),
        "block_norm": (model.block_norm, "pre"),
        "embed_dim": (model.embed_dim, None),
    }


def check_tower(family: str, model: ViT, **settings: tuple[Any, Any]) -> None:
    """Raise ValueError for settings that a published model of that family cannot have; `settings`
    are those that differ from a plain ViT."""
    published.check_settings(
        family,
        {
            **plain(model),
            "image_size": (model.train_size, model.train_size),
            "pool": (model.pool, "cls"),
            "qkv_bias": (model.qkv_bias, model.qkv_bias),
            "pre_logits beside a head": (bool(model.pre_logits and model.num_classes), False),
            "distillation": (model.distillation, model.distillation),
            **settings,
        },
    )


def published_fields(model: ViT) -> dict[str, Any]:
    """The settings of config.json that every family has; the inverse of `fields`."""
    height, width = model.train_size
    return {
        **{k: v for k, v in encoder_config.write(model).items() if k != "intermediate_size"},
        "image_size": height if height == width else [height, width],
        "patch_size": model.sizes["patch_size"],
        "qkv_bias": model.qkv_bias,
    }


def published_preprocessor(model: ViT, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    kind = "ViTImageProcessor" if model.distillation == "none" else "DeiTImageProcessor"
    return image_processor.write(model, transform, kind)
