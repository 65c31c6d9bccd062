"""CLAP: an audio tower and a text tower with a shared space, for sounds and their descriptions."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.activations import activation
from mmjax.layers.batch_norm import COUPLES_ROWS
from mmjax.layers.linear import Linear
from mmjax.layers.norm import unit_length
from mmjax.layers.parameters import param
from mmjax.losses.contrastive import CHUNK_SIZE, MEMORY_MB, contrastive_loss
from mmjax.models.bert import BERT
from mmjax.models.build import build
from mmjax.models.clip import check_pairs, pairs_present, row_ids
from mmjax.models.htsat import HTSAT
from mmjax.system import STATISTICS, Context, Outputs, System, Terms, Weighted

PAIR = ("audio", "text")


class CLAP(nn.Module):
    """An audio tower and a text tower, each with a two-layer projection into a shared space.

    A batch with `audio` gives audio_features and audio_embed [B, embed_dim]; one with `text` gives
    text_features and text_embed; both also give logit_scale, of audio against texts, and
    logit_scale_text, of texts against audio. Embeddings are fp32 and of unit length.

    Attributes:
      audio, text: fields of `HTSAT` and `BERT`; they inherit `dtype`.
      activation: between the two maps of a projection.
      logit_scale_init: logarithm of both scales; logit_scale_max: training keeps them between 1
        and exp of it.

    Source: Wu et al. 2022 (arXiv 2211.06687), section 3; LAION-AI/CLAP, model.py.
    """

    embed_dim: int
    audio: Mapping[str, Any]
    text: Mapping[str, Any]
    activation: str = "relu"
    logit_scale_init: float = math.log(1 / 0.07)
    logit_scale_max: float = math.log(100.0)
    dtype: str = "float32"

    def audio_tower(self, **kwargs) -> HTSAT:
        """The audio tower that `audio` describes."""
        fields = check_kwargs(HTSAT, {"dtype": self.dtype, **self.audio}, "config.model.audio")
        return HTSAT(**fields, **kwargs)

    def text_tower(self, **kwargs) -> BERT:
        """The text tower that `text` describes."""
        fields = check_kwargs(BERT, {"dtype": self.dtype, **self.text}, "config.model.text")
        return BERT(**fields, **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs = {}
        for name, tower in (("audio", self.audio_tower), ("text", self.text_tower)):
            if name in batch:
                features = tower(name=name)(batch, train=train)[f"{name}_features"]
                outputs[f"{name}_features"] = features
                outputs[f"{name}_embed"] = self._embed(features, f"{name}_proj")
        init = nn.initializers.constant(self.logit_scale_init)
        for name in ("logit_scale", "logit_scale_text"):
            outputs[name] = jnp.exp(param(self, name, init, (), ()))
        return outputs

    def _embed(self, features: jax.Array, name: str) -> jax.Array:
        """[B, width] -> [B, embed_dim] of unit length, in fp32."""
        size, init = (self.embed_dim,), nn.initializers.normal(features.shape[-1] ** -0.5)
        x = Linear(size, ("embed", "joint"), kernel_init=init, name=f"{name}_in")(features)
        x = activation(self.activation)(x)
        init = nn.initializers.normal(self.embed_dim**-0.5)
        return unit_length(Linear(size, ("joint", None), kernel_init=init, name=name)(x))


def make_system(config: Mapping[str, Any]) -> System:
    """CLAP with the contrastive loss of `config.loss`; see `contrastive`.

    Raises:
      ValueError: an unknown setting.
    """
    model = build(CLAP, config["model"], "audio_tower", "text_tower")
    settings = check_kwargs(contrastive, config["loss"], "config.loss")
    limits = {}
    if math.isfinite(model.logit_scale_max):
        limits = dict.fromkeys(("logit_scale", "logit_scale_text"), (0.0, model.logit_scale_max))
    return System(
        model=model,
        spec=spec(model, bool(settings.get("mask_duplicates"))),
        loss=contrastive(**settings),
        limits=limits,
        mutable=(STATISTICS,),
        check_batch=functools.partial(check_pairs, pairs=(PAIR,)),
        evaluators={"contrastive": {"kind": "retrieval", "pair": PAIR}},
        couples_rows=COUPLES_ROWS,
    )


def contrastive(
    implementation: str = "auto",
    chunk_size: int = CHUNK_SIZE,
    memory_mb: float = MEMORY_MB,
    label_smoothing: float = 0.0,
    mask_duplicates: bool = False,
) -> Callable[..., Terms]:
    """The loss for these settings of `config.loss`; see `contrastive_loss`.

    Half the cross-entropy of each clip's text among all texts, with `logit_scale`, and half that of
    each text's clip among all clips, with `logit_scale_text`. It gives `contrastive`, accuracies
    and both scales. (transformers 5.23 has texts among clips in both halves.)

    Args:
      mask_duplicates: do not use pairs that share a clip or a text as negatives.

    Source: Wu et al. 2022 (arXiv 2211.06687), eq. 1; transformers' two logits; LAION-AI/CLAP trains
    both directions by the first scale (loss.py, ClipLoss without mlp_loss).
    """
    options = {
        "implementation": implementation,
        "chunk_size": chunk_size,
        "memory_mb": memory_mb,
        "label_smoothing": label_smoothing,
    }

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        present = pairs_present(batch, PAIR)
        ids = {"present": present}
        if mask_duplicates:
            ids["image_ids"] = batch.get("example_id")
            ids["text_ids"] = row_ids(batch["text"], batch.get("text_mask"))
        embeds = outputs["audio_embed"], outputs["text_embed"]
        scales = {"logit_scale": (1.0, 0.0), "logit_scale_text": (0.0, 1.0)}
        halves = [
            contrastive_loss(*embeds, outputs[scale], directions=directions, **ids, **options)
            for scale, directions in scales.items()
        ]
        (of_audio, metrics), (of_texts, _) = halves
        terms = {
            "contrastive": (of_audio + of_texts) / 2,
            "audio_to_text_accuracy": metrics["image_to_text_accuracy"],
            "text_to_audio_accuracy": metrics["text_to_image_accuracy"],
        }
        if present is not None:
            terms = {name: Weighted(value, present) for name, value in terms.items()}
        return terms | {name: outputs[name] for name in scales}

    return loss


def spec(model: CLAP, example_ids: bool) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    audio, length = model.audio_tower(parent=None), model.text_tower(parent=None).length
    arrays = {
        "audio": (audio.train_shape, jnp.float32),
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
    }
    if audio.fusion:
        arrays["audio_longer"] = ((), jnp.bool_)
    if example_ids:
        arrays["example_id"] = ((), jnp.int32)
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
