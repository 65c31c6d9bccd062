"""Denoising diffusion of images or latents, with classes or without: U-Net or DiT."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.sizes import height_width
from mmjax.losses import diffusion as losses
from mmjax.losses.classification import check_classes, check_labels
from mmjax.models.build import build
from mmjax.models.dit import DiT
from mmjax.models.unet import UNet, check_halves
from mmjax.sample.compiled import Sample, compiled
from mmjax.sample.guidance import guided
from mmjax.sample.parameterization import check_target, clean_and_noise, target_of
from mmjax.sample.rows import normal, numbered
from mmjax.sample.schedules import Schedule
from mmjax.sample.settings import Settings, draw, levels
from mmjax.system import Context, Outputs, System, Terms, Variables, Weighted

BACKBONES = {"unet": UNet, "dit": DiT}
WEIGHTINGS = ("uniform", "min_snr")
UNKNOWN = -1  # the label of an example without a class, or whose class was dropped


class Diffusion(nn.Module):
    """What a backbone predicts of noised images: `prediction` and, if learned, `variance`.

    The batch has the clean `image` [B, H, W, 3] uint8 (or `latents` [B, h, w, c] float32), and
    after `corrupt` also `noised` and `noise` [B, H, W, C], and `time` [B]; both outputs are
    [B, H, W, C] in fp32. Pixels are in -1 ... 1.

    Attributes:
      backbone: `kind` "unet" or "dit", and fields of `UNet` or `DiT`.
      image_size: of pixels; latents: (h, w, c) of latents in place of an image; one of the two.
      gray: one channel, the mean of an image's three.
      num_classes: None: no classes.
      condition_dropout: probability that an example is trained without its class, which
        classifier-free guidance needs.
      target: what is predicted, "epsilon", "x0" or "v".
      learned_variance: the variance between the posterior's and beta is predicted too.
      schedule: fields of `Schedule`.

    Raises:
      ValueError: settings that do not fit together.

    Source: Ho et al. 2020 (arXiv 2006.11239); Nichol and Dhariwal 2021 (arXiv 2102.09672); Ho and
    Salimans 2022 (arXiv 2207.12598).
    """

    backbone: Mapping[str, Any]
    image_size: int | tuple[int, int] | None = None
    latents: tuple[int, int, int] | None = None
    gray: bool = False
    num_classes: int | None = None
    condition_dropout: float = 0.0
    target: str = "epsilon"
    learned_variance: bool = False
    schedule: Mapping[str, Any] | None = None
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a sample."""
        if self.latents is not None:
            return tuple(self.latents)
        return (*height_width(self.image_size), 1 if self.gray else 3)

    @property
    def noise_schedule(self) -> Schedule:
        """The noise schedule.

        Raises:
          ValueError: an unknown setting of it.
        """
        fields = check_kwargs(Schedule, self.schedule or {}, "config.model.schedule")
        return Schedule(**fields)

    def make_backbone(self, **linen: Any) -> UNet | DiT:
        """The backbone.

        Raises:
          ValueError: an unknown kind or setting, or an image size that does not fit.
        """
        fields = dict(self.backbone)
        kind = fields.pop("kind", "")
        if kind not in BACKBONES:
            raise ValueError(
                f"config.model.backbone.kind is '{kind}'; use one of {', '.join(BACKBONES)}."
            )
        target = BACKBONES[kind]
        fields = check_kwargs(target, fields, "config.model.backbone")
        channels = self.shape[-1] * (2 if self.learned_variance else 1)
        own = {"out_channels": channels, "classes": self.rows, "dtype": self.dtype}
        made = target(**fields | own, **linen)
        if kind == "unet":
            check_halves(self.shape[:2], len(made.channels))
        return made

    @property
    def rows(self) -> int:
        """Rows of the table of classes; the last one stands for none."""
        return (self.num_classes or 0) + (1 if self.condition_dropout else 0)

    def check(self, **linen: Any) -> None:
        """Raise ValueError for settings that do not fit together."""
        del linen
        if (self.image_size is None) == (self.latents is None):
            raise ValueError("Set config.model.image_size or config.model.latents: one of the two.")
        if self.gray and self.latents is not None:
            raise ValueError("config.model.gray is of images, and config.model.latents is set.")
        check_target(self.target)
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(
                f"config.model.condition_dropout is {self.condition_dropout}: it is a probability."
            )
        if self.condition_dropout and not self.num_classes:
            raise ValueError(
                f"config.model.condition_dropout is {self.condition_dropout} and there are no "
                "classes to drop: set num_classes, or the dropout to 0."
            )
        if self.learned_variance and not self.noise_schedule.is_discrete:
            raise ValueError(
                "config.model.learned_variance is between the variances of discrete steps, and the "
                f"noise schedule '{self.noise_schedule.name}' is continuous: choose another."
            )

    def clean(self, batch: Batch) -> jax.Array:
        """[B, H, W, C] fp32, what is noised: pixels in -1 ... 1, or latents."""
        if self.latents is not None:
            return jnp.asarray(batch["latents"], jnp.float32)
        x = jnp.asarray(batch["image"], jnp.float32)
        x = x.mean(-1, keepdims=True) if self.gray else x
        return x / 127.5 - 1

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        x = batch["noised"] if "noised" in batch else self.clean(batch)
        time = batch["time"] if "time" in batch else jnp.zeros(len(x))
        label = None
        if self.num_classes:
            label = batch["label"] if "label" in batch else jnp.full(len(x), UNKNOWN, jnp.int32)
            label = jnp.where(label < 0, self.rows - 1, label)
        output = self.make_backbone(name="backbone")(x, time, label=label, train=train)
        if not self.learned_variance:
            return {"prediction": output}
        prediction, variance = jnp.split(output, 2, axis=-1)
        return {"prediction": prediction, "variance": variance}


