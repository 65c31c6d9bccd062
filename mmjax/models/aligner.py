"""Two frozen spaces aligned: contrast, adversary, transport, and translation with a cycle."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.feature_head import FeatureHead
from mmjax.layers.gradient_reversal import reverse_gradient
from mmjax.layers.linear import Linear
from mmjax.layers.norm import unit_length
from mmjax.losses.alignment import batch_transport, centroid_distance, modality_loss
from mmjax.losses.reconstruction import feature_error
from mmjax.models import clip
from mmjax.system import Context, Outputs, System, Terms

SPACES = ("joint", "image", "text")
OF_BATCH = ("transport", "centroids")  # terms that are computed only if they are weighted


class Aligner(nn.Module):
    """image_features [B, D] and text_features [B, E] -> image_embed and text_embed, unit vectors.

    Attributes:
      image_width, text_width: D and E.
      space: "joint": a head on each side, into embed_dim dimensions; "text": the embedding space is
        that of the text features, standardized, and only images have a head; "image": likewise.
      embed_dim: of the joint space.
      head: fields of `FeatureHead`; with `inner` 0 the heads are linear.
      cycle: also give the maps back, for `cycle`; not in a joint space.
      discriminator: inner width of a discriminator of modalities, for `adversarial`; 0: none.
      reversal: what its gradient is multiplied by, negated, on its way to the embeddings.
      logit_scale_init, logit_scale_max: see `CLIP`.
    """

    image_width: int
    text_width: int
    space: str = "joint"
    embed_dim: int = 256
    head: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cycle: bool = False
    discriminator: int = 0
    reversal: float = 1.0
    logit_scale_init: float = math.log(1 / 0.07)
    logit_scale_max: float = math.log(100.0)
    dtype: str = "float32"

    def feature_head(self, width: int, **kwargs) -> FeatureHead:
        """A head into a space of that width."""
        fields = check_kwargs(FeatureHead, {"width": width, **self.head}, "config.model.head")
        return FeatureHead(**fields, **kwargs)

    def check(self) -> None:
        """Raise ValueError for wrong settings."""
        if self.space not in SPACES:
            raise ValueError(f"config.model.space is '{self.space}': use one of {SPACES}.")
        if self.cycle and self.space == "joint":
            raise ValueError(
                "config.model.cycle maps back from the other modality's space, and "
                "config.model.space is 'joint': use 'image' or 'text', or no cycle."
            )
        self.feature_head(self.embed_dim, parent=None)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        given = {m: batch[f"{m}_features"].astype(jnp.float32) for m in ("image", "text")}
        if self.space == "joint":
            found = {
                m: self.feature_head(self.embed_dim, name=f"{m}_head")(x, train=train)
                for m, x in given.items()
            }
            outputs = {}
        else:
            found, outputs = self._translate(given, train)
        embeds = {m: unit_length(x) for m, x in found.items()}
        outputs |= {f"{m}_embed": x for m, x in embeds.items()}
        if self.discriminator:
            judge = Discriminator(self.discriminator, name="discriminator")
            for m, x in embeds.items():
                outputs[f"{m}_logit"] = judge(reverse_gradient(x, self.reversal))
        return outputs | {"logit_scale": clip.logit_scale(self)}

    def _translate(
        self, given: Mapping[str, jax.Array], train: bool
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Both modalities in the space of one, and what `translation` and `cycle` compare."""
        to, of = self.space, "image" if self.space == "text" else "text"
        # As the heads read them: the scale of a tower's features is arbitrary.
        own = {m: jax.nn.standardize(x, axis=-1, epsilon=1e-5) for m, x in given.items()}
        there = self.feature_head(own[to].shape[-1], name=f"{of}_head")
        moved = there(own[of], train=train)
        outputs = {"translated": moved, "translation_target": own[to]}
        if self.cycle:
            back = self.feature_head(own[of].shape[-1], name=f"{to}_head")
            outputs["cycle"] = back(moved, train=train)
            outputs["cycle_target"] = own[of]
            outputs["other_cycle"] = there(back(own[to], train=train), train=train)
        return {of: moved, to: own[to]}, outputs


