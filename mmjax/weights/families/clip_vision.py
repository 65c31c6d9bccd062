"""The image tower of a CLIP, Chinese-CLIP or SigLIP alone, in the layout of `transformers`: its
CLIPVisionModel, CLIPVisionModelWithProjection, ChineseCLIPVisionModel and SiglipVisionModel."""

from typing import Any

from mmjax.models.vit import ViT
from mmjax.weights import image_processor, published
from mmjax.weights.families import clip, siglip
from mmjax.weights.layouts import Row, linear
from mmjax.weights.published import Published

SYSTEM = "vit"
IGNORED = (r"vision_model\.embeddings\.position_ids",)
PROJECTION = "visual_projection.weight"
PROCESSORS = {
    "chinese_clip_vision_model": "ChineseCLIPImageProcessor",
    "clip_vision_model": "CLIPImageProcessor",
    "siglip_vision_model": "SiglipImageProcessor",
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: a file of transformers 5 may have no prefix."""
    return (
        name if name.startswith("vision_model.") or name == PROJECTION else f"vision_model.{name}"
    )


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    theirs = siglip if found.config["model_type"] == "siglip_vision_model" else clip
    where = found.folder / published.CONFIG
    settings = published.settings(found.config, theirs.VISION, where)
    config = {"name": "vit", **theirs.image_fields(settings, found, "config.json")}
    if PROJECTION in found.tensors.shapes:
        config["embed_dim"] = found.tensors.shapes[PROJECTION][0]
    return config


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source(PROCESSORS[found.config["model_type"]])


def rows(model: ViT) -> list[Row]:
    """The rename table of a model."""
    inside = siglip.image_rows(model) if model.pool == "map" else clip.image_rows(model)
    table = [
        row._replace(ours=tuple(name.removeprefix("image/") for name in row.ours)) for row in inside
    ]
    if model.embed_dim is not None:
        table += linear("image_proj", PROJECTION.removesuffix(".weight"), bias=False)
    return table


def published_config(model: ViT) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published image tower cannot have.
    """
    if model.pool == "map":
        family, architecture = "siglip_vision_model", "SiglipVisionModel"
        settings = siglip.plain_image(model)
    else:
        family, architecture = "clip_vision_model", "CLIPVisionModel"
        settings = clip.plain_image(model)
        architecture += "" if model.embed_dim is None else "WithProjection"
    published.check_settings(family, {**settings, "num_classes": (model.num_classes, None)})
    projection = {} if model.embed_dim is None else {"projection_dim": model.embed_dim}
    return {
        "model_type": family,
        "architectures": [architecture],
        **clip.published_image(model),
        **projection,
    }


def published_preprocessor(model: ViT, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    kind = "siglip_vision_model" if model.pool == "map" else "clip_vision_model"
    return image_processor.write(model, transform, PROCESSORS[kind])
