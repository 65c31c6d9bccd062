"""The systems by name. A new system needs a model file, a config file, and a line here."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mmjax.config import nearest
from mmjax.models import (
    albef,
    aligner,
    audio_classifier,
    audioclip,
    avsr,
    blip,
    blip_nlvr,
    captioner,
    clap,
    clip,
    coca,
    dalle,
    diffusion,
    diffusion_prior,
    efficientnet,
    flamingo,
    flava,
    glide,
    image_codebook,
    image_tokenizer,
    karlo,
    language,
    llava,
    multimodal,
    noised_clip,
    owlvit,
    prior_transformer,
    relation_network,
    sam,
    text_encoder,
    unclip,
    video_vit,
    video_vq,
    videobert,
    vilt,
    vit,
    vqa,
    whisper,
)
from mmjax.system import System

SYSTEMS: dict[str, Callable[[Mapping[str, Any]], System]] = {
    "albef": albef.make_system,
    "aligner": aligner.make_system,
    "audio_classifier": audio_classifier.make_system,
    "audioclip": audioclip.make_system,
    "avsr": avsr.make_system,
    "blip": blip.make_system,
    "blip_nlvr": blip_nlvr.make_system,
    "captioner": captioner.make_system,
    "clap": clap.make_system,
    "clip": clip.make_system,
    "coca": coca.make_system,
    "dalle": dalle.make_system,
    "diffusion": diffusion.make_system,
    "diffusion_prior": diffusion_prior.make_system,
    "efficientnet": efficientnet.make_system,
    "flamingo": flamingo.make_system,
    "flava": flava.make_system,
    "glide": glide.make_system,
    "image_codebook": image_codebook.make_system,
    "image_tokenizer": image_tokenizer.make_system,
    "karlo": karlo.make_system,
    "language_model": language.make_system,
    "llava": llava.make_system,
    "multimodal": multimodal.make_system,
    "noised_clip": noised_clip.make_system,
    "owlvit": owlvit.make_system,
    "prior_transformer": prior_transformer.make_system,
    "relation_network": relation_network.make_system,
    "sam": sam.make_system,
    "text_encoder": text_encoder.make_system,
    "unclip": unclip.make_system,
    "video_vit": video_vit.make_system,
    "video_vq": video_vq.make_system,
    "videobert": videobert.make_system,
    "vilt": vilt.make_system,
    "vit": vit.make_system,
    "vqa": vqa.make_system,
    "whisper": whisper.make_system,
}
DTYPES = ("float32", "bfloat16")

# Settings that are at least 1, and those that may be 0 where something is left out.
SIZES = (
    *("width", "depth", "heads", "head_dim", "mlp_dim", "length", "mels", "groups", "embed_dim"),
    *("patch_size", "image_size", "size", "kernel", "shuffle", "out_width", "iou_width"),
)
COUNTS = ("vocab_size", "num_classes", "frames", "boxes", "queries", "codes", "blocks", "first")
POSITIVE = ("attention_cap", "logit_cap", "query_dim")  # above 0, or None


def make_system(config: Mapping[str, Any]) -> System:
    """The system that `config.model` and `config.loss` describe; `config.model.name` names it.

    Args:
      config: an experiment's config, or a part of it that has at least `model`.

    Raises:
      ValueError: an unknown system, or an unknown setting of it.
    """
    model = _plain(config["model"])
    name = model.pop("name", "")
    if name not in SYSTEMS:
        raise ValueError(
            f"config.model.name is '{name}'; the systems are {', '.join(sorted(SYSTEMS))}."
            + nearest(str(name), SYSTEMS)
        )
    _check_dtypes(model, "config.model")
    _check_sizes(model, "config.model")
    rest = {name: _plain(config.get(name, {})) for name in ("loss", "loss_weights")}
    rest |= {name: config.get(name, 0) for name in ("batch_size", "total_steps")}
    return SYSTEMS[name]({"model": model, **rest})


def _check_dtypes(section: Mapping[str, Any], where: str) -> None:
    for key, value in section.items():
        if isinstance(value, Mapping):
            _check_dtypes(value, f"{where}.{key}")
        elif key == "dtype" and isinstance(value, str) and value not in DTYPES:
            raise ValueError(f"{where}.dtype is '{value}'; use one of {', '.join(DTYPES)}.")


def _check_sizes(section: Mapping[str, Any], where: str) -> None:
    for key, value in section.items():
        if isinstance(value, Mapping):
            _check_sizes(value, f"{where}.{key}")
            continue
        if key in POSITIVE and type(value) in (int, float) and not value > 0:
            raise ValueError(f"{where}.{key} is {value}: use a number above 0, or None.")
        if key not in (*SIZES, *COUNTS):
            continue
        least = int(key in SIZES)
        for number in value if isinstance(value, tuple | list) else (value,):
            if type(number) is int and number < least:
                raise ValueError(f"{where}.{key} is {value}: use whole numbers from {least} on.")


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    return section.to_dict() if isinstance(section, ConfigDict) else dict(section)
