"""SigLIP and fixed-resolution SigLIP 2 in the layout of `transformers` ("siglip")."""

import math
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as Backend

from mmjax.data.text import sentencepiece
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.clip import CLIP
from mmjax.models.text import TextTransformer
from mmjax.models.vit import ViT
from mmjax.weights import encoder_config, image_processor, published, tokenizer
from mmjax.weights.families import clip, vit
from mmjax.weights.layouts import (
    Row,
    fused_cross,
    grid,
    linear,
    merge_heads,
    norm,
    patches,
    reshaped,
)
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of SiglipTextConfig and SiglipVisionConfig.
_TOWER = encoder_config.DEFAULTS | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
TEXT = {**_TOWER, "vocab_size": 32_000, "max_position_embeddings": 64}
VISION = {**_TOWER, "image_size": 224, "patch_size": 16, "vision_use_head": True}
SYSTEM = "clip"
IGNORED = (r"(text|vision)_model\.embeddings\.position_ids",)
# Tokenizers that SigLIP 2 takes from Gemma. Their files do not say that the model was trained on
# lowercase text (big_vision, configs/proj/image_text/SigLIP2_demo.ipynb).
LOWERCASED = ("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer")


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    vision = published.tower(found, VISION, "vision_config")
    return both_towers(found, image_fields(vision, found))


def both_towers(found: Published, image: dict[str, Any]) -> dict[str, Any]:
    """`config.model` with these fields of the image tower."""
    text = published.tower(found, TEXT, "text_config")
    return {
        "name": "clip",
        "embed_dim": text.get("projection_size") or text["hidden_size"],
        "image_proj": False,
        "proj_bias": True,
        # SigLIP's logit scale is not clamped, and exceeds CLIP's limit.
        "logit_scale_max": math.inf,
        "logit_bias_init": -10.0,
        "image": image,
        "text": {
            **encoder_config.read(text, "text_config"),
            "vocab_size": text["vocab_size"],
            "length": text["max_position_embeddings"],
            "causal": False,
            "pool": "last",
        },
    }


def image_fields(
    vision: Mapping[str, Any],
    found: Published,
    where: str = "vision_config",
    head: bool = True,
) -> dict[str, Any]:
    """Fields of `ViT` from the tower's settings and the image processor.

    Args:
      head: the tower has its pooling head; without one it gives the tokens.

    Raises:
      ValueError: settings that our model does not support.
    """
    if head:
        check_head(found, vision)
    images = image_processor.read(found.preprocessor)
    return {
        **encoder_config.read(vision, where),
        "drop_partial_patches": False,  # true for So400m/14 of 384 pixels: 27 patches and 6 pixels
        **published.image_sides(vision, where),
        "image_mean": images.mean,
        "image_std": images.std,
        "pool": "map" if head else "none",
        "position_resize": "bicubic",
    }


