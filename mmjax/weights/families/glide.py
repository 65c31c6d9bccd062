"""GLIDE under the tensor names of openai/glide-text2im: its torch files, and folders of ours.

A folder has model.safetensors, and in config.json `model_type` "glide" with the arguments of the
original's create_model_and_diffusion.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.models.glide import GLIDE
from mmjax.models.unet import UNet
from mmjax.weights import published
from mmjax.weights.layouts import (
    Arrays,
    Row,
    convolution,
    linear,
    merge_heads,
    norm,
    pointwise,
    same,
    split_heads,
)
from mmjax.weights.published import Published
from mmjax.weights.torch_file import TorchFile

SYSTEM, TYPE = "glide", "glide"
IGNORED = ()

# The defaults of the original: model_creation.py, model_and_diffusion_defaults.
SETTINGS = {
    "image_size": 64,
    "num_channels": 192,
    "num_res_blocks": 3,
    "channel_mult": "",
    "num_head_channels": 64,
    "attention_resolutions": "32,16,8",
    "dropout": 0.1,
    "text_ctx": 128,
    "xf_width": 512,
    "xf_layers": 16,
    "xf_heads": 8,
    "n_vocab": 50257,
    "num_groups": 32,  # fixed in the original
    "diffusion_steps": 1000,
    "noise_schedule": "squaredcos_cap_v2",
    "inpaint": False,
    "super_res": False,
}
UPSAMPLER = {"image_size": 256, "num_res_blocks": 2, "noise_schedule": "linear", "super_res": True}
# What our model computes.
FIXED = {
    "xf_final_ln": True,
    "xf_padding": True,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
MULTIPLES = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}
SCHEDULES = {"linear": "linear", "squaredcos_cap_v2": "squared_cosine"}
ENLARGED = 4  # sides of an upsampler's images, over those that it gets


def is_one(shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether tensors of these names are a GLIDE's."""
    return "input_blocks.0.0.weight" in shapes and "transformer_proj.weight" in shapes


def open_file(path: Path) -> Published:
    """Open a torch file with the levels of a published one, base.pt, upsample.pt or one of those
    for inpainting; widths and the depth of the text's transformer are those of its tensors.

    Raises:
      ValueError: a file that is damaged, or a model of other levels.
    """
    tensors = TorchFile(path)
    shapes = tensors.shapes
    blocks, layers = (
        len({m.group(1) for m in map(re.compile(start).match, shapes) if m})
        for start in (r"input_blocks\.(\d+)\.", r"transformer\.resblocks\.(\d+)\.")
    )
    kinds = {16: {}, 18: UPSAMPLER}
    width, inputs = (shapes["input_blocks.0.0.weight"][axis] for axis in (0, 1))
    if blocks not in kinds or inputs not in (3, 6, 7, 10):
        raise ValueError(
            f"'{path}' is a GLIDE of {blocks} input blocks on {inputs} channels, none of the "
            "published ones: save it as safetensors in a folder with a config.json."
        )
    length, text_width = (shapes["positional_embedding"][axis] for axis in (0, 1))
    config = {"model_type": TYPE, **kinds[blocks], "inpaint": inputs in (7, 10)}
    config |= {"num_channels": width, "text_ctx": length, "xf_width": text_width}
    config |= {"xf_layers": layers, "n_vocab": shapes["token_embedding.weight"][0]}
    return Published(path, config, None, tensors)


