"""FLAVA's image codebook, the encoder of DALL-E's dVAE (model_type "flava_image_codebook")."""

from collections.abc import Mapping
from typing import Any

from mmjax.models.image_codebook import GROUPS, DVAEEncoder
from mmjax.weights import image_defaults, image_processor, published
from mmjax.weights.layouts import Row, convolution, pointwise
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of FlavaImageCodebookConfig.
SETTINGS = {
    "num_groups": GROUPS,
    "num_blocks_per_group": 2,
    "hidden_size": 256,
    "vocab_size": 8192,
    "input_channels": 3,
}
PROCESSOR = "FlavaImageProcessor"
SOURCE = image_processor.Source(PROCESSOR, "image_config")
PREFIX = "codebook_"  # of the codebook's settings in the image processor
SYSTEM = "image_codebook"
IGNORED = ()
# Pixels in 0 ... 1 are mapped to MARGIN ... 1 - MARGIN (`logit_laplace_eps` of openai/DALL-E).
MARGIN = 0.1


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with all settings of its image processor; notes if it has no file of them."""
    if found.preprocessor is not None:
        return image_processor.complete(found, SOURCE)
    note = "no settings of an image processor: those of the published model"
    return found._replace(preprocessor=image_defaults.CLASSES[PROCESSOR]), [note]


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    where = found.folder / published.CONFIG
    return {"name": "image_codebook", **fields(found, found.config, str(where))}


def fields(found: Published, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of `DVAEEncoder` from its section of config.json and the image processor.

    Raises:
      ValueError: settings that our model does not support.
    """
    settings = published.settings(config, SETTINGS, where)
    if settings["num_groups"] != GROUPS or settings["input_channels"] != 3:
        raise ValueError(
            f"'{where}' describes an image codebook of {settings['num_groups']} groups and "
            f"{settings['input_channels']} channels; only one of {GROUPS} and 3 can be loaded."
        )
    _, mean, std = images(found)
    return {
        "vocab_size": settings["vocab_size"],
        "width": settings["hidden_size"],
        "blocks": settings["num_blocks_per_group"],
        "image_size": size(found)[0],
        "image_mean": mean,
        "image_std": std,
    }


def images(found: Published) -> image_processor.Images:
    """The codebook's image transforms, and mean and std with its own map of the pixels in them.

    Raises:
      ValueError: settings that our transforms do not support.
    """
    settings = of_codebook(found.preprocessor)
    steps, mean, std = image_processor.read(settings)
    if settings["do_map_pixels"]:
        scale = 1 / (1 - 2 * MARGIN)
        mean = tuple(m - MARGIN * scale * s for m, s in zip(mean, std))
        std = tuple(scale * s for s in std)
    return image_processor.Images(steps, mean, std)


def of_codebook(preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the codebook's images, under the names of an image processor's own."""
    own = {k.removeprefix(PREFIX): x for k, x in preprocessor.items() if k.startswith(PREFIX)}
    return {**own, "default_to_square": True}


def size(found: Published) -> tuple[tuple[int, int], str]:
    """(height, width) of the codebook's images, and the filter that resizes to it.

    Raises:
      ValueError: images that are not resized to that size.
    """
    settings = of_codebook(found.preprocessor)
    height_width = image_processor.sides(settings["size"], f"{PREFIX}size")
    crop = settings["crop_size"] if settings["do_center_crop"] else settings["size"]
    if not settings["do_resize"] or image_processor.sides(crop, f"{PREFIX}crop") != height_width:
        raise ValueError(
            f"The image processor of '{found.folder}' crops the codebook's images, which are "
            f"resized to {height_width}, to {crop}: only uncropped images can be read."
        )
    return height_width, image_processor.pillow_filter(settings["resample"])


def transform(found: Published) -> str:
    """The chain of transforms up to uint8 pixels."""
    return images(found).transform


def rows(model: DVAEEncoder, ours: str = "", theirs: str = "") -> list[Row]:
    """The rename table of a model, with prefixes of our and of the published names."""
    blocks = f"{theirs}blocks"
    table = [
        *convolution(f"{ours}input", f"{blocks}.input", bias=True),
        *pointwise(f"{ours}output", f"{blocks}.output.conv", bias=True),
    ]
    for group in range(model.groups):
        for block in range(model.blocks):
            own = f"{ours}group{group}_block{block}"
            published_block = f"{blocks}.group_{group + 1}.group.block_{block + 1}"
            path = f"{published_block}.res_path.path"
            for i in range(3):
                table += convolution(f"{own}_conv{i}", f"{path}.conv_{i + 1}", bias=True)
            table += pointwise(f"{own}_out", f"{path}.conv_4", bias=True)
            if group and not block:
                table += pointwise(f"{own}_identity", f"{published_block}.id_path", bias=True)
    return table


def published_config(model: DVAEEncoder) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: another number of groups than the published one.
    """
    published.check_settings("flava_image_codebook", {"groups": (model.groups, GROUPS)})
    return {
        "model_type": "flava_image_codebook",
        "architectures": ["FlavaImageCodebook"],
        "num_groups": GROUPS,
        "num_blocks_per_group": model.blocks,
        "hidden_size": model.width,
        "vocab_size": model.vocab_size,
    }


def published_preprocessor(model: DVAEEncoder, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    written = image_processor.write(model, transform, PROCESSOR)
    return {"image_processor_type": PROCESSOR, **codebook_settings(model, written)}


def codebook_settings(model: DVAEEncoder, written: Mapping[str, Any]) -> dict[str, Any]:
    """The image processor's settings of the codebook, from those of an image processor.

    The inverse of `images`: mean and std without the codebook's own map of the pixels.
    """
    scale = 1 - 2 * MARGIN
    std = [scale * x for x in model.image_std]
    mean = [m + MARGIN * s for m, s in zip(model.image_mean, model.image_std)]
    kept = {k: x for k, x in written.items() if k != "image_processor_type"}
    kept |= {"do_center_crop": False, "do_map_pixels": True, "image_mean": mean, "image_std": std}
    kept["crop_size"] = kept["size"]
    return {f"{PREFIX}{k}": x for k, x in kept.items()}
