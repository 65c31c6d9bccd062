"""The transforms of a run from an image, and from audio, to the input of its model."""

from collections.abc import Sequence
from typing import Any

from mmjax.data.transforms import chain

# Deterministic transforms from an image to the input of a model, and from audio.
IMAGE_STEPS = ("decode", "pad_square", "resize", "resize_short", "resize_long", "resize_between")
IMAGE_STEPS += ("center_crop", "resize_smoothed", "pad_corner", "trim", "patches")
AUDIO_STEPS = ("clap_input", "waveform", "sound", "kaldi_fbank", "log_mel", "mfcc", "chromagram")
AUDIO_STEPS += ("whisper_mel", "speech_mel", "standardize")


def image_steps(config: Any) -> str:
    """The image transforms of a run's evaluators; "" where none uses images.

    A run on given features (see `CLIP.given`) has none; photographs are decoded near its size.
    """
    steps = _eval_steps(config, IMAGE_STEPS)
    size = config.model.get("image", {}).get("image_size") or config.model.get("image_size")
    near = f"(min_size={size})" if config.model.get("given") and isinstance(size, int) else ""
    return steps or (f"decode{near} | resize({size})" if size else "")


def audio_steps(config: Any) -> str:
    """The audio transforms of a run's evaluators, else of its training; "" without audio."""
    steps = f"{config.data.cached_transform} | {config.data.transform}".strip(" |")
    return _eval_steps(config, AUDIO_STEPS) or chain.only(steps, AUDIO_STEPS)


def _eval_steps(config: Any, names: Sequence[str]) -> str:
    """The named transforms of the first of a run's evaluators that has any."""
    every = (chain.only(x.get("transform", ""), names) for x in config.evals.values())
    return next(filter(None, every), "")
