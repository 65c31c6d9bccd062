"""PaliGemma in the layout of `transformers`: a SigLIP without its pooling head, one linear map, and
a Gemma, which reads image and question in both directions."""

from typing import Any

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.llava import Llava
from mmjax.models.vit import ViT
from mmjax.weights import image_processor, published, tokenizer
from mmjax.weights.families import clip, gemma, llama, llava, siglip
from mmjax.weights.layouts import Row, linear
from mmjax.weights.published import Published

SYSTEM = "llava"
read_generation = llama.read_generation
IGNORED = llava.IGNORED
canonical, published_name = llava.canonical, llava.published_name
# Settings that config.json may omit: a default of PaliGemmaConfig.
IMAGE_TOKEN = "image_token_index"
VISION = {**siglip.VISION, "vision_use_head": False}


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the head that its files have, and notes for the report."""
    text = published.section(found.config, "text_config", found.folder / published.CONFIG)
    config = {**found.config, "text_config": {"model_type": "gemma", **text}}
    config.setdefault("tie_word_embeddings", True)
    return llava.prepare(found._replace(config=config))


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    given = found.config["text_config"]
    text = gemma.text_fields(given, f"{found.folder / published.CONFIG}: text_config")
    vision = published.tower(found, VISION, "vision_config")
    token = {k: found.config.get(k) for k in (IMAGE_TOKEN, "image_token_id")}
    token = next((x for x in token.values() if x is not None), 257_152)
    return {
        "name": "llava",
        "image": siglip.image_fields(vision, found, head=False),
        "projector": {"kind": "linear"},
        "text": text,
        "image_token": token,
        "prefix": True,
        "lock_image": False,
    }


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("SiglipImageProcessor", "vision_config")


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer of the folder; the text after an image always begins with the begin token."""
    return tokenizer.read_for_generation(found.folder, begins=True)


def rows(model: Llava) -> list[Row]:
    """The rename table of a model."""
    return [
        *siglip.headless_rows(model.image_tower(parent=None)),
        *linear("projector/out", "multi_modal_projector.linear"),
        *gemma.rows(model),
    ]


def published_config(model: Llava) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published PaliGemma cannot have.
    """
    tower, projector = model.image_tower(parent=None), model.project(parent=None)
    published.check_settings("paligemma", {"image.kind": (type(tower).__name__, ViT.__name__)})
    text = model.text_decoder(parent=None)
    theirs = siglip.plain_image(tower) | {"pool": (tower.pool, "none")}
    published.check_settings(
        "paligemma",
        {
            **{f"image.{name}": pair for name, pair in theirs.items()},
            "projector.kind": (projector.kind, "linear"),
            "projector.use_bias": (projector.use_bias, True),
            "projector.shuffle": (projector.shuffle, 1),
            "prefix": (model.prefix, True),
        },
    )
    return {
        "model_type": "paligemma",
        "architectures": ["PaliGemmaForConditionalGeneration"],
        IMAGE_TOKEN: model.image_token,
        "projection_dim": text.width,
        "tie_word_embeddings": text.tied,
        "text_config": {
            **gemma.published_text("paligemma", text),
            "num_image_tokens": model.image_length,
        },
        "vision_config": {
            **clip.published_image(tower),
            "model_type": "siglip_vision_model",
            "projection_dim": text.width,
            "vision_use_head": False,
        },
    }


def published_preprocessor(model: Llava, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    return image_processor.write(model.image_tower(parent=None), transform, "SiglipImageProcessor")