def make_system(config: Mapping[str, Any]) -> System:
    """Diffusion from `config.model`; `config.loss.weighting` is "uniform" or "min_snr".

    The loss terms are `simple`, the weighted squared error, and with a learned variance `vlb`, the
    variational bound in bits per dimension: L_hybrid has weights 1 and 0.001.

    Raises:
      ValueError: an unknown setting, or settings that do not fit together.
    """
    model = build(Diffusion, config["model"], "check", "make_backbone")
    weighting = weighting_of(config.get("loss", {}))
    return System(
        model=model,
        spec=spec(model),
        loss=functools.partial(loss, model, weighting),
        corrupt=functools.partial(corrupt, model),
        check_batch=functools.partial(check_batch, model),
        check_source=functools.partial(check_source, model),
        sample=functools.partial(checked_sample, model, compiled(functools.partial(sample, model))),
    )


def weighting_of(settings: Mapping[str, Any]) -> str:
    """The weighting of the squared error, "uniform" by default, from `config.loss`.

    Raises:
      ValueError: an unknown setting or weighting.
    """
    return _weighting(**check_kwargs(_weighting, settings, "config.loss"))


def _weighting(weighting: str = "uniform") -> str:
    if weighting not in WEIGHTINGS:
        raise ValueError(
            f"config.loss.weighting is '{weighting}'; use one of {', '.join(WEIGHTINGS)}."
        )
    return weighting


def spec(model: Diffusion) -> Spec:
    """`System.spec`."""
    if model.latents is not None:
        found = {"latents": jax.ShapeDtypeStruct((1, *model.shape), jnp.float32)}
    else:
        found = {"image": jax.ShapeDtypeStruct((1, *model.shape[:2], 3), jnp.uint8)}
    label = {"label": jax.ShapeDtypeStruct((1,), jnp.int32)}
    return found | (label if model.num_classes else {})


def check_source(model: Diffusion, source: Any) -> None:
    """Raise ValueError for a source with other classes."""
    if model.num_classes:
        check_classes(source, model.num_classes, "config.model.num_classes")


def check_batch(model: Diffusion, batch: Batch) -> None:
    """Raise ValueError for labels that the model has no row for."""
    if not model.num_classes or "label" not in batch:
        return
    check_labels(batch, model.num_classes, "config.model.num_classes")
    if not model.condition_dropout and (np.asarray(batch["label"]) < 0).any():
        raise ValueError(
            "The batch has an example without a label, and the model no way to go without one: "
            "train it with config.model.condition_dropout, or give each example its label."
        )


def corrupt(model: Diffusion, batch: Batch, context: Context) -> Batch:
    """`System.corrupt`: a time and noise for each example, and some classes dropped."""
    x0, keys = model.clean(batch), context.rng
    uniform = jax.vmap(jax.random.uniform)
    time = model.noise_schedule.draw(uniform(numbered(keys, 0)))
    alpha, sigma = _broadcast(model, time)
    noise = normal(numbered(keys, 1), model.shape)
    added = {"noised": alpha * x0 + sigma * noise, "noise": noise, "time": time}
    if model.condition_dropout:
        drop = uniform(numbered(keys, 2)) < model.condition_dropout
        added["label"] = jnp.where(drop, UNKNOWN, batch["label"])
    return {**batch, **added}


