"""CLIP as published by open_clip: open_clip_config.json, and the names of its state dict."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.clip import CLIP
from mmjax.models.resnet import ModifiedResNet
from mmjax.models.text import TextTransformer
from mmjax.models.vit import ViT
from mmjax.weights import open_clip_images, open_clip_tokenizer, published
from mmjax.weights.families import clip, clip_resnet
from mmjax.weights.layouts import (
    Row,
    batch_counts,
    class_and_grid,
    fused_qkv,
    linear,
    merge_heads,
    norm,
    patches,
    same,
)
from mmjax.weights.published import OPEN_CLIP, Published

SYSTEM, LAYOUT = "clip", published.OPEN_CLIPS
IGNORED = (r"(.*\.)?attn_mask", r".*\.num_batches_tracked")  # the first in older files

EPSILON = 1e-5  # of norms, unless norm_kwargs has one
# Settings that open_clip_config.json may omit: defaults of CLIPVisionCfg and CLIPTextCfg.
_TOWER = {"layers": 12, "mlp_ratio": 4.0, "norm_kwargs": {}, "act_kwargs": {}}
VISION = {
    **_TOWER,
    "width": 768,
    "head_width": 64,
    "patch_size": 16,
    "image_size": 224,
    "pool_type": "tok",
    "no_ln_pre": False,
    "final_ln_after_pool": False,
}
TEXT = {
    **_TOWER,
    "width": 512,
    "heads": 8,
    "context_length": 77,
    "vocab_size": 49408,
    "pool_type": "argmax",
    "no_causal_mask": False,
    "proj_type": "linear",
}
# Settings of parts that are not supported, with the values that disable them.
WITHOUT = {
    "timm_model_name": (None, ""),
    "hf_model_name": (None, ""),
    "ls_init_value": (None,),
    "block_type": (None, "default"),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
    "scale_heads": (False,),
    "scale_attn_inner": (False,),
    "scale_attn": (False,),
    "scale_fc": (False,),
    "proj_bias": (False,),
}
TOKENIZER_SETTINGS = ("hf_tokenizer_name", "tokenizer_kwargs")
# "argmax" pools at the largest id of a text, which is the end token, like "eos".
TEXT_POOLS = {"argmax": "end", "eos": "end", "last": "last"}
IMAGE_POOLS = {"tok": "cls", "avg": "mean"}

transform = open_clip_images.transform


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: models with `custom_text` have a prefix "text."."""
    return name.removeprefix("text.")


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    vision, text = towers(found, resnets=True)
    resnet = is_resnet(vision)
    check(found, "text_cfg", text, embed_cls=(False,), pool_type=tuple(TEXT_POOLS))
    check(found, "text_cfg", text, proj_type=("linear", "none"))
    if resnet:
        pixels = open_clip_images.pixels(found)
        image = clip_resnet.fields(vision, found.config["embed_dim"]) | pixels
    else:
        check(found, "vision_cfg", vision, attentional_pool=(False,), pool_type=tuple(IMAGE_POOLS))
        if vision["pool_type"] == "avg":
            check(found, "vision_cfg", vision, final_ln_after_pool=(False,))
        image = {"pool": IMAGE_POOLS[vision["pool_type"]], "class_token": True}
        image |= image_fields(found, vision)
    return {
        "name": "clip",
        "embed_dim": found.config["embed_dim"],
        "image": image,
        "text": {
            **tower_fields(text, found.config),
            "heads": text["heads"],
            "vocab_size": text["vocab_size"],
            "length": text["context_length"],
            "causal": not text["no_causal_mask"],
            "pool": TEXT_POOLS[text["pool_type"]],
        },
        **({"image_proj": False} if resnet else {}),
        "text_proj": text["proj_type"] == "linear",
        "logit_bias_init": found.config.get("init_logit_bias"),
    }