class Discriminator(nn.Module):
    """An embedding [B, D] -> the logit [B] that it is an image's, by a perceptron."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.gelu(Linear((self.inner,), ("embed", "mlp"), name="up")(x), approximate=False)
        return Linear((1,), ("mlp", None), name="down")(h)[:, 0]


def make_system(config: Mapping[str, Any]) -> System:
    """Heads on the features of frozen towers, with the losses of `config.loss`; see `terms`.

    Raises:
      ValueError: an unknown setting, or a discriminator or a cycle that no loss trains.
    """
    model = Aligner(**check_kwargs(Aligner, config["model"], "config.model"))
    model.check()
    settings = check_kwargs(terms, config["loss"], "config.loss")
    weights = config.get("loss_weights", {})
    for term, setting in (("adversarial", "discriminator"), ("cycle", "cycle")):
        if weights and getattr(model, setting) and term not in weights:
            raise ValueError(
                f"config.model.{setting} is set and config.loss_weights has no '{term}', which "
                f"trains it: add a weight, such as 0.5, or leave out {setting}."
            )
    wanted = tuple(name for name in OF_BATCH if name in weights)
    return System(
        model=model,
        spec=spec(model, bool(settings.get("mask_duplicates"))),
        loss=functools.partial(terms(**settings), wanted),
        limits=clip.limits(model),
    )


def terms(
    mask_duplicates: bool = False, beta: float = 0.1, transport_steps: int = 20
) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`.

    It gives
      contrastive   and accuracies; see `clip.contrastive`;
      alignment     one minus the cosine of each pair;
      adversarial   of the discriminator, whose reversed gradient the heads get, and its accuracy;
      transport     between all embeddings of a batch of both modalities, whichever are pairs;
      centroids     squared distance of the means of both modalities, see `centroid_distance`;
      translation   relative squared distance of a translated feature from its pair's;
      cycle         of features translated there and back, from themselves, of both modalities.

    Args:
      mask_duplicates: pairs that share an image or a caption are no negatives of each other.
      beta, transport_steps: see `transport_plan`.

    Source of the cycle: Zhu et al. 2017 (arXiv 1703.10593), equation 2, here of squared distances.
    """
    contrast = clip.contrastive(mask_duplicates=mask_duplicates, alignment=True)

    def loss(wanted: tuple[str, ...], outputs: Outputs, batch: Batch, context: Context) -> Terms:
        found = dict(contrast(outputs, batch, context))
        image, text = outputs["image_embed"], outputs["text_embed"]
        if "image_logit" in outputs:
            logits = outputs["image_logit"], outputs["text_logit"]
            found["adversarial"], found["adversarial_accuracy"] = modality_loss(*logits)
        if "transport" in wanted:
            found["transport"] = batch_transport(image, text, beta, transport_steps)
        if "centroids" in wanted:
            found["centroids"] = centroid_distance(image, text)
        if "translated" in outputs:
            target = outputs["translation_target"]
            found["translation"] = feature_error(outputs["translated"], target)
        if "cycle" in outputs:
            one = feature_error(outputs["cycle"], outputs["cycle_target"])
            other = feature_error(outputs["other_cycle"], outputs["translation_target"])
            found["cycle"] = (one + other) / 2
        return found

    return loss


def spec(model: Aligner, example_ids: bool) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    widths = {"image_features": model.image_width, "text_features": model.text_width}
    arrays = {k: jax.ShapeDtypeStruct((1, width), jnp.float32) for k, width in widths.items()}
    if example_ids:
        arrays["example_id"] = jax.ShapeDtypeStruct((1,), jnp.int32)
    return arrays
