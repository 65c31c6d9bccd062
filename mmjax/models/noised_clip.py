"""A CLIP of noised images, which guides the sampler of a GLIDE towards its texts."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.parameters import param
from mmjax.models import clip
from mmjax.models.build import build
from mmjax.models.clip import CLIP
from mmjax.models.vit import ViT
from mmjax.sample.guidance import Predict
from mmjax.sample.rows import normal, numbered
from mmjax.sample.schedules import Schedule
from mmjax.system import Context, System, Variables


class TimedViT(ViT):
    """A `ViT` of images at batch["time"] [B], whose only token is a class token for each time.

    Attributes:
      times: how many there are.

    Source: openai/glide-text2im, clip/encoders.py, ImageEmbedding.
    """

    times: int = 1000

    def _first_tokens(self, width: int, batch: Batch) -> jax.Array:
        init = nn.initializers.normal(width**-0.5)
        table = param(self, "class_of_time", init, (self.times, width), (None, "embed"))
        return jnp.take(table, batch["time"].astype(jnp.int32), axis=0)[:, None]


class NoisedCLIP(CLIP):
    """A CLIP whose image tower reads images with noise, and how much there is.

    The batch has the clean `image` [B, H, W, 3] uint8, which is seen as that of time 0, or `noised`
    [B, H, W, 3] and `time` [B], as of a diffusion; pixels are in -1 ... 1. The image tower is a
    `TimedViT` with pool "cls".

    Attributes:
      schedule: fields of `Schedule`, a discrete one.

    Source: Nichol et al. 2021 (arXiv 2112.10741), section 4.4.
    """

    schedule: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def noise_schedule(self, parent: None = None) -> Schedule:
        """The noise schedule.

        Raises:
          ValueError: an unknown setting of it, or a continuous one.
        """
        made = Schedule(**check_kwargs(Schedule, self.schedule, "config.model.schedule"))
        if not made.is_discrete:
            raise ValueError(
                f"config.model.schedule.name is '{made.name}', which is continuous: a noised CLIP "
                "has a token for each time, so choose a discrete schedule."
            )
        return made

    def image_tower(self, **kwargs: Any) -> ViT:
        """The image tower.

        Raises:
          ValueError: settings that it does not take.
        """
        fields = {"kind": "vit", "dtype": self.dtype, **self.image}
        fields |= {"times": self.noise_schedule().steps}
        if fields.pop("kind") != "vit" or fields.get("pool", "cls") != "cls":
            raise ValueError(
                "The image tower of a noised CLIP is a ViT with a class token for each time: set "
                "config.model.image.kind to 'vit' and pool to 'cls'."
            )
        return TimedViT(**check_kwargs(TimedViT, fields, "config.model.image"), **kwargs)

    def check_guides(self, shape: tuple[int, int, int], schedule: Schedule) -> None:
        """Raise ValueError if it does not fit a diffusion of images [H, W, C] and its schedule."""
        own = (*self.image_tower(parent=None).train_size, 3), self.noise_schedule()
        if own != (tuple(shape), schedule):
            raise ValueError(
                f"The CLIP of sample.clip reads images of {own[0]} with the noise of {own[1]}, and "
                f"the sampler's are {tuple(shape)} with {schedule}: train it with the same "
                "image_size and schedule."
            )

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        if "noised" in batch:
            batch = {**batch, "image": (batch["noised"] + 1) * 127.5}
        if "image" in batch and "time" not in batch:
            batch = {**batch, "time": jnp.zeros(batch["image"].shape[0])}
        return super().__call__(batch, train=train)


def corrupt(schedule: Schedule, batch: Batch, context: Context) -> Batch:
    """`System.corrupt`: a time for each image, and the noise of it."""
    clean = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1
    time = schedule.draw(jax.vmap(jax.random.uniform)(numbered(context.rng, 0)))
    alpha, sigma = (
        jnp.broadcast_to(x.reshape(-1, 1, 1, 1), clean.shape) for x in schedule.levels(time)
    )
    noise = normal(numbered(context.rng, 1), clean.shape[1:])
    return {**batch, "noised": alpha * clean + sigma * noise, "time": time}


def score(
    model: NoisedCLIP, variables: Variables, text: Mapping[str, jax.Array], scale: float
) -> Predict:
    """(noised [B, H, W, 3], time [B]) -> the gradient of scale times the logit of each image with
    its text, with respect to the image; 0 for a text without a token.

    Args:
      text: `text` and `text_mask` [B, L].

    Source: Nichol et al. 2021 (arXiv 2112.10741), section 2.4; the logit scale:
    openai/glide-text2im, clip/model_creation.py, CLIPModel.cond_fn.
    """
    embed = model.apply(variables, text)["text_embed"]
    present = text["text_mask"].any(axis=1)[:, None]
    embed = jnp.where(present, embed, 0.0)

    def gradient(x: jax.Array, time: jax.Array) -> jax.Array:
        def logits(x: jax.Array) -> jax.Array:
            outputs = model.apply(variables, {"noised": x, "time": time})
            return outputs["logit_scale"] * (outputs["image_embed"] * embed).sum()

        return scale * jax.grad(logits)(x)

    return gradient


def make_model(config: Mapping[str, Any]) -> NoisedCLIP:
    """The dual encoder that `config.model` describes. See `build`."""
    return build(NoisedCLIP, config, "image_tower", "text_tower", "noise_schedule")


def make_system(config: Mapping[str, Any]) -> System:
    """A noised CLIP with the losses of the system `clip`; see `clip.make_system`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    plain = {k: x for k, x in config["model"].items() if k != "schedule"}
    return dataclasses.replace(
        clip.make_system({**config, "model": plain}),
        model=model,
        corrupt=functools.partial(corrupt, model.noise_schedule()),
    )
