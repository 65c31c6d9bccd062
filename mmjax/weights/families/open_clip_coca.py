"""CoCa as published by open_clip: open_clip_config.json, and the names of its state dict."""

from typing import Any

from mmjax.layers.decoder import Decoder
from mmjax.models.coca import CoCa
from mmjax.weights import published
from mmjax.weights.families import open_clip
from mmjax.weights.layouts import (
    Row,
    fused_cross,
    fused_qkv,
    linear,
    merge_heads,
    norm,
    same,
    transposed,
)
from mmjax.weights.published import OPEN_CLIP, Published

SYSTEM, LAYOUT, IGNORED = "coca", open_clip.LAYOUT, open_clip.IGNORED

# Settings that open_clip_config.json may omit: defaults of MultimodalCfg and CLIPVisionCfg.
MULTIMODAL = {"width": 512, "heads": 8, "layers": 12, "context_length": 77, "vocab_size": 49408}
VISION = {"attn_pooler_queries": 256, "attn_pooler_heads": 8}

canonical = open_clip.canonical
transform = open_clip.transform
read_tokenizer = open_clip.read_tokenizer
complete_config = open_clip.complete_config
kept = open_clip.kept


def published_name(name: str, model: CoCa) -> str:
    """The inverse of `canonical`: names of the text's first half begin with "text."."""
    del model
    whole = name.startswith(("visual.", "text_decoder.", "logit_scale"))
    return name if whole else f"text.{name}"


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    vision, text = open_clip.towers(found)
    path = found.folder / OPEN_CLIP
    vision = published.settings(vision, VISION, f"{path}: vision_cfg")
    multimodal = published.section(found.config, "multimodal_cfg", path)
    multimodal = published.settings(multimodal, MULTIMODAL, f"{path}: multimodal_cfg")
    open_clip.check(found, "vision_cfg", vision, attentional_pool=(True,), pool_type=("tok",))
    open_clip.check(found, "text_cfg", text, embed_cls=(True,), no_causal_mask=(False,))
    both = {name: text[name] for name in ("width", "heads", "context_length", "vocab_size")}
    both["mlp_ratio"], both["ls_init_value"] = 4.0, None  # open_clip supports only these
    for name, value in both.items():
        open_clip.check(found, "multimodal_cfg", multimodal, **{name: (value,)})
    open_clip.check(found, "text_cfg", text, mlp_ratio=(4.0,), norm_kwargs=({},))
    open_clip.check(found, "text_cfg", text, act_kwargs=({},))
    open_clip.check(found, "vision_cfg", vision, norm_kwargs=({},))  # used by the pooler too
    if text["width"] != found.config["embed_dim"]:
        raise ValueError(
            f"'{found.folder / OPEN_CLIP}' has embed_dim {found.config['embed_dim']} and "
            f"text_cfg.width {text['width']}: a CoCa's text attends to images of its own width."
        )
    fields = open_clip.tower_fields(text, found.config)
    return {
        "name": "coca",
        "embed_dim": found.config["embed_dim"],
        "image": {
            **open_clip.image_fields(found, vision),
            "class_token": True,
            "pool": "all",
        },
        "text": {
            "vocab_size": text["vocab_size"],
            "width": text["width"],
            "length": text["context_length"],
            "tied": False,
            "decoder": {
                "depth": text["layers"] + multimodal["layers"],
                "heads": text["heads"],
                "mlp_dim": fields["mlp_dim"],
                "activation": fields["activation"],
                "epsilon": fields["norm_epsilon"],
                "cross_block": True,
            },
        },
        "unimodal_depth": text["layers"],
        "caption_queries": vision["attn_pooler_queries"],
        "pool_heads": vision["attn_pooler_heads"],
        "contrastive_query": True,
        "text_norm": True,
        "class_token_pad": text.get("pad_id", 0),
    }


