"""AudioCLIP: audio, image and text towers with one shared space."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec, modality_of
from mmjax.config import check_kwargs
from mmjax.layers.batch_norm import COUPLES_ROWS
from mmjax.layers.norm import unit_length
from mmjax.layers.parameters import param
from mmjax.losses.contrastive import CHUNK_SIZE, MEMORY_MB, contrastive_loss
from mmjax.models.audio_classifier import AudioClassifier
from mmjax.models.build import build, of_kind
from mmjax.models.clip import (
    IMAGE_TOWERS,
    TEXT_TOWERS,
    check_pairs,
    joint_projection,
    pairs_present,
)
from mmjax.models.esresnext import ESResNeXt
from mmjax.models.resnet import ModifiedResNet
from mmjax.system import STATISTICS, Context, Outputs, System, Terms, Weighted

AUDIO_TOWERS = {"esresnext": ESResNeXt, "ast": AudioClassifier}
# Pairs of modalities, and the name of their scale.
PAIRS = {
    ("image", "text"): "logit_scale",
    ("audio", "image"): "logit_scale_audio_image",
    ("audio", "text"): "logit_scale_audio_text",
}
FILTER_NORM = "filter_norm"


class AudioCLIP(nn.Module):
    """Towers of audio, images and texts with a shared embedding space.

    A batch with `waveform` (or `audio`, for a tower of spectrograms) gives audio_features and
    audio_embed [B, embed_dim]; one with `image` and one with `text` likewise. All give a scale for
    each pair of modalities. Embeddings are fp32 and of unit length. A tower whose features are not
    embed_dim wide has a linear map to it, without bias.

    Attributes:
      audio, image, text: fields of the towers; they inherit `dtype`. `kind` selects the tower:
        "esresnext" (`ESResNeXt`, the default) or "ast" (`AudioClassifier`, a ViT on a spectrogram);
        "resnet" (`ModifiedResNet`, the default) or another of `CLIP`; those of `CLIP`.
      logit_scale_init: logarithm of the scales; training keeps them between 0 and logit_scale_max.

    Source: Guzhov et al. 2021 (arXiv 2106.13043), section 3; AndreyGuzhov/AudioCLIP.
    """

    embed_dim: int
    audio: Mapping[str, Any]
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    logit_scale_init: float = math.log(100.0)
    logit_scale_max: float = math.log(100.0)
    dtype: str = "float32"

    def audio_tower(self, **kwargs) -> ESResNeXt | AudioClassifier:
        """The audio tower that `audio` describes."""
        fields = {"dtype": self.dtype, "kind": "esresnext", **self.audio}
        return of_kind(AUDIO_TOWERS, fields, "config.model.audio", **kwargs)

    def image_tower(self, **kwargs) -> nn.Module:
        """The image tower that `image` describes."""
        fields = {"dtype": self.dtype, "kind": "resnet", **self.image}
        return of_kind(IMAGE_TOWERS, fields, "config.model.image", **kwargs)

    def text_tower(self, **kwargs) -> nn.Module:
        """The text tower that `text` describes."""
        fields = {"dtype": self.dtype, "kind": "transformer", **self.text}
        return of_kind(TEXT_TOWERS, fields, "config.model.text", **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs, found = {}, {modality_of(key) for key in batch}
        towers = {"audio": self.audio_tower, "image": self.image_tower, "text": self.text_tower}
        for name, tower in towers.items():
            if name in found:
                given = tower(name=name)(batch, train=train)
                features = given[f"{name}_features"]
                outputs[f"{name}_features"] = features
                if features.shape[-1] != self.embed_dim or name == "text":
                    width = features.shape[-1]
                    proj = joint_projection(width, self.embed_dim, False, f"{name}_proj")
                    features = proj(features)
                outputs[f"{name}_embed"] = unit_length(features)
                if FILTER_NORM in given:
                    outputs[FILTER_NORM] = given[FILTER_NORM]
        init = nn.initializers.constant(self.logit_scale_init)
        for name in PAIRS.values():
            outputs[name] = jnp.exp(param(self, name, init, (), ()))
        return outputs


def make_system(config: Mapping[str, Any]) -> System:
    """AudioCLIP with the contrastive losses of `config.loss`; see `contrastive`.

    Raises:
      ValueError: an unknown setting.
    """
    model = build(AudioCLIP, config["model"], "audio_tower", "image_tower", "text_tower")
    towers = model.audio_tower(parent=None), model.image_tower(parent=None)
    normed = any(isinstance(tower, ESResNeXt | ModifiedResNet) for tower in towers)
    limits = dict.fromkeys(PAIRS.values(), (0.0, model.logit_scale_max))
    return System(
        model=model,
        spec=spec(model),
        loss=contrastive(**check_kwargs(contrastive, config["loss"], "config.loss")),
        limits=limits if math.isfinite(model.logit_scale_max) else {},
        check_batch=functools.partial(check_pairs, pairs=tuple(PAIRS)),
        mutable=(STATISTICS,) if normed else (),
        couples_rows=COUPLES_ROWS if normed else "",
    )


def contrastive(
    implementation: str = "auto",
    chunk_size: int = CHUNK_SIZE,
    memory_mb: float = MEMORY_MB,
    label_smoothing: float = 0.0,
) -> Callable[..., Terms]:
    """The loss for these settings of `config.loss`; see `contrastive_loss`.

    It gives `image_text`, `audio_image` and `audio_text`, each the mean of both directions over the
    rows that have both modalities; accuracies; the scales; and `filter_norm`, for a tower with
    learned filters. With weights of 1/3 the sum of the three is the mean of six cross-entropies.
    AudioCLIP's code adds up the cross-entropies of both directions and divides by the factorial of
    the number of pairs: the same mean for three pairs, but twice it for one.

    Source: Guzhov et al. 2021 (arXiv 2106.13043), section 3.2; model/audioclip.py, loss_fn.
    """
    options = {
        "implementation": implementation,
        "chunk_size": chunk_size,
        "memory_mb": memory_mb,
        "label_smoothing": label_smoothing,
    }

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        terms: dict[str, Any] = {}
        for (one, other), scale in PAIRS.items():
            embeds = outputs[f"{one}_embed"], outputs[f"{other}_embed"]
            present = pairs_present(batch, (one, other))
            if present is None:
                present = jnp.ones(len(embeds[0]), bool)
            losses, metrics = contrastive_loss(*embeds, outputs[scale], present=present, **options)
            terms |= {
                f"{one}_{other}": Weighted(losses, present),
                f"{one}_to_{other}_accuracy": Weighted(metrics["image_to_text_accuracy"], present),
                f"{other}_to_{one}_accuracy": Weighted(metrics["text_to_image_accuracy"], present),
                scale: outputs[scale],
            }
        if FILTER_NORM in outputs:
            terms[FILTER_NORM] = outputs[FILTER_NORM]
        return terms

    return loss


def spec(model: AudioCLIP) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    audio, length = model.audio_tower(parent=None), model.text_tower(parent=None).length
    if isinstance(audio, ESResNeXt):
        arrays = {"waveform": ((audio.samples,), jnp.float32)}
    else:
        arrays = {"audio": ((audio.frames, audio.bins), jnp.float32)}
    arrays |= {
        "image": ((*model.image_tower(parent=None).train_size, 3), jnp.uint8),
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
