"""The residual image tower of OpenAI's CLIP, in the files of open_clip and of AudioCLIP."""

from collections.abc import Mapping
from typing import Any

from mmjax.models.resnet import ModifiedResNet
from mmjax.weights.layouts import (
    Row,
    batch_norm,
    convolution,
    merge_heads,
    qkv,
    same,
    split_heads,
)


def fields(settings: Mapping[str, Any], embed_dim: int) -> dict[str, Any]:
    """Fields of `ModifiedResNet` from vision_cfg, without the means of the pixels."""
    return {
        "kind": "resnet",
        "layers": tuple(settings["layers"]),
        "width": settings["width"],
        "heads": settings["width"] * 32 // settings.get("head_width", 64),
        "features": embed_dim,
        "image_size": settings["image_size"],
    }


def settings(image: ModifiedResNet) -> dict[str, Any]:
    """The inverse of `fields`."""
    height, width = image.train_size
    return {
        "layers": list(image.layers),
        "width": image.width,
        "head_width": image.width * 32 // image.heads,
        "image_size": height if height == width else [height, width],
        "patch_size": None,
    }


def rows(image: ModifiedResNet) -> list[Row]:
    """The rename table of the tower."""
    pool, names = "visual.attnpool", ("visual.attnpool.k_proj", "visual.attnpool.v_proj")
    table = [
        *same("image/pool/position", f"{pool}.positional_embedding"),
        *split_heads("image/pool/query", f"{pool}.q_proj", image.heads),
        *qkv("image/pool/key_value", names, image.heads),
        *merge_heads("image/pool/out", f"{pool}.c_proj", image.heads),
    ]
    for i in range(3):
        table += convolution(f"image/stem_conv{i}", f"visual.conv{i + 1}")
        table += batch_norm(f"image/stem_norm{i}", f"visual.bn{i + 1}")
    for stage, depth in enumerate(image.layers):
        for place in range(depth):
            block = f"image/stage{stage}_block{place}"
            table += bottleneck(block, f"visual.layer{stage + 1}.{place}", place == 0)
    return table


def bottleneck(ours: str, theirs: str, skips: bool) -> list[Row]:
    """A block of three convolutions, and one of the skip connection if it `skips`."""
    table = []
    for i, name in enumerate(("in", "mid", "out"), start=1):
        table += convolution(f"{ours}/conv_{name}", f"{theirs}.conv{i}")
        table += batch_norm(f"{ours}/norm_{name}", f"{theirs}.bn{i}")
    if skips:
        table += convolution(f"{ours}/conv_skip", f"{theirs}.downsample.0")
        table += batch_norm(f"{ours}/norm_skip", f"{theirs}.downsample.1")
    return table
