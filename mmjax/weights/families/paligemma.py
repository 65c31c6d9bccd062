"""PaliGemma in the layout of `transformers`: a SigLIP without its pooling head, one linear map, and
a Gemma, which reads image and question in both directions."""

import math
from typing import Any

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.llava import Llava
from mmjax.models.vit import ViT
from mmjax.weights import activations, image_processor, published, rope, tokenizer
from mmjax.weights.families import clip, llama, llava, siglip
from mmjax.weights.layouts import Row, linear
from mmjax.weights.published import Published

SYSTEM = "llava"
IGNORED = llava.IGNORED
canonical, published_name = llava.canonical, llava.published_name
# Settings that config.json may omit: defaults of PaliGemmaConfig and GemmaConfig.
IMAGE_TOKEN = "image_token_index"
TEXT = {
    "vocab_size": 256_000,
    "hidden_size": 3072,
    "intermediate_size": 24_576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
}
VISION = {**siglip.VISION, "vision_use_head": False}


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the head that its files have, and notes for the report."""
    text = published.section(found.config, "text_config", found.folder / published.CONFIG)
    config = {**found.config, "text_config": {"model_type": "gemma", **text}}
    config.setdefault("tie_word_embeddings", True)
    return llava.with_text_head(found._replace(config=config))


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support, or a Gemma 2.
    """
    path = found.folder / published.CONFIG
    text = published.tower(found, TEXT, "text_config")
    if text["model_type"] != "gemma" or text["attention_bias"]:
        raise ValueError(
            f"'{path}' has a decoder of type '{text['model_type']}' and attention_bias "
            f"{text['attention_bias']}; a 'gemma' without biases can be loaded."
        )
    base, scaling = rope.read(text, str(found.folder))
    if scaling is not None:
        raise ValueError(f"'{path}' scales its rotary positions; only a Gemma without can be read.")
    vision = published.tower(found, VISION, "vision_config")
    token = {k: found.config.get(k) for k in (IMAGE_TOKEN, "image_token_id")}
    token = next((x for x in token.values() if x is not None), 257_152)
    act = text.get("hidden_activation") or text["hidden_act"]
    # Gemma's first files say "gelu" and mean its approximation (modeling_gemma.py, GemmaMLP).
    act = "gelu_pytorch_tanh" if act == "gelu" and "hidden_activation" not in text else act
    sizes = {
        "depth": text["num_hidden_layers"],
        "heads": text["num_attention_heads"],
        "kv_heads": text["num_key_value_heads"],
        "head_dim": text["head_dim"],
        "mlp_dim": text["intermediate_size"],
        "epsilon": text["rms_norm_eps"],
        "rope_base": base,
    }
    width, tied = text["hidden_size"], text["tie_word_embeddings"]
    shape = {"vocab_size": text["vocab_size"], "width": width, "tied": tied}
    shape["length"] = text["max_position_embeddings"]
    decoder = llama.decoder_config(
        **shape, activation=activations.read(act, "hidden_activation"), **sizes
    )["text"]
    return {
        "name": "llava",
        "image": siglip.image_fields(vision, found, head=False),
        "projector": {"kind": "linear"},
        "text": {**decoder, "embed_scale": math.sqrt(width)},
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


def read_generation(found: Published) -> dict[str, Any]:
    """The content of generation_config.json."""
    return llama.read_generation(found)


def rows(model: Llava) -> list[Row]:
    """The rename table of a model."""
    return [
        *siglip.headless_rows(model.image_tower(parent=None)),
        *linear("projector/out", "multi_modal_projector.linear"),
        *map(_about_one, llama.rows(model)),
    ]


def _about_one(row: Row) -> Row:
    """Gemma's norms store the difference of a scale from 1 (modeling_gemma.py, GemmaRMSNorm)."""
    if not row.ours[0].endswith("/scale"):
        return row
    return row._replace(read=lambda x: (x + 1,), write=lambda x: (x - 1,))


def published_config(model: Llava) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published PaliGemma cannot have.
    """
    tower, projector = model.image_tower(parent=None), model.project(parent=None)
    published.check_settings("paligemma", {"image.kind": (type(tower).__name__, ViT.__name__)})
    text = model.text_decoder(parent=None)
    stack = text.stack(parent=None)
    theirs = siglip.plain_image(tower) | {"pool": (tower.pool, "none")}
    published.check_settings(
        "paligemma",
        {
            **{f"image.{name}": pair for name, pair in theirs.items()},
            "projector.kind": (projector.kind, "linear"),
            "projector.use_bias": (projector.use_bias, True),
            "projector.shuffle": (projector.shuffle, 1),
            "prefix": (model.prefix, True),
            "text.embed_scale": (text.embed_scale, math.sqrt(text.width)),
        },
    )
    llama.check_decoder(
        "paligemma",
        stack,
        norm="rms",
        gated_mlp=True,
        positions="rope",
        sliding_window=None,
        rope_scaling=None,
        **dict.fromkeys(stack.biases, False),
    )
    return {
        "model_type": "paligemma",
        "architectures": ["PaliGemmaForConditionalGeneration"],
        IMAGE_TOKEN: model.image_token,
        "projection_dim": text.width,
        "tie_word_embeddings": text.tied,
        "text_config": {
            "model_type": "gemma",
            **llama.published_sizes(text),
            "hidden_activation": activations.write(stack.activation),
            "num_image_tokens": model.image_length,
            "tie_word_embeddings": text.tied,
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