def towers(found: Published, resnets: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """vision_cfg and text_cfg with defaults filled in.

    Args:
      resnets: a ResNet as image tower is allowed.

    Raises:
      ValueError: parts that are not supported.
    """
    path = found.folder / OPEN_CLIP
    vision, text = found.config["vision_cfg"], found.config["text_cfg"]
    if is_resnet(vision) and not resnets:
        raise ValueError(f"'{path}' has a ResNet image tower; only ViTs can be loaded here.")
    defaults = {**VISION, "layers": ()} if is_resnet(vision) else VISION
    vision = published.settings(vision, defaults, f"{path}: vision_cfg")
    text = published.settings(text, TEXT, f"{path}: text_cfg")
    check(found, "vision_cfg", vision, **WITHOUT)
    check(found, "text_cfg", text, **WITHOUT)
    return vision, text


def is_resnet(vision: Mapping[str, Any]) -> bool:
    """Whether vision_cfg is that of a ResNet: its layers are those of each stage."""
    return isinstance(vision.get("layers"), list)


def check(found: Published, part: str, settings: Mapping[str, Any], **allowed: tuple) -> None:
    """Raise ValueError for a setting whose value is not among those allowed."""
    for name, values in allowed.items():
        if settings.get(name, values[0]) not in values:
            raise ValueError(
                f"'{found.folder / OPEN_CLIP}' has {part}.{name} {settings[name]!r}; these values "
                f"can be loaded: {', '.join(map(repr, values))}."
            )


def tower_fields(settings: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that `ViT` and `TextTransformer` share, without the heads."""
    tanh = settings["act_kwargs"].get("approximate") == "tanh"
    gelu = "quick_gelu" if model.get("quick_gelu") else "gelu_tanh" if tanh else "gelu"
    return {
        "width": settings["width"],
        "depth": settings["layers"],
        "mlp_dim": int(settings["width"] * settings["mlp_ratio"]),
        "activation": gelu,
        "norm_epsilon": settings["norm_kwargs"].get("eps", EPSILON),
    }


def image_fields(found: Published, vision: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `ViT` without its pool; raises ValueError for heads wider than the model."""
    where, width, head_width = found.folder / OPEN_CLIP, vision["width"], vision["head_width"]
    if head_width > width:
        raise ValueError(
            f"'{where}' has vision_cfg.head_width {head_width}, of a width of {width}."
        )
    return {
        **tower_fields(vision, found.config),
        **published.image_sides(vision, f"{where}: vision_cfg"),
        "heads": width // head_width,
        **open_clip_images.pixels(found),
        "patch_bias": False,
        "pre_norm": not vision["no_ln_pre"],
    }


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer of the folder, with open_clip's text cleaning."""
    return open_clip_tokenizer.read(found.folder, found.config["text_cfg"])


def kept(found: Published) -> dict[str, Any]:
    """The ids of special tokens by their names in config.json, and the tokenizer's settings.

    `transformers` pools a CLIP at the largest id, as "argmax", where the end token is 2.
    """
    text = found.config["text_cfg"]
    end = 2 if text.get("pool_type", "argmax") == "argmax" else text.get("eos_id")
    ids = {"eos_token_id": end, "pad_token_id": text.get("pad_id")}
    ids |= {name: text.get(name) for name in TOKENIZER_SETTINGS}
    return {name: value for name, value in ids.items() if value is not None}


def rows(model: CLIP) -> list[Row]:
    """The rename table of a model."""
    image = model.image_tower(parent=None)
    if isinstance(image, ModifiedResNet):
        table = clip_resnet.rows(image)
    else:
        table = [
            *image_rows(image),
            *norm("image/norm", "visual.ln_post"),
            *same("image_proj/kernel", "visual.proj"),
        ]
    table += [
        *text_rows(model.text_tower(parent=None)),
        scalar("logit_scale"),
    ]
    if model.text_proj:
        table += same("text_proj/kernel", "text_projection")
    if model.logit_bias_init is not None:
        table.append(scalar("logit_bias"))
    return table


def scalar(name: str) -> Row:
    """A scalar, which some models store as a vector of size one."""
    return Row((name,), (name,), lambda x: (x.reshape(()),), lambda x: (x,))


def image_rows(image: ViT) -> list[Row]:
    """The image tower up to its last block."""
    patch = image.sizes["patch_size"]
    return [
        class_and_grid(
            "image/",
            ("visual.class_embedding", "visual.positional_embedding"),
            image.grid,
            batched=False,
        ),
        *patches("image/stem/projection", "visual.conv1", patch, bias=False),
        *(norm("image/pre_norm", "visual.ln_pre") if image.pre_norm else ()),
        *blocks(
            "image/transformer/layers", "visual.transformer.resblocks.{i}", image.sizes["heads"]
        ),
    ]


def text_rows(text: TextTransformer) -> list[Row]:
    """The text tower."""
    return [
        *same("text/embedding", "token_embedding.weight"),
        *same("text/position/table", "positional_embedding"),
        *blocks("text/transformer/layers", "transformer.resblocks.{i}", text.sizes["heads"]),
        *norm("text/norm", "ln_final"),
    ]


def blocks(ours: str, theirs: str, heads: int) -> list[Row]:
    """The transformer blocks of a tower."""
    attention = f"{theirs}.attn"
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.ln_1"),
        *fused_qkv(
            f"{ours}/attention/qkv",
            f"{attention}.in_proj_weight",
            f"{attention}.in_proj_bias",
            heads,
        ),
        *merge_heads(f"{ours}/attention/out", f"{attention}.out_proj", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.ln_2"),
        *linear(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc"),
        *linear(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj"),
    ]


def published_config(model: CLIP) -> dict[str, Any]:
    """open_clip_config.json for one of our models, without tokenizer and preprocessing.

    Raises:
      ValueError: settings that a CLIP of open_clip cannot have.
    """
    image = model.image_tower(parent=None)
    resnet = isinstance(image, ModifiedResNet)
    kind = ModifiedResNet if resnet else ViT
    image, text = clip.towers(model, "open_clip", kind, TextTransformer)
    image_pools = {ours: theirs for theirs, ours in IMAGE_POOLS.items()}
    text_pools = {"end": "argmax", "last": "last"}
    published.check_settings(
        "open_clip",
        {
            **({"image.features": (image.features, model.embed_dim)} if resnet else plain(image)),
            **({} if resnet else activations(image, text.activation)),
            **({} if resnet else _pool(image, image_pools)),
            "text.pool": (text.pool, _one_of(text.pool, text_pools)),
            "text.mask_padding": (text.mask_padding and not text.causal, False),
            "image_proj": (model.image_proj, not resnet),
            "proj_bias": (model.proj_bias, False),
        },
    )
    if resnet:
        vision_cfg = clip_resnet.settings(image)
    else:
        vision_cfg = {**published_image(image), "pool_type": image_pools[image.pool]}
    text_cfg = {
        **published_tower(text),
        "heads": text.sizes["heads"],
        "vocab_size": text.vocab_size,
        "context_length": text.length,
        "no_causal_mask": not text.causal,
        "pool_type": text_pools[text.pool],
        "proj_type": "linear" if model.text_proj else "none",
    }
    config = {"embed_dim": model.embed_dim, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    config["quick_gelu"] = (text if resnet else image).activation == "quick_gelu"
    bias = model.logit_bias_init
    return {"model_cfg": config | ({} if bias is None else {"init_logit_bias": bias})}


def _pool(image: ViT, known: Collection[str]) -> dict[str, tuple[Any, Any]]:
    return {
        "image.pool": (image.pool, _one_of(image.pool, known)),
        "image.class_token": (image.class_token or image.pool == "cls", True),
    }


def buffers(model: CLIP) -> dict[str, Any]:
    """Tensors of the files that are not parameters."""
    return batch_counts(rows(model))


def plain(image: ViT) -> dict[str, tuple[Any, Any]]:
    """Settings of an image tower and their values in open_clip, for `check_settings`."""
    return {
        "image.stem": (image.stem, "patch"),
        "image.position": (image.position, "learned"),
        "image.patch_bias": (image.patch_bias, False),
    }


def activations(image: ViT, text: str) -> dict[str, tuple[Any, Any]]:
    """The activations of both towers: either both have QuickGELU, or neither."""
    quick = image.activation == "quick_gelu"
    others = ("gelu", "gelu_tanh")
    return {
        "image.activation": (image.activation, _one_of(image.activation, (*others, "quick_gelu"))),
        "text.activation": (text, "quick_gelu" if quick else _one_of(text, others)),
    }


def _one_of(value: str, known: Collection[str]) -> str:
    """The value if it is known, else the first known value."""
    return value if value in known else next(iter(known))


def published_tower(tower: ViT | TextTransformer) -> dict[str, Any]:
    """The inverse of `tower_fields`."""
    width, mlp_dim = tower.sizes["width"], tower.sizes["mlp_dim"]
    ratio = mlp_dim / width
    if int(width * ratio) < mlp_dim:  # the quotient was rounded down
        ratio = math.nextafter(ratio, math.inf)
    settings = {"width": width, "layers": tower.sizes["depth"], "mlp_ratio": ratio}
    if tower.norm_epsilon != EPSILON:
        settings["norm_kwargs"] = {"eps": tower.norm_epsilon}
    if tower.activation == "gelu_tanh":
        settings["act_kwargs"] = {"approximate": "tanh"}
    return settings


def published_image(image: ViT) -> dict[str, Any]:
    """The inverse of `image_fields`."""
    height, width = image.train_size
    return {
        **published_tower(image),
        "head_width": image.sizes["width"] // image.sizes["heads"],
        "patch_size": image.sizes["patch_size"],
        "image_size": height if height == width else [height, width],
        "no_ln_pre": not image.pre_norm,
    }


def complete_config(config: dict[str, Any], pretrained: Any) -> dict[str, Any]:
    """open_clip_config.json with the tokenizer's ids and the image preprocessing.

    Raises:
      ValueError: a transform that open_clip does not support.
    """
    words, text = pretrained.tokenizer, config["model_cfg"]["text_cfg"]
    if words is None:
        before = {"eos_token_id": 2, "pad_token_id": 0, **pretrained.kept}
        text |= {name: before[name] for name in TOKENIZER_SETTINGS if name in before}
        text.setdefault("pad_id", before["pad_token_id"])
        if text.get("pool_type") == "argmax" and before["eos_token_id"] != 2:
            text |= {"pool_type": "eos", "eos_id": before["eos_token_id"]}
    else:
        reads = text.get("no_causal_mask") or text.get("pool_type") == "last"
        masked = not (reads or "multimodal_cfg" in config["model_cfg"])
        text |= open_clip_tokenizer.settings(words, masked)
        text.setdefault("pad_id", words.pad_id)
        if text.get("pool_type") == "argmax" and words.eos_id != text["vocab_size"] - 1:
            text |= {"pool_type": "eos", "eos_id": words.eos_id}
    image = pretrained.model.image_tower(parent=None)
    cfg = open_clip_images.preprocess_cfg(image, pretrained.transform)
    return {**config, "preprocess_cfg": cfg}