def check_head(found: Published, vision: Mapping[str, Any]) -> None:
    """Raise ValueError for an image tower without its pooling head."""
    if not vision["vision_use_head"]:
        raise ValueError(
            f"'{found.folder}' has vision_use_head false, so no vector of an image: only SigLIPs "
            "with their pooling head can be loaded."
        )


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("SiglipImageProcessor", "vision_config")


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The folder's tokenizer: rows are text, end token, padding.

    Raises:
      ValueError: damaged files, or a sentencepiece model that cannot be read alone.
    """
    settings = found.folder / tokenizer.SETTINGS
    kind = published.read_json(settings).get("tokenizer_class") if settings.is_file() else None
    words = tokenizer.read(found.folder, begins=False, lowercase=kind in LOWERCASED)
    alone = [n for n in ("spiece.model", "tokenizer.model") if (found.folder / n).is_file()]
    if words is None and alone:
        return from_sentencepiece(found.folder / alone[0])
    return words


def from_sentencepiece(path: Path) -> Tokenizer:
    """The tokenizer of a SigLIP without tokenizer.json: lowercase, no punctuation, padded with the
    end token (transformers, tokenization_siglip.py).

    Raises:
      ValueError: a damaged file, or another kind of tokenizer, such as Gemma's.
    """
    backend = sentencepiece.read(path)
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            backend.normalizer,
        ]
    )
    # The JSON round trip changes the last digits of some scores; do it now, so that a saved and
    # reloaded tokenizer is the same.
    backend = Backend.from_str(backend.to_str())
    end = backend.token_to_id("</s>")
    if end is None:
        raise ValueError(f"'{path}' has no token '</s>': it is not a SigLIP tokenizer.")
    return Tokenizer(backend, pad_id=end, bos_id=None, eos_id=end)


def rows(model: CLIP) -> list[Row]:
    """The rename table of a model."""
    return [*image_rows(model.image_tower(parent=None)), *other_rows(model)]


def other_rows(model: CLIP) -> list[Row]:
    """All but the image tower."""
    return [
        *clip.text_rows(model.text_tower(parent=None)),
        *norm("text/norm", "text_model.final_layer_norm"),
        *linear("text_proj", "text_model.head"),
        *reshaped("logit_scale", "logit_scale", (), (1,)),
        *reshaped("logit_bias", "logit_bias", (), (1,)),
    ]


def headless_rows(image: ViT) -> list[Row]:
    """The image tower without its pooling head."""
    embeddings, patch = "vision_model.embeddings", image.sizes["patch_size"]
    return [
        *patches("image/stem/projection", f"{embeddings}.patch_embedding", patch),
        *grid("image/position/table", f"{embeddings}.position_embedding.weight", image.grid),
        *encoder_rows(image.sizes["heads"]),
    ]


def encoder_rows(heads: int) -> list[Row]:
    """The blocks of the image tower and the norm after them."""
    return [
        *clip.blocks("image", "vision_model", heads),
        *norm("image/norm", "vision_model.post_layernorm"),
    ]


def image_rows(image: ViT) -> list[Row]:
    """The image tower."""
    return [*headless_rows(image), *head_rows(image.sizes["heads"])]


def head_rows(heads: int) -> list[Row]:
    """The pooling head of the image tower."""
    head = "vision_model.head"
    attention = f"{head}.attention"
    return [
        *reshaped("image/pool/probe", f"{head}.probe", (1, -1), (1, 1, -1)),
        *fused_cross(
            "image/pool/attention",
            [f"{attention}.in_proj_weight"],
            f"{attention}.in_proj_bias",
            heads,
        ),
        *merge_heads("image/pool/attention/out", f"{attention}.out_proj", heads),
        *norm("image/pool/norm", f"{head}.layernorm"),
        *linear("image/pool/mlp/up", f"{head}.mlp.fc1"),
        *linear("image/pool/mlp/down", f"{head}.mlp.fc2"),
    ]


def published_config(model: CLIP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published SigLIP cannot have.
    """
    image, text = clip.towers(model, "siglip", ViT, TextTransformer)
    published.check_settings(
        "siglip",
        {
            **{f"image.{name}": pair for name, pair in plain_image(image).items()},
            **plain_rest(model, text),
        },
    )
    return {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "vision_config": {
            **clip.published_image(image),
            "model_type": "siglip_vision_model",
        },
        "text_config": published_text(model, text, "siglip_text_model"),
    }


def published_text(model: CLIP, text: TextTransformer, kind: str) -> dict[str, Any]:
    """text_config of one of our models."""
    return {
        **encoder_config.write(text),
        "model_type": kind,
        "projection_size": model.embed_dim,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.length,
    }


def plain_rest(model: CLIP, text: TextTransformer) -> dict[str, tuple[Any, Any]]:
    """Settings of all but the image tower, and their values in a published SigLIP."""
    return {
        "text.causal": (text.causal, False),
        "text.mask_padding": (text.mask_padding, False),
        "text.pool": (text.pool, "last"),
        "image_proj": (model.image_proj, False),
        "text_proj": (model.text_proj, True),
        "proj_bias": (model.proj_bias, True),
        "logit_bias_init is set": (model.logit_bias_init is not None, True),
    }


def plain_image(image: ViT) -> dict[str, tuple[Any, Any]]:
    """Settings and their values in a published image tower, for `published.check_settings`."""
    return {
        **vit.plain(image),
        "pool": (image.pool, "map"),
        "class_token": (image.class_token, False),
        "pre_logits": (image.pre_logits, None),
    }


def published_preprocessor(model: CLIP, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    return image_processor.write(model.image_tower(parent=None), transform, "SiglipImageProcessor")
