"""Chinese-CLIP: CLIP's image tower and BERT (model_type "chinese_clip")."""

from typing import Any

from mmjax.models.bert import BERT
from mmjax.models.clip import CLIP
from mmjax.models.vit import ViT
from mmjax.weights import image_processor, published
from mmjax.weights.families import bert, clip
from mmjax.weights.layouts import Row, linear, same
from mmjax.weights.published import Published

# Of the published models, in place of the defaults of their image processor's class: whole images,
# squashed (cn_clip/clip/utils.py, image_transform).
IMAGES = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
SYSTEM = "clip"
# BERT's pooler, which is not used, and position ids in older files.
IGNORED = (r"text_model\.pooler\..*", r"(text|vision)_model\.embeddings\.position_ids")


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    vision = published.tower(found, clip.VISION, "vision_config")
    text = bert.tower_fields(published.tower(found, bert.SETTINGS, "text_config"), "text_config")
    return {
        "name": "clip",
        "embed_dim": clip.embed_dim(found, 512),
        "image": clip.image_fields(vision, found),
        "text": {"kind": "bert", **text, "pool": "cls", "pooler": False},
    }


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("ChineseCLIPImageProcessor", "vision_config", usual=IMAGES)


def rows(model: CLIP) -> list[Row]:
    """The rename table of a model."""
    return [
        *clip.image_rows(model.image_tower(parent=None)),
        *linear("image_proj", "visual_projection", bias=False),
        *bert.tower_rows("text", "text_model.", model.text_tower(parent=None)),
        *linear("text_proj", "text_projection", bias=False),
        *same("logit_scale", "logit_scale"),
    ]


def published_config(model: CLIP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published Chinese-CLIP cannot have.
    """
    image, text = clip.towers(model, "chinese_clip", ViT, BERT)
    settings = bert.plain(text, **{"text.pooler": (text.pooler, False)})
    published.check_settings("chinese_clip", {**clip.plain(model, image), **settings})
    return {
        **clip.published_fields(model, image, "chinese_clip", "ChineseCLIPModel"),
        "text_config": {**bert.published_tower(text), "model_type": "chinese_clip_text_model"},
    }


def published_preprocessor(model: CLIP, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    kind = "ChineseCLIPImageProcessor"
    return image_processor.write(model.image_tower(parent=None), transform, kind)
