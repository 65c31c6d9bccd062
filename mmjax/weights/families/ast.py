"""AST, the Audio Spectrogram Transformer, in the layout of `transformers`."""

import inspect
from typing import Any

import numpy as np
from einops import rearrange

from mmjax.data.transforms import chain
from mmjax.data.transforms.audio_steps import kaldi_fbank
from mmjax.models.audio_classifier import AudioClassifier
from mmjax.weights import encoder_config, published
from mmjax.weights.families import vit
from mmjax.weights.layouts import Arrays, Row, linear, merge_heads, norm, qkv, same
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of ASTConfig in transformers 5.23.
DEFAULTS = {
    **encoder_config.DEFAULTS,
    "patch_size": 16,
    "qkv_bias": True,
    "frequency_stride": 10,
    "time_stride": 10,
    "max_length": 1024,
    "num_mel_bins": 128,
}
# Those of preprocessor_config.json: defaults of ASTFeatureExtractor.
FEATURES = {
    "sampling_rate": 16000,
    "num_mel_bins": 128,
    "max_length": 1024,
    "do_normalize": True,
    "mean": -4.2677393,
    "std": 4.5689974,
}
SYSTEM = "audio_classifier"
IGNORED = ()
PREFIX = "audio_spectrogram_transformer"
# Names of transformers 5, which it writes with save_original_format=False.
RENAMED = {rf"^({PREFIX}\.)?layers\.": r"\1encoder.layer."} | {
    new: old for new, old in vit.RENAMED.items() if not new.startswith("^")
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`."""
    return vit.renamed(name, RENAMED)


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    settings = published.settings(found.config, DEFAULTS, found.folder / published.CONFIG)
    side = settings["patch_size"]
    return {
        "name": SYSTEM,
        **encoder_config.read(settings, "config.json"),
        "patch_size": (side, side),
        "stride": (settings["time_stride"], settings["frequency_stride"]),
        "frames": settings["max_length"],
        "bins": settings["num_mel_bins"],
        "qkv_bias": settings["qkv_bias"],
        "distillation": True,
        "norm": "pre",
        "num_classes": vit.classes(found.tensors.shapes, "classifier.dense.weight"),
    }


def audio_transform(found: Published) -> str:
    """The chain of transforms from an encoded file to `audio`."""
    where = found.folder / published.PREPROCESSOR
    settings = published.settings(found.preprocessor or {}, FEATURES, where)
    rate, frames = settings["sampling_rate"], settings["max_length"]
    mean, std = (settings["mean"], settings["std"]) if settings["do_normalize"] else (0.0, 0.5)
    seconds = (frames + 2) / 100  # the last of the frames is 25 ms long
    return (
        f"waveform({seconds}, {rate}, pad=False) | "
        f"kaldi_fbank({frames}, {settings['num_mel_bins']}, {mean}, {std}, {rate})"
    )


def rows(model: AudioClassifier) -> list[Row]:
    """The rename table of a model."""
    heads = model.sizes["heads"]
    prefix = "" if model.num_classes is None else f"{PREFIX}."
    ours, theirs = "transformer/layers", f"{prefix}encoder.layer.{{i}}"
    attention = f"{theirs}.attention"
    names = [f"{attention}.attention.{x}" for x in ("query", "key", "value")]
    head = [*norm("head_norm", "classifier.layernorm"), *linear("head", "classifier.dense")]
    return [
        *_stem(model, f"{prefix}embeddings.patch_embeddings.projection"),
        _tokens(model, f"{prefix}embeddings"),
        *norm(f"{ours}/norm_attention", f"{theirs}.layernorm_before"),
        *qkv(f"{ours}/attention/qkv", names, heads, model.qkv_bias),
        *merge_heads(f"{ours}/attention/out", f"{attention}.output.dense", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layernorm_after"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        *norm("norm", f"{prefix}layernorm"),
        *(head if model.num_classes is not None else []),
    ]


def _stem(model: AudioClassifier, theirs: str) -> list[Row]:
    """A convolution [D, 1, bins, frames] -> `kernel` [frames · bins, D]."""
    frames, bins = model.patch_size

    def read(x):
        return (rearrange(x, "d 1 f t -> (t f) d"),)

    def write(x):
        return (rearrange(x, "(t f) d -> d 1 f t", t=frames, f=bins),)

    return [
        Row(("stem/kernel",), (f"{theirs}.weight",), read, write),
        *same("stem/bias", f"{theirs}.bias"),
    ]


def _tokens(model: AudioClassifier, theirs: str) -> Row:
    """The two tokens, and one table of their positions and those of the patches, bin by bin:
    [1, 2 + bins · frames, D]."""
    grid = model.grid(model.frames, model.bins)

    def read(first, second, table) -> Arrays:
        patches = rearrange(table[0, 2:], "(f t) d -> t f d", t=grid[0])
        return first[0, 0], second[0, 0], table[0, 0], table[0, 1], patches

    def write(first, second, at_first, at_second, patches) -> Arrays:
        positions = np.stack([at_first, at_second])
        table = np.concatenate([positions, rearrange(patches, "t f d -> (f t) d")])
        return first[None, None], second[None, None], table[None]

    tokens = ("class_token", "distillation_token")
    return Row(
        (*tokens, "class_position", "distillation_position", "position/table"),
        tuple(f"{theirs}.{x}" for x in ("cls_token", "distillation_token", "position_embeddings")),
        read,
        write,
    )


def published_config(model: AudioClassifier) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published AST cannot have.
    """
    published.check_settings(
        "audio-spectrogram-transformer",
        {
            "norm": (model.norm, "pre"),
            "distillation": (model.distillation, True),
            "head_norm": (model.head_norm, True),
            "patch_size": (tuple(model.patch_size), (model.patch_size[0],) * 2),
        },
    )
    kind = "ASTModel" if model.num_classes is None else "ASTForAudioClassification"
    return {
        "model_type": "audio-spectrogram-transformer",
        "architectures": [kind],
        **encoder_config.write(model),
        "patch_size": model.patch_size[0],
        "qkv_bias": model.qkv_bias,
        "time_stride": model.stride[0],
        "frequency_stride": model.stride[1],
        "max_length": model.frames,
        "num_mel_bins": model.bins,
    }


def published_files(pretrained: Any) -> dict[str, Any]:
    """preprocessor_config.json, from the transform of audio.

    Raises:
      ValueError: a transform that AST's feature extractor cannot describe.
    """
    steps = {name: x for name, *x, _ in chain.read(pretrained.audio_transform)}
    if not steps:
        return {}
    if set(steps) != {"waveform", "kaldi_fbank"}:
        raise ValueError(
            f"The transform '{pretrained.audio_transform}' is not that of an AST, 'waveform(...) | "
            "kaldi_fbank(...)': save the model without it."
        )
    args, kwargs = steps["kaldi_fbank"]
    bound = inspect.signature(kaldi_fbank).bind(*args, **kwargs)
    bound.apply_defaults()
    step = bound.arguments
    found = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "feature_size": 1,
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": step["rate"],
        "num_mel_bins": step["mels"],
        "max_length": step["frames"],
        "do_normalize": True,
        "mean": step["mean"],
        "std": step["std"],
    }
    return {published.PREPROCESSOR: found}
