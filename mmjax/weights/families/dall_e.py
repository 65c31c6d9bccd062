"""DALL-E's discrete VAE under the parameter names of openai/DALL-E (model_type "dall_e").

The published files are pickles of whole modules, which are not executed: save the state dicts of
encoder and decoder as one model.safetensors, with "encoder." and "decoder." before the names, and
in config.json the sizes by the names of the modules' attributes.
"""

import re
from typing import Any

from mmjax.models.image_codebook import GROUPS
from mmjax.models.image_tokenizer import DVAEDecoder, ImageTokenizer
from mmjax.weights import published
from mmjax.weights.families import flava_codebook
from mmjax.weights.layouts import Row, convolution, pointwise
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of dall_e.Encoder and dall_e.Decoder.
SETTINGS = {
    "group_count": GROUPS,
    "n_blk_per_group": 2,
    "n_hid": 256,
    "n_init": 128,
    "vocab_size": 8192,
    "image_size": 256,
}
SYSTEM = "image_tokenizer"
IGNORED = ()


def canonical(name: str) -> str:
    """The name in the table of a tensor of a file: as in transformers' FlavaImageCodebook, which
    has two more modules in the path of a block."""
    if name.startswith("encoder."):
        name = name.replace(".block_", ".group.block_").replace(".res_path.", ".res_path.path.")
    return re.sub(r"\.b$", ".bias", re.sub(r"\.w$", ".weight", name))


def published_name(name: str, model: ImageTokenizer) -> str:
    """The inverse of `canonical`."""
    name = name.replace(".group.block_", ".block_").replace(".res_path.path.", ".res_path.")
    return re.sub(r"\.bias$", ".b", re.sub(r"\.weight$", ".w", name))


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings of a wrong type.
    """
    settings = published.settings(found.config, SETTINGS, found.folder / published.CONFIG)
    return {
        "name": "image_tokenizer",
        "codes": settings["vocab_size"],
        "image_size": settings["image_size"],
        "width": settings["n_hid"],
        "blocks": settings["n_blk_per_group"],
        "groups": settings["group_count"],
        "first": settings["n_init"],
    }


def transform(found: Published) -> str:
    """The chain of transforms up to uint8 pixels: as in the usage notebook of openai/DALL-E."""
    size = published.settings(found.config, SETTINGS, published.CONFIG)["image_size"]
    return f"decode | resize_short({size}, 'lanczos') | center_crop({size})"


def rows(model: ImageTokenizer) -> list[Row]:
    """The rename table of a model."""
    encoder, decoder = model.towers(parent=None)
    return [*flava_codebook.rows(encoder, "encoder/", "encoder."), *_decoder(decoder)]


def _decoder(model: DVAEDecoder) -> list[Row]:
    table = [
        *pointwise("decoder/input", "decoder.blocks.input", bias=True),
        *pointwise("decoder/output", "decoder.blocks.output.conv", bias=True),
    ]
    before = model.first
    for group in range(model.groups):
        channels = model.width * 2 ** (model.groups - 1 - group)
        for block in range(model.blocks):
            ours = f"decoder/group{group}_block{block}"
            theirs = f"decoder.blocks.group_{group + 1}.block_{block + 1}"
            table += pointwise(f"{ours}_in", f"{theirs}.res_path.conv_1", bias=True)
            for i in range(3):
                path = f"{theirs}.res_path.conv_{i + 2}"
                table += convolution(f"{ours}_conv{i}", path, bias=True)
            if before != channels:
                table += pointwise(f"{ours}_identity", f"{theirs}.id_path", bias=True)
            before = channels
    return table


def published_config(model: ImageTokenizer) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: a tokenizer of another kind, or of images that are not square.
    """
    height, width = model.train_size
    square = (width, height)
    published.check_settings(
        "dall_e", {"kind": (model.kind, "gumbel"), "image_size": ((height, width), square)}
    )
    return {
        "model_type": "dall_e",
        "group_count": model.groups,
        "n_blk_per_group": model.blocks,
        "n_hid": model.width,
        "n_init": model.first,
        "vocab_size": model.codes,
        "image_size": height,
    }
