"""SigLIP 2 NaFlex, of any resolution, in the layout of `transformers` ("siglip2").

SigLIP 2 of fixed resolution has the layout of SigLIP, and says so: `siglip.py`.
"""

import math
from typing import Any

from mmjax.models.clip import CLIP
from mmjax.models.naflex import NaFlex
from mmjax.models.text import TextTransformer
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.families import clip, siglip
from mmjax.weights.layouts import Row, grid, linear
from mmjax.weights.published import Published

# Defaults of Siglip2VisionConfig; those of Siglip2TextConfig are SigLIP's.
VISION = {k: v for k, v in siglip.VISION.items() if k != "image_size"} | {"num_patches": 256}
SYSTEM = "clip"
IGNORED = siglip.IGNORED
read_tokenizer = siglip.read_tokenizer


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    vision = published.tower(found, VISION, "vision_config")
    where = f"'{found.folder / published.CONFIG}'"
    side, patch = math.isqrt(max(0, vision["num_patches"])), vision["patch_size"]
    if not {"patch_size", "max_num_patches"} <= found.preprocessor.keys():
        raise ValueError(
            f"{where} is of a NaFlex, and the image processor beside it makes no patches: only a "
            "Siglip2ImageProcessor does."
        )
    if not side or side**2 != vision["num_patches"]:
        raise ValueError(
            f"{where} has num_patches {vision['num_patches']}, which is no square: the position "
            "table of a NaFlex has as many rows as columns."
        )
    if found.preprocessor["patch_size"] != patch:
        raise ValueError(
            f"{where} has patch_size {patch}, and the image processor beside it "
            f"{found.preprocessor['patch_size']}: they are from different models."
        )
    siglip.check_head(found, vision)
    images = image_processor.read(found.preprocessor)
    return siglip.both_towers(
        found,
        {
            "kind": "naflex",
            **encoder_config.read(vision, "vision_config"),
            "patch_size": patch,
            "position_grid": (side, side),
            "max_patches": found.preprocessor["max_num_patches"],
            "image_mean": images.mean,
            "image_std": images.std,
        },
    )


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("Siglip2ImageProcessor", "vision_config")


def rows(model: CLIP) -> list[Row]:
    """The rename table of a model."""
    image, embeddings = model.image_tower(parent=None), "vision_model.embeddings"
    table = f"{embeddings}.position_embedding.weight"
    return [
        *linear("image/stem/projection", f"{embeddings}.patch_embedding"),
        *grid("image/position/table", table, image.position_grid),
        *siglip.encoder_rows(image.sizes["heads"]),
        *siglip.head_rows(image.sizes["heads"]),
        *siglip.other_rows(model),
    ]


def published_config(model: CLIP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published SigLIP 2 NaFlex cannot have.
    """
    image, text = clip.towers(model, "siglip2", NaFlex, TextTransformer)
    square = {"image.position_grid": (tuple(image.position_grid), (image.position_grid[0],) * 2)}
    published.check_settings("siglip2", {**square, **siglip.plain_rest(model, text)})
    return {
        "model_type": "siglip2",
        "architectures": ["Siglip2Model"],
        "vision_config": {
            **encoder_config.write(image),
            "model_type": "siglip2_vision_model",
            "patch_size": image.sizes["patch_size"],
            "num_patches": math.prod(image.position_grid),
        },
        "text_config": siglip.published_text(model, text, "siglip2_text_model"),
    }


def published_preprocessor(model: CLIP, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    return image_processor.write_patches(model.image_tower(parent=None), transform)
