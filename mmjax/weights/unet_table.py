"""U-Nets of diffusers: their settings as fields of our `UNet`, and their tensors as its rows."""

from collections.abc import Mapping
from typing import Any

from mmjax.models.unet import UNet
from mmjax.weights import published
from mmjax.weights.layouts import (
    Row,
    convolution,
    linear,
    merge_heads,
    norm,
    pointwise,
    qkv,
    same,
    split_heads,
)

UNET, CONDITIONED = "UNet2DModel", "UNet2DConditionModel"
# Settings that config.json may omit: defaults of both classes, then those that differ.
SETTINGS = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "dropout": 0.0,
    "flip_sin_to_cos": True,
    "freq_shift": None,
    "resnet_time_scale_shift": "default",
    "attention_head_dim": None,
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "downsample_type": "conv",
    "upsample_type": "conv",
}
# Of a level: whether it attends, whether residual blocks resize; None: see `downsample_type`.
DOWN = {
    "DownBlock2D": (False, False),
    "AttnDownBlock2D": (True, None),
    "ResnetDownsampleBlock2D": (False, True),
    "SimpleCrossAttnDownBlock2D": (True, True),
}
UP = {
    "UpBlock2D": (False, False),
    "AttnUpBlock2D": (True, None),
    "ResnetUpsampleBlock2D": (False, True),
    "SimpleCrossAttnUpBlock2D": (True, True),
}
# What our model computes, of either class; None stands for the default of the class.
FIXED = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "mid_block_scale_factor": (1,),
}
FIXED_CONDITIONED = {
    "class_embed_type": (None, "identity"),
    "class_embeddings_concat": (False,),
    "only_cross_attention": (False,),
    "cross_attention_norm": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "addition_embed_type": (None,),
    "num_class_embeds": (None,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn",),
    "mid_block_only_cross_attention": (None, False),
    "norm_eps": (1e-5,),
}


def fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of `UNet` from config.json of either class.

    Raises:
      ValueError: settings that our model does not have.
    """
    conditioned = config.get("_class_name") == CONDITIONED
    settings = published.settings(config, SETTINGS, where)
    for name, allowed in (FIXED | (FIXED_CONDITIONED if conditioned else {})).items():
        if config.get(name, allowed[0]) not in allowed:
            raise _unsupported(where, name, config[name])
    down, up = (settings[f"{way}_block_types"] for way in ("down", "up"))
    kinds = [DOWN.get(name) for name in down], [UP.get(name) for name in reversed(up)]
    if None in kinds[0] or kinds[0] != kinds[1]:
        raise _unsupported(where, "down_block_types and up_block_types", (*down, *up))
    types = {settings[f"{way}_type"] for way in ("downsample", "upsample")}
    # The last level does not resize.
    resized = {r for _, r in kinds[0][:-1] if r is not None}
    resized |= {kind == "resnet" for kind in types if any(r is None for _, r in kinds[0][:-1])}
    if len(resized) > 1:
        raise _unsupported(where, "kinds of resizing, of which it may have one,", sorted(types))
    scale_shift = settings["resnet_time_scale_shift"] == "scale_shift"
    attends = config.get("mid_block_type", "UNetMidBlock2D") is not None and (
        conditioned or config.get("add_attention", True)
    )
    groups = settings["norm_num_groups"]
    default = None if scale_shift else groups
    if attends and not conditioned and (config.get("attn_norm_num_groups") or default) != groups:
        raise _unsupported(where, "attn_norm_num_groups", config.get("attn_norm_num_groups"))
    shift, cosines = settings["freq_shift"] or 0, settings["flip_sin_to_cos"]
    if (shift, cosines) not in ((0, True), (1, False)):
        raise _unsupported(where, "freq_shift and flip_sin_to_cos", (shift, cosines))
    padding = config.get("downsample_padding", 1)
    if padding not in (0, 1):
        raise _unsupported(where, "downsample_padding", padding)
    return {
        "channels": tuple(settings["block_out_channels"]),
        "blocks": settings["layers_per_block"],
        "attention": tuple(attention for attention, _ in kinds[0]),
        "mid_attention": bool(attends),
        "head_dim": config.get("attention_head_dim", 8),
        "groups": groups,
        "epsilon": settings["norm_eps"],
        "scale_shift": scale_shift,
        "resample": "block" if resized == {True} else "convolution",
        "down_padding": (padding, padding) if padding else (0, 1),
        "time_style": "adm" if cosines else "ddpm",
        "dropout": settings["dropout"],
    }


def _unsupported(where: str, name: str, value: Any) -> ValueError:
    return ValueError(f"'{where}' has {name} {value!r}, which our U-Net does not: not loaded.")


def rows(model: UNet, ours: str = "", theirs: str = "", context: bool = False) -> list[Row]:
    """The rename table of a U-Net, with prefixes of our and of their names.

    Args:
      context: attention has keys and values of a context too.
    """
    last = len(model.channels) - 1
    table = [
        *convolution(f"{ours}conv_in", f"{theirs}conv_in", bias=True),
        *linear(f"{ours}time/up", f"{theirs}time_embedding.linear_1"),
        *linear(f"{ours}time/down", f"{theirs}time_embedding.linear_2"),
        *norm(f"{ours}norm_out", f"{theirs}conv_norm_out"),
        *convolution(f"{ours}conv_out", f"{theirs}conv_out", bias=True),
    ]
    if model.classes:
        table += same(f"{ours}class_table", f"{theirs}class_embedding.weight")
    width = model.channels[0]
    skips = [width]

    def block(own, other, inputs, channels):
        return _block(model, f"{ours}{own}", f"{theirs}{other}", inputs != channels)

    def attention(own, other, channels):
        return _attention(model, f"{ours}{own}", f"{theirs}{other}", channels, context)

    def resize(own, other, channels):
        if model.resample == "block":
            return block(own, other, channels, channels)
        return convolution(f"{ours}{own}", f"{theirs}{other}.conv", bias=True)

    for level, channels in enumerate(model.channels):
        own, other = f"down{level}", f"down_blocks.{level}"
        for i in range(model.blocks):
            table += block(f"{own}_block{i}", f"{other}.resnets.{i}", width, channels)
            if model.attention[level]:
                table += attention(f"{own}_attention{i}", f"{other}.attentions.{i}", channels)
            width = channels
            skips.append(width)
        if level < last:
            table += resize(f"{own}_resize", f"{other}.downsamplers.0", channels)
            skips.append(width)
    for i in range(2):
        table += block(f"mid_block{i}", f"mid_block.resnets.{i}", width, width)
    if model.mid_attention:
        table += attention("mid_attention", "mid_block.attentions.0", width)
    for level in range(last, -1, -1):
        channels = model.channels[level]
        own, other = f"up{level}", f"up_blocks.{last - level}"
        for i in range(model.blocks + 1):
            inputs = width + skips.pop()
            table += block(f"{own}_block{i}", f"{other}.resnets.{i}", inputs, channels)
            if model.attention[level]:
                table += attention(f"{own}_attention{i}", f"{other}.attentions.{i}", channels)
            width = channels
        if level:
            table += resize(f"{own}_resize", f"{other}.upsamplers.0", channels)
    return table


def _block(model: UNet, ours: str, theirs: str, skip: bool) -> list[Row]:
    parts = 2 if model.scale_shift else 1
    table = [
        *norm(f"{ours}/norm_in", f"{theirs}.norm1"),
        *convolution(f"{ours}/conv_in", f"{theirs}.conv1", bias=True),
        *split_heads(f"{ours}/condition", f"{theirs}.time_emb_proj", parts),
        *norm(f"{ours}/norm_out", f"{theirs}.norm2"),
        *convolution(f"{ours}/conv_out", f"{theirs}.conv2", bias=True),
    ]
    return table + (pointwise(f"{ours}/skip", f"{theirs}.conv_shortcut", bias=True) if skip else [])


def _attention(model: UNet, ours: str, theirs: str, channels: int, context: bool) -> list[Row]:
    heads = channels // (model.head_dim or channels)
    own = [f"{theirs}.to_{part}" for part in "qkv"]
    added = [f"{theirs}.add_{part}_proj" for part in "kv"]
    return [
        *norm(f"{ours}/norm", f"{theirs}.group_norm"),
        *qkv(f"{ours}/qkv", own, heads),
        *(qkv(f"{ours}/key_value", added, heads) if context else []),
        *merge_heads(f"{ours}/out", f"{theirs}.to_out.0", heads),
    ]


def config_of(model: UNet, class_name: str = UNET) -> dict[str, Any]:
    """config.json for a U-Net of ours, but its input and sizes.

    Raises:
      ValueError: a model that diffusers' class cannot be.
    """
    conditioned = class_name == CONDITIONED
    if conditioned and (model.resample != "block" or model.attention[0] or not model.mid_attention):
        raise ValueError(f"This U-Net cannot be saved as a '{class_name}' of diffusers.")
    attends = "SimpleCrossAttn{}Block2D" if conditioned else "Attn{}Block2D"
    block = model.resample == "block"
    plain = "Resnet{}sampleBlock2D" if block else "{}Block2D"
    down = [(attends if a else plain).format("Down") for a in model.attention]
    up = [(attends if a else plain).format("Up") for a in reversed(model.attention)]
    settings = {
        "_class_name": class_name,
        "block_out_channels": list(model.channels),
        "layers_per_block": model.blocks,
        "out_channels": model.out_channels,
        "down_block_types": down,
        "up_block_types": up,
        "attention_head_dim": model.head_dim,
        "norm_num_groups": model.groups,
        "norm_eps": model.epsilon,
        "dropout": model.dropout,
        "resnet_time_scale_shift": "scale_shift" if model.scale_shift else "default",
        "downsample_padding": 0 if model.down_padding == (0, 1) else model.down_padding[0],
        "flip_sin_to_cos": model.time_style == "adm",
        "freq_shift": 0 if model.time_style == "adm" else 1,
        "act_fn": "silu",
    }
    if conditioned:
        return settings | {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}
    resized = "resnet" if block else "conv"
    settings |= {"downsample_type": resized, "upsample_type": resized}
    settings |= {"add_attention": model.mid_attention, "attn_norm_num_groups": model.groups}
    return settings | ({"num_class_embeds": model.classes} if model.classes else {})