def _broadcast(model: Diffusion, time: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma) [B, H, W, C] of times."""
    shape = (len(time), *model.shape)
    found = model.noise_schedule.levels(time)
    return tuple(jnp.broadcast_to(x.reshape(-1, 1, 1, 1), shape) for x in found)


def loss(
    model: Diffusion, weighting: str, outputs: Outputs, batch: Batch, context: Context
) -> Terms:
    """`System.loss`, from what `corrupt` has put into the batch.

    Without condition dropout, examples without a label are left out.
    """
    del context
    x0, time, x = model.clean(batch), batch["time"], batch["noised"]
    alpha, sigma = _broadcast(model, time)
    target = target_of(model.target, x0, batch["noise"], alpha, sigma)
    error = losses.squared_error(outputs["prediction"], target)
    if weighting == "min_snr":
        error = error * losses.min_snr_weight(model.target, *model.noise_schedule.levels(time))
    terms = {"simple": error}
    if model.learned_variance:
        given = (model.target, outputs["prediction"], x, alpha, sigma)
        guess, _ = clean_and_noise(*given, clip=None if model.latents else 1.0)
        schedule = model.noise_schedule
        betas = jnp.asarray(schedule.betas, jnp.float32)
        bound = losses.variational_bound(x0, x, guess, outputs["variance"], betas, time)
        terms["vlb"] = schedule.steps * bound  # the mean over times is that of their sum
    if model.num_classes and not model.condition_dropout:  # no row for examples without a class
        return {k: Weighted(x, batch["label"] >= 0) for k, x in terms.items()}
    return terms


def sample(
    model: Diffusion,
    variables: Variables,
    batch: Batch,
    rng: Key[Array, " b"],
    settings: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """`System.sample`: `image` [B, H, W, 3] uint8 or `latents`; `frames` [F, B, ...] if asked for.

    Args:
      batch: `label` [B] int32 of a model with classes, -1 for none; else unused.
      rng: a key per row.
      settings: fields of `mmjax.sample.settings.Settings`.

    Raises:
      ValueError: an unknown setting, or one that the model was not trained for.
    """
    settings = Settings(**check_kwargs(Settings, settings, "sample"))
    schedule = model.noise_schedule
    levels(settings, schedule)  # checks the steps
    label = _labels(model, batch, settings, len(rng))
    conditional = model.num_classes and settings.guidance not in (0, 1)

    def predict(x, time):
        given = {"noised": x, "time": time}
        if label is not None:
            nothing = jnp.full_like(label, UNKNOWN)
            given["label"] = jnp.concatenate([label, nothing]) if conditional else label
        outputs = model.apply(variables, given)
        return jnp.concatenate([outputs[k] for k in ("prediction", "variance") if k in outputs], -1)

    x, frames = draw(
        guided(predict, settings.guidance) if conditional else predict,
        rng,
        model.shape,
        schedule,
        settings,
        target=model.target,
        learned_variance=model.learned_variance,
        clip=None if model.latents else 1.0,
    )
    if model.latents is not None:
        return {"latents": x} | ({"frames": frames} if settings.frames else {})
    return {"image": pixels(x)} | ({"frames": pixels(frames)} if settings.frames else {})


def checked_sample(
    model: Diffusion,
    draw: Sample,
    variables: Variables,
    batch: Batch,
    rng: Key[Array, " b"],
    settings: Mapping[str, Any],
) -> Mapping[str, jax.Array]:
    """`draw`, the compiled `sample`, for labels that the model has rows for; others are refused."""
    label = batch.get("label")
    if isinstance(label, jax.Array):  # of several processes, each checks its own rows
        label = np.concatenate([np.asarray(part.data) for part in label.addressable_shards])
    check_batch(model, {} if label is None else {"label": np.asarray(label)})
    return draw(variables, batch, rng, settings)


def pixels(x: jax.Array) -> jax.Array:
    """[..., H, W, 1 or 3] in -1 ... 1 -> [..., H, W, 3] uint8."""
    x = jnp.round(jnp.clip((x + 1) * 127.5, 0, 255)).astype(jnp.uint8)
    return jnp.broadcast_to(x, (*x.shape[:-1], 3))


def _labels(model: Diffusion, batch: Batch, settings: Settings, rows: int) -> jax.Array | None:
    if not model.num_classes:
        if settings.guidance != 1:
            raise ValueError(
                f"sample.guidance is {settings.guidance}, and the model has no classes to be "
                "guided by: leave it at 1."
            )
        return None
    if settings.guidance != 1 and not model.condition_dropout:
        raise ValueError(
            f"sample.guidance is {settings.guidance}, and the model never saw an image without its "
            "class: train with config.model.condition_dropout, or leave guidance at 1."
        )
    label = batch.get("label")
    if label is None and not model.condition_dropout:
        raise ValueError(
            "The model cannot sample without a class, as it was trained with condition_dropout 0: "
            "give the label of each sample."
        )
    if label is None or settings.guidance == 0:
        return jnp.full(rows, UNKNOWN, jnp.int32)
    return jnp.asarray(label, jnp.int32)