def _numbers(text: str, name: str, where: Path) -> list[int]:
    """The numbers of a setting such as "1,2,4"; "" has none."""
    if not re.fullmatch(r"(\d{1,4}(,\d{1,4}){0,9})?", text):
        raise ValueError(f"'{where}' has {name} '{text}': numbers such as 1,2,4 are needed.")
    return [int(x) for x in text.split(",") if x]


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of a published model.

    Raises:
      ValueError: settings that our model does not support.
    """
    where = found.folder / published.CONFIG
    published.check_fixed(found, FIXED)
    s = published.settings(found.config, SETTINGS, where)
    multiples, attends = (
        _numbers(s[name], name, where) for name in ("channel_mult", "attention_resolutions")
    )
    multiples = multiples or MULTIPLES.get(s["image_size"])
    if not multiples or s["noise_schedule"] not in SCHEDULES:
        raise ValueError(
            f"'{where}' has image_size {s['image_size']} without channel_mult, or an unknown "
            f"noise_schedule '{s['noise_schedule']}': get it again."
        )
    sides = [s["image_size"] >> level for level in range(len(multiples))]
    upsamples = {"low_res": s["image_size"] // ENLARGED} if s["super_res"] else {}
    return {
        "name": SYSTEM,
        "image_size": s["image_size"],
        "backbone": {
            "kind": "unet",
            "channels": tuple(s["num_channels"] * m for m in multiples),
            "blocks": s["num_res_blocks"],
            "attention": tuple(side in attends for side in sides),
            "head_dim": s["num_head_channels"],
            "groups": s["num_groups"],
            "dropout": s["dropout"],
        },
        "text": {
            "vocab_size": s["n_vocab"],
            "length": s["text_ctx"],
            "width": s["xf_width"],
            "depth": s["xf_layers"],
            "heads": s["xf_heads"],
        },
        "text_dropout": 0.2,
        "inpaint": s["inpaint"],
        "schedule": {"name": SCHEDULES[s["noise_schedule"]], "steps": s["diffusion_steps"]},
        **upsamples,
    }


def read_tokenizer(found: Published) -> None:
    """The original's is GPT-2's without its 256 rarest: no file of the folder."""
    del found


def transform(found: Published) -> str:
    """The chain of transforms up to pixels."""
    side = published.settings(found.config, SETTINGS, found.folder)["image_size"]
    return f"decode | resize_short({side}) | center_crop({side})"


def rows(model: GLIDE) -> list[Row]:
    """The rename table of a model."""
    text = model.text_condition(parent=None)
    ours, theirs = "text_condition/transformer/layers", "transformer.resblocks.{i}"
    return [
        *unet_rows(model.make_backbone(parent=None)),
        *same("text_condition/embedding", "token_embedding.weight"),
        *same("text_condition/position/table", "positional_embedding"),
        *same("text_condition/padding/table", "padding_embedding"),
        *norm(f"{ours}/norm_attention", f"{theirs}.ln_1"),
        *_by_head(f"{ours}/attention/qkv", f"{theirs}.attn.c_qkv", text.heads, 3, 0),
        *merge_heads(f"{ours}/attention/out", f"{theirs}.attn.c_proj", text.heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.ln_2"),
        *linear(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc"),
        *linear(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj"),
        *norm("text_condition/norm", "final_ln"),
        *linear("text_condition/head", "transformer_proj"),
    ]


def unet_rows(unet: UNet) -> list[Row]:
    """The U-Net under the names of openai/guided-diffusion, with attention to a context."""
    last, width, number = len(unet.channels) - 1, unet.channels[0], 1
    table = [
        *convolution("backbone/conv_in", "input_blocks.0.0", bias=True),
        *linear("backbone/time/up", "time_embed.0"),
        *linear("backbone/time/down", "time_embed.2"),
        *norm("backbone/norm_out", "out.0"),
        *convolution("backbone/conv_out", "out.2", bias=True),
    ]
    skips = [width]
    for level, channels in enumerate(unet.channels):
        for i in range(unet.blocks):
            table += _block(f"down{level}_block{i}", f"input_blocks.{number}.0", width, channels)
            if unet.attention[level]:
                name = f"down{level}_attention{i}"
                table += _attention(unet, name, f"input_blocks.{number}.1", channels)
            width, number = channels, number + 1
            skips.append(width)
        if level < last:
            table += _block(f"down{level}_resize", f"input_blocks.{number}.0", width, width)
            skips.append(width)
            number += 1
    for i in range(2):
        table += _block(f"mid_block{i}", f"middle_block.{2 * i}", width, width)
    table += _attention(unet, "mid_attention", "middle_block.1", width)
    number = 0
    for level in range(last, -1, -1):
        channels = unet.channels[level]
        for i in range(unet.blocks + 1):
            theirs, inputs = f"output_blocks.{number}", width + skips.pop()
            table += _block(f"up{level}_block{i}", f"{theirs}.0", inputs, channels)
            width, number = channels, number + 1
            if unet.attention[level]:
                table += _attention(unet, f"up{level}_attention{i}", f"{theirs}.1", channels)
            if level and i == unet.blocks:
                place = 2 if unet.attention[level] else 1
                table += _block(f"up{level}_resize", f"{theirs}.{place}", channels, channels)
    return table


def _block(ours: str, theirs: str, inputs: int, channels: int) -> list[Row]:
    ours = f"backbone/{ours}"
    skip = pointwise(f"{ours}/skip", f"{theirs}.skip_connection", bias=True)
    return [
        *norm(f"{ours}/norm_in", f"{theirs}.in_layers.0"),
        *convolution(f"{ours}/conv_in", f"{theirs}.in_layers.2", bias=True),
        *split_heads(f"{ours}/condition", f"{theirs}.emb_layers.1", 2),
        *norm(f"{ours}/norm_out", f"{theirs}.out_layers.0"),
        *convolution(f"{ours}/conv_out", f"{theirs}.out_layers.3", bias=True),
        *(skip if inputs != channels else []),
    ]


def _attention(unet: UNet, ours: str, theirs: str, channels: int) -> list[Row]:
    heads, ours = channels // (unet.head_dim or channels), f"backbone/{ours}"
    out = merge_heads(f"{ours}/out", f"{theirs}.proj_out", heads)
    return [
        *norm(f"{ours}/norm", f"{theirs}.norm"),
        *_by_head(f"{ours}/qkv", f"{theirs}.qkv", heads, 3, 1),
        *_by_head(f"{ours}/key_value", f"{theirs}.encoder_kv", heads, 2, 1),
        out[0]._replace(read=_squeezed(out[0].read), write=_spread(out[0].write)),
        *out[1:],
    ]


def _by_head(ours: str, theirs: str, heads: int, parts: int, extra: int) -> list[Row]:
    """Queries, keys and values of each head together, `weight` [H · N · D, in] -> `kernel`
    [in, N, H, D].

    Args:
      parts: N; extra: axes of size 1 at the end of a convolution's weight.
    """

    def read(x) -> Arrays:
        x = x.reshape(heads, parts, -1, x.shape[1])
        return (x.transpose(3, 1, 0, 2),)

    def write(x) -> Arrays:
        x = x.transpose(2, 1, 3, 0)
        return (x.reshape(-1, x.shape[-1]).reshape(-1, x.shape[-1], *(1,) * extra),)

    def read_bias(x) -> Arrays:
        return (x.reshape(heads, parts, -1).transpose(1, 0, 2),)

    def write_bias(x) -> Arrays:
        return (x.transpose(1, 0, 2).reshape(-1),)

    return [
        Row((f"{ours}/kernel",), (f"{theirs}.weight",), read, write),
        Row((f"{ours}/bias",), (f"{theirs}.bias",), read_bias, write_bias),
    ]


def _squeezed(read: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """Of a convolution over a sequence by one: its weight [out, in, 1] as a matrix."""
    return lambda x: read(x[:, :, 0])


def _spread(write: Callable[..., Arrays]) -> Callable[..., Arrays]:
    return lambda x: tuple(np.asarray(y)[:, :, None] for y in write(x))


def published_config(model: GLIDE) -> dict[str, Any]:
    """config.json for one of our models: the arguments of the original.

    Raises:
      ValueError: settings that the original cannot have.
    """
    unet, text = model.make_backbone(parent=None), model.text_condition(parent=None)
    height, width, _ = model.shape
    base, schedule = unet.channels[0], model.noise_schedule
    names = {ours: theirs for theirs, ours in SCHEDULES.items()}
    published.check_settings(
        "glide",
        {
            "sides of images": (height, width),
            "gray": (model.gray, False),
            "target": (model.target, "epsilon"),
            "learned_variance": (model.learned_variance, True),
            "schedule.name": (schedule.name in names, True),
            "low_res": (model.low_res in (None, height // ENLARGED), True),
            "backbone.channels": (all(c % base == 0 for c in unet.channels), True),
            "backbone.resample": (unet.resample, "block"),
            "backbone.scale_shift": (unet.scale_shift, True),
            "backbone.mid_attention": (unet.mid_attention, True),
            "backbone.time_style": (unet.time_style, "adm"),
        },
    )
    sides = [height >> level for level, attends in enumerate(unet.attention) if attends]
    return {
        "model_type": TYPE,
        "image_size": height,
        "num_channels": base,
        "num_res_blocks": unet.blocks,
        "channel_mult": ",".join(str(c // base) for c in unet.channels),
        "num_head_channels": unet.head_dim,
        "attention_resolutions": ",".join(map(str, sides)),
        "dropout": unet.dropout,
        "num_groups": unet.groups,
        "text_ctx": text.length,
        "xf_width": text.width,
        "xf_layers": text.depth,
        "xf_heads": text.heads,
        "n_vocab": text.vocab_size,
        "diffusion_steps": schedule.steps,
        "noise_schedule": names[schedule.name],
        "inpaint": model.inpaint,
        "super_res": model.low_res is not None,
        **FIXED,
    }
