"""Sampling from a GLIDE, also guided by a CLIP, and back from an image to its noise."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.models import noised_clip
from mmjax.models.diffusion import pixels
from mmjax.number import check_finite
from mmjax.sample import samplers
from mmjax.sample.grid import Grid
from mmjax.sample.guidance import Predict, guided
from mmjax.sample.settings import Settings, draw, levels
from mmjax.system import Variables

CONDITION = ("condition", "context")
ITERATIONS = 5  # of inversion, at each level
# Inversion goes up to this alpha: noisier levels say hardly anything of the image, and on the way
# back DDIM would enlarge every error by 1 / alpha.
LEAST_ALPHA = 0.05


def sample(
    model: Any,
    variables: Variables,
    batch: Batch,
    rng: Key[Array, " b"],
    settings: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """`System.sample`: `image` [B, H, W, 3] uint8 for the texts of a batch; `frames` if asked for.

    Args:
      batch: `text` and `text_mask`, without which there is no text; of an `UnCLIP` `image_embed`,
        as of a prior, or an image, of which these are variations; of an upsampler `low_res` in
        -1 ... 1, or the image that is reduced to it; for inpainting `image` and `inpaint_mask`,
        whose pixels stay; `start` [B, H, W, C], as of `invert`, in place of random noise at the
        noisiest level.
      settings: fields of `mmjax.sample.settings.Settings`; with `clip_guidance` above 0 also
        `clip`, see mmjax/guide.py.

    Raises:
      ValueError: an unknown setting, or one that the model was not trained for; an upsampler
        without an image; an `UnCLIP` without an embedding and without an image.
    """
    batch = model.conditioned(batch)
    how, score = _settings(model, variables, batch, settings)
    predict = prediction(model, variables, batch, len(rng), how.guidance)
    given = {"clip": 1.0}
    if "start" in batch:  # with a limit of x0 there is no way back
        given = {"start": batch["start"], "grid": invertible(model, how)}
    x, frames = draw(
        predict,
        rng,
        model.shape,
        model.noise_schedule,
        how,
        target=model.target,
        learned_variance=model.learned_variance,
        score=score,
        **given,
    )
    if model.inpaint and "inpaint_mask" in batch:
        x = jnp.where(batch["inpaint_mask"][..., None], model.clean(batch), x)
    return {"image": pixels(x)} | ({"frames": pixels(frames)} if how.frames else {})


def invert(
    model: Any,
    variables: Variables,
    batch: Batch,
    rng: Key[Array, " b"],
    settings: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """`start` [B, H, W, C], the noise from which `sample` makes the images of a batch by DDIM.

    With the embedding of an image the two are all of it (Ramesh et al. 2022, arXiv 2204.06125,
    section 3).

    Args:
      batch: `image`, and the condition as in `sample`.
      rng: a key per row, of which none is used.
      settings: those of the sampling; eta is 0.

    Raises:
      ValueError: another sampler than DDIM, or as `sample`.
    """
    batch = model.conditioned(batch)
    how, score = _settings(model, variables, batch, settings)
    if how.sampler != "ddim" or how.eta:
        raise ValueError(
            f"sample.sampler is '{how.sampler}' with eta {how.eta:g}: only DDIM with eta 0 goes "
            "back from an image to its noise."
        )
    predict = prediction(model, variables, batch, len(rng), how.guidance)
    process = samplers.Process(invertible(model, how), model.target, score=score)
    return {"start": samplers.invert(predict, model.clean(batch), process, ITERATIONS)}


def invertible(model: Any, settings: Settings) -> Grid:
    """The noise levels of a sampler from `LEAST_ALPHA` on.

    Raises:
      ValueError: there are none.
    """
    grid = levels(settings, model.noise_schedule)
    first = int((grid.alpha < LEAST_ALPHA).sum())
    if first == len(grid.times):
        raise ValueError(
            f"sample.steps is {settings.steps}, and none of these noise levels has enough of an "
            "image to find its noise: use more steps."
        )
    return Grid(grid.times[first:], grid.alpha[first:], grid.sigma[first:])


def _settings(
    model: Any, variables: Variables, batch: Batch, settings: Mapping[str, Any]
) -> tuple[Settings, Predict | None]:
    """The settings, and the gradient of a CLIP's guidance.

    Raises:
      ValueError: see `sample`.
    """
    settings = dict(settings)
    scale, clip = settings.pop("clip_guidance", 0.0), settings.pop("clip", "")
    check_finite(scale, "sample.clip_guidance")
    how = Settings(**check_kwargs(Settings, settings, "sample"))
    levels(how, model.noise_schedule)  # checks the steps
    if how.guidance != 1 and not model.drops:
        raise ValueError(
            f"sample.guidance is {how.guidance}, and the model never saw an image without its "
            f"condition: train with config.model.{model.dropouts}, or leave guidance at 1."
        )
    if model.low_res is not None and not {"low_res", "image"} & set(batch):
        raise ValueError(
            "An upsampler enlarges an image and the batch has none: give low_res, or the image "
            "that is reduced to it."
        )
    if not scale:
        return how, None
    guide = noised_clip.make_model(json.loads(clip))
    guide.check_guides(model.shape, model.noise_schedule)
    text = {name: batch[f"guide_{name}"] for name in ("text", "text_mask")}
    return how, noised_clip.score(guide, variables["guide"], text, scale)


def prediction(
    model: Any, variables: Variables, batch: Batch, rows: int, guidance: float
) -> Predict:
    """(noised [B, H, W, C], time [B]) -> the model's output under the condition of a batch."""
    if "text" not in batch:
        shape = (rows, model.text_condition(parent=None).length)
        batch = {**batch, "text": jnp.zeros(shape, jnp.int32), "text_mask": jnp.zeros(shape, bool)}
    condition = conditions(model, variables, batch, guidance)
    twice = len(condition["context"]) > rows
    known = {k: batch[k] for k in ("inpaint_mask", "low_res") if k in batch}
    if "image" in batch and (model.inpaint or model.low_res is not None):
        known["image"] = batch["image"]
    known = {k: jnp.concatenate([x, x]) if twice else x for k, x in known.items()}

    def predict(x, time):
        given = {**condition, **known, "noised": x, "time": time}
        outputs = model.apply(variables, given)
        return jnp.concatenate([outputs[k] for k in ("prediction", "variance") if k in outputs], -1)

    return guided(predict, guidance) if twice else predict


def conditions(
    model: Any, variables: Variables, batch: Batch, guidance: float
) -> dict[str, jax.Array]:
    """`CONDITION` of each row; with guidance, then of each row without it."""
    given, rows = {k: x for k, x in batch.items() if k in model.read}, len(batch["text"])
    present = [k for k in model.read if k.endswith("_present")]
    nothing = {**given, **{k: jnp.zeros(rows, bool) for k in present}}
    if guidance == 0:
        return model.apply(variables, nothing)
    found = model.apply(variables, given)
    if guidance == 1:
        return found
    other = model.apply(variables, nothing)
    return {k: jnp.concatenate([found[k], other[k]]) for k in CONDITION}