def rows(model: CoCa) -> list[Row]:
    """The rename table of a model."""
    image = model.image_tower(parent=None)
    heads, decoder = model.text["decoder"]["heads"], "text_decoder"
    pool = "visual.attn_pool"
    split = image.sizes["width"] != model.embed_dim  # otherwise torch stores one tensor
    names = [f"{pool}.attn.{x}_proj_weight" for x in "qkv"]
    return [
        *open_clip.image_rows(image),
        *same("caption_pool/queries", f"{pool}.query"),
        *norm("caption_pool/norm_queries", f"{pool}.ln_q"),
        *norm("caption_pool/norm_input", f"{pool}.ln_k"),
        *fused_cross(
            "caption_pool/attention",
            names if split else [f"{pool}.attn.in_proj_weight"],
            f"{pool}.attn.in_proj_bias",
            model.pool_heads,
        ),
        *merge_heads("caption_pool/attention/out", f"{pool}.attn.out_proj", model.pool_heads),
        *norm("caption_pool/norm", "visual.ln_post"),
        *same("image_proj/kernel", "visual.proj"),
        *same("embed/embedding", "token_embedding.weight"),
        *same("class_token", "cls_emb"),
        *same("unimodal/position/table", "positional_embedding"),
        *_blocks("unimodal/stack/layers", "transformer.resblocks.{i}", heads),
        *norm("text_norm", "ln_final"),
        *same("text_proj/kernel", "text_projection"),
        *_blocks("multimodal/stack/layers", f"{decoder}.resblocks.{{i}}", heads),
        *_cross("multimodal/stack/cross", f"{decoder}.cross_attn.{{i}}", heads),
        *norm("multimodal/norm", f"{decoder}.ln_final"),
        *transposed("embed/head", f"{decoder}.text_projection"),
        open_clip.scalar("logit_scale"),
    ]


def _blocks(ours: str, theirs: str, heads: int) -> list[Row]:
    """Layers of a decoder."""
    attention = f"{theirs}.attn.in_proj"
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.ln_1"),
        *fused_qkv(f"{ours}/attention/qkv", f"{attention}_weight", f"{attention}_bias", heads),
        *_rest(ours, theirs, heads),
    ]


def _rest(ours: str, theirs: str, heads: int) -> list[Row]:
    """The parts of a layer after its attention."""
    return [
        *merge_heads(f"{ours}/attention/out", f"{theirs}.attn.out_proj", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.ln_2"),
        *linear(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc"),
        *linear(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj"),
    ]


def _cross(ours: str, theirs: str, heads: int) -> list[Row]:
    """The cross-attention blocks."""
    attention = f"{theirs}.attn.in_proj"
    weights = [f"{attention}_weight"]
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.ln_1"),
        *norm(f"{ours}/norm_context", f"{theirs}.ln_1_kv"),
        *fused_cross(f"{ours}/attention", weights, f"{attention}_bias", heads),
        *_rest(ours, theirs, heads),
    ]


def published_config(model: CoCa) -> dict[str, Any]:
    """open_clip_config.json for one of our models, without tokenizer and preprocessing.

    Raises:
      ValueError: settings that a CoCa of open_clip cannot have.
    """
    image, text = model.image_tower(parent=None), model.text
    quick = image.activation == "quick_gelu"
    first, second = (Decoder(**half, parent=None) for half in model.halves())
    decoder = {
        "norm": (first.norm, "layer"),
        "gated_mlp": (first.gated_mlp, False),
        **{name: (has, True) for name, has in first.biases.items()},
        "sliding_window": (first.sliding_window, None),
        "positions": (first.positions, "learned"),
        "kv_heads": (first.kv_heads, None),
        "head_dim": (first.head_dim, None),
        "mlp_dim": (first.mlp_dim, 4 * text["width"]),
        "epsilon": (first.epsilon, open_clip.EPSILON),
        "cross_gated": (second.cross_gated, False),
        "cross_block": (second.cross_block, True),
        "activation": (first.activation, "quick_gelu" if quick else "gelu"),
    }
    published.check_settings(
        "open_clip_coca",
        {
            **open_clip.plain(image),
            "image.pool": (image.pool, "all"),
            "image.class_token": (image.class_token, True),
            "image.activation": (image.activation, "quick_gelu" if quick else "gelu"),
            "image.norm_epsilon": (image.norm_epsilon, open_clip.EPSILON),
            "text.width": (text["width"], model.embed_dim),
            "text.tied": (text.get("tied", True), False),
            **{f"text.decoder.{name}": pair for name, pair in decoder.items()},
            "contrastive_query": (model.contrastive_query, True),
            "text_norm": (model.text_norm, True),
            "class_token_pad is set": (model.class_token_pad is not None, True),
        },
    )
    both = {"width": text["width"], "heads": first.heads}
    both |= {"context_length": text["length"], "vocab_size": text["vocab_size"]}
    vision_cfg = {
        **open_clip.published_image(image),
        "attentional_pool": True,
        "attn_pooler_queries": model.caption_queries,
        "attn_pooler_heads": model.pool_heads or first.heads,
        "output_tokens": True,
    }
    text_cfg = {**both, "layers": first.depth, "pad_id": model.class_token_pad}
    config = {
        "embed_dim": model.embed_dim,
        "quick_gelu": quick,
        "custom_text": True,
        "vision_cfg": vision_cfg,
        "text_cfg": {**text_cfg, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**both, "layers": second.depth},
    }
    return {"model_cfg": config}
