"""ViViT in the layout of `transformers`: the model of joint attention (model 1 of the paper)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from einops import rearrange

from mmjax.models.video_vit import VideoViT
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.families import vit
from mmjax.weights.layouts import Row, class_and_grid, linear, merge_heads, norm, qkv, same
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of VivitConfig in transformers 5.23.
DEFAULTS = {
    **encoder_config.DEFAULTS,
    "hidden_act": "gelu_fast",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "num_frames": 32,
    "qkv_bias": True,
    "pooler_act": "tanh",
}
TUBELET = (2, 16, 16)
SYSTEM = "video_vit"
IGNORED = (r"vivit\.pooler\.dense\.(weight|bias)",)  # a pooler that the head does not use
# Names of transformers 5, which it writes with save_original_format=False.
RENAMED = {r"^(vivit\.)?layers\.": r"\1encoder.layer."} | {
    new: old for new, old in vit.RENAMED.items() if not new.startswith("^")
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`."""
    return vit.renamed(name, RENAMED)


def prepare(found: Published) -> tuple[Published, list[str]]:
    """VivitImageProcessor's `offset` (default: on) under the name of other processors."""
    if found.preprocessor is None:
        return found, []
    offset = found.preprocessor.get("offset", True)
    return found._replace(preprocessor={**found.preprocessor, "rescale_offset": offset}), []


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    where = found.folder / published.CONFIG
    settings = published.settings(found.config, DEFAULTS, where)
    return {
        **fields(found, settings),
        "tubelet": _tubelet(found.config.get("tubelet_size") or TUBELET, where),
        "pool": "cls",
        "position": "learned",
        "final_norm": "tokens",
        "qkv_bias": settings["qkv_bias"],
        "num_classes": vit.classes(found.tensors.shapes, "classifier.weight"),
        **vit.pooler(found, settings),
    }


def fields(found: Published, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `VideoViT` that both families have."""
    images, size = image_processor.read(found.preprocessor), settings["image_size"]
    return {
        "name": SYSTEM,
        **encoder_config.read(settings, "config.json"),
        "frames": settings["num_frames"],
        "image_size": tuple(size) if isinstance(size, list) else size,
        "image_mean": images.mean,
        "image_std": images.std,
    }


def _tubelet(value: Any, where: Any) -> tuple[int, int, int]:
    if not (isinstance(value, list | tuple) and len(value) == 3):
        raise ValueError(f"'{where}' has tubelet_size {value!r}: three numbers are needed.")
    return tuple(value)


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("VivitImageProcessor")


def rows(model: VideoViT) -> list[Row]:
    """The rename table of a model."""
    prefix = "" if model.num_classes is None else "vivit."
    embeddings = f"{prefix}embeddings"
    table = [
        *tubelets(model, f"{embeddings}.patch_embeddings.projection"),
        class_and_grid(
            "", (f"{embeddings}.cls_token", f"{embeddings}.position_embeddings"), model.grid
        ),
        *blocks(model, f"{prefix}encoder.layer.{{i}}"),
        *norm("norm", f"{prefix}layernorm"),
    ]
    if model.pre_logits is not None:
        table += linear("pre_logits", "pooler.dense")
    return table + (linear("head", "classifier") if model.num_classes is not None else [])


def tubelets(model: VideoViT, theirs: str) -> list[Row]:
    """A convolution's `weight` [D, 3, T, P, Q] -> `kernel` [T · P · Q · 3, D]."""
    t, p, q = model.tubelet

    def read(x):
        return (rearrange(x, "d c t p q -> (t p q c) d"),)

    def write(x):
        return (rearrange(x, "(t p q c) d -> d c t p q", t=t, p=p, q=q),)

    rows = [Row(("stem/projection/kernel",), (f"{theirs}.weight",), read, write)]
    return rows + same("stem/projection/bias", f"{theirs}.bias")


def blocks(model: VideoViT, theirs: str, ours: str = "", heads: int | None = None) -> list[Row]:
    """The blocks of the transformer; or of another one at `ours`, with these heads."""
    ours, attention, heads = (
        f"{ours}transformer/layers",
        f"{theirs}.attention",
        heads or model.heads,
    )
    names = [f"{attention}.attention.{x}" for x in ("query", "key", "value")]
    maps = qkv(f"{ours}/attention/qkv", names, heads, model.qkv_bias and model.key_bias)
    if model.qkv_bias and not model.key_bias:
        biases = tuple(f"{attention}.attention.{x}_bias" for x in ("q", "v"))
        maps.append(_query_value_bias(f"{ours}/attention/qkv/bias", biases, heads))
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.layernorm_before"),
        *maps,
        *merge_heads(f"{ours}/attention/out", f"{attention}.output.dense", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layernorm_after"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
    ]


def _query_value_bias(ours: str, theirs: tuple[str, ...], heads: int) -> Row:
    """Biases of queries and values -> [2, H, D]."""

    def read(*parts):
        return (np.stack(parts).reshape(2, heads, -1),)

    def write(x):
        return tuple(x.reshape(2, -1))

    return Row((ours,), theirs, read, write)


def published_config(model: VideoViT) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published ViViT cannot have.
    """
    published.check_settings(
        "vivit",
        {
            **plain(model),
            "position": (model.position, "learned"),
            "pool": (model.pool, "cls"),
            "final_norm": (model.final_norm, "tokens"),
            "key_bias": (model.key_bias, True),
            "pre_logits beside a head": (bool(model.pre_logits and model.num_classes), False),
        },
    )
    classes = model.num_classes is not None
    return {
        "model_type": "vivit",
        "architectures": ["VivitForVideoClassification" if classes else "VivitModel"],
        **published_fields(model),
        "tubelet_size": list(model.tubelet),
        "qkv_bias": model.qkv_bias,
        **({"pooler_output_size": model.pre_logits} if model.pre_logits else {}),
    }


def plain(model: VideoViT) -> dict[str, tuple[Any, Any]]:
    """Settings and their values in every published model, for `published.check_settings`."""
    return {"temporal_depth": (model.temporal_depth, 0), "embed_dim": (model.embed_dim, None)}


def published_fields(model: VideoViT) -> dict[str, Any]:
    """The settings of config.json that both families have; the inverse of `fields`."""
    height, width = model.train_size
    return {
        **encoder_config.write(model),
        "num_frames": model.frames,
        "image_size": height if height == width else [height, width],
    }


def published_preprocessor(model: VideoViT, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this transform of frames."""
    return {**image_processor.write(model, transform, "VivitImageProcessor"), "offset": False}
