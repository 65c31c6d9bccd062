"""CCT, CVT and ViT-Lite of SHI-Labs/Compact-Transformers: torch files of state dicts.

The files name no settings: all but the heads, which have 64 channels in every published model, and
the data set are sizes of tensors. Fixed sinusoids are tensors there, and load as learned positions.
"""

import math
import re
from pathlib import Path
from typing import Any

from mmjax.layers.conv_tokenizer import ConvTokenizer
from mmjax.models.vit import ViT
from mmjax.weights.layouts import (
    Arrays,
    Row,
    class_and_grid,
    convolution,
    fused_qkv,
    linear,
    merge_heads,
    norm,
    patches,
)
from mmjax.weights.published import Published
from mmjax.weights.torch_file import TorchFile

TYPE = "compact_transformers"
IGNORED = ()
HEAD = 64  # channels of a head
STEM = "tokenizer.conv_layers.0.0"
POSITIONS = "classifier.positional_emb"
# Mean and deviation of the pixels by the number of classes, of images of 32 pixels, and of others:
# configs/datasets/ of the repository.
CIFAR = {
    10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    100: ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CROP = 0.9  # crop_pct, of images of more than 32 pixels


def is_one(shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether tensors of these names are of such a model."""
    return f"{STEM}.weight" in shapes and "classifier.fc.weight" in shapes


def open_file(path: Path) -> Published:
    """Open a torch file of a model, such as cct2-3x2_cifar10.pth.

    Raises:
      ValueError: a file that is damaged, or a model without positions or of heads of another width.
    """
    tensors = TorchFile(path)
    shapes = tensors.shapes
    width, kernel = shapes["classifier.fc.weight"][1], shapes[f"{STEM}.weight"][-1]
    blocks, layers = (
        len({m.group(1) for m in map(re.compile(start).match, shapes) if m})
        for start in (r"classifier\.blocks\.(\d+)\.", r"tokenizer\.conv_layers\.(\d+)\.")
    )
    if POSITIONS not in shapes or width % HEAD:
        raise ValueError(
            f"'{path}' is a Compact Transformer of width {width} with "
            f"{'a' if POSITIONS in shapes else 'no'} table of positions: only those with one, and "
            f"with heads of {HEAD} channels, can be loaded."
        )
    pooled = f"{STEM}.bias" not in shapes  # convolutions with pooling, and not patches
    patch = (2 * max(1, kernel // 2 - 1)) ** layers if pooled else kernel
    sequence = "classifier.attention_pool.weight" in shapes
    side = math.isqrt(max(0, shapes[POSITIONS][1] - (not sequence)))
    config = {
        "model_type": TYPE,
        "width": width,
        "depth": blocks,
        "mlp_dim": shapes["classifier.blocks.0.linear1.weight"][0],
        "kernel": kernel,
        "patch": patch,
        "image_size": side * patch,
        "pooled": pooled,
        "sequence": sequence,
        "classes": shapes["classifier.fc.weight"][0],
    }
    return Published(path, config, None, tensors)


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of a published model."""
    given, size = found.config, found.config["image_size"]
    mean, std = CIFAR.get(given["classes"], IMAGENET) if size == 32 else IMAGENET
    stem = {"stem": "conv_pool", "stem_kernel": given["kernel"]} if given["pooled"] else {}
    return {
        "name": "vit",
        "width": given["width"],
        "depth": given["depth"],
        "heads": given["width"] // HEAD,
        "mlp_dim": given["mlp_dim"],
        "patch_size": given["patch"],
        "image_size": size,
        "image_mean": mean,
        "image_std": std,
        "pool": "sequence" if given["sequence"] else "cls",
        "block_norm": "between",
        "norm_epsilon": 1e-5,
        "qkv_bias": False,
        "num_classes": given["classes"],
        **stem,
    }


def transform(found: Published) -> str:
    """The chain of transforms up to uint8 pixels, as timm's for the repository's settings."""
    size = found.config["image_size"]
    if size <= 32:
        return f"decode | resize({size}, 'bicubic')"
    short = math.floor(size / CROP)
    return f"decode | resize_short({short}, 'bicubic') | center_crop(({size}, {size}), 'even')"


def rows(model: ViT) -> list[Row]:
    """The rename table of a model."""
    sizes, ours, theirs = model.sizes, "transformer/layers", "classifier.blocks.{i}"
    heads, patch = sizes["heads"], sizes["patch_size"]
    table = [
        *norm(f"{ours}/norm_attention", f"{theirs}.pre_norm"),
        *fused_qkv(f"{ours}/attention/qkv", f"{theirs}.self_attn.qkv.weight", None, heads),
        *merge_heads(f"{ours}/attention/out", f"{theirs}.self_attn.proj", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.norm1"),
        *linear(f"{ours}/mlp/up", f"{theirs}.linear1"),
        *linear(f"{ours}/mlp/down", f"{theirs}.linear2"),
        *norm("norm", "classifier.norm"),
        *linear("head", "classifier.fc"),
    ]
    if model.stem == "patch":
        table += patches("stem/projection", STEM, patch)
    else:
        for i in range(ConvTokenizer(patch, 1, model.stem_kernel).layers):
            table += convolution(f"stem/conv{i}", f"tokenizer.conv_layers.{i}.0")
    if model.pool == "cls":
        names = ("classifier.class_emb", POSITIONS)
        return [*table, class_and_grid("", names, model.grid)]
    if model.position == "learned":
        table.append(_grid(model))
    return [*table, *linear("pool/weight", "classifier.attention_pool")]


def _grid(model: ViT) -> Row:
    """Positions [1, h · w, D] -> [h, w, D]."""

    def read(x) -> Arrays:
        return (x[0].reshape(*model.grid, -1),)

    def write(x) -> Arrays:
        return (x.reshape(1, -1, x.shape[-1]),)

    return Row(("position/table",), (POSITIONS,), read, write)
