"""Sampling from a `Karlo`: the prior, the decoder, then the two networks that enlarge."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.models.diffusion import pixels
from mmjax.number import check_finite
from mmjax.sample.compiled import Sample, compiled
from mmjax.sample.grid import even
from mmjax.sample.guidance import Predict, guided
from mmjax.sample.rows import normal, numbered
from mmjax.sample.samplers import Noise, Process, ddpm
from mmjax.system import BUFFERS, Variables

TEXT = ("text_tokens", "text_mask", "text_embed")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to sample; the defaults are those of the pipeline in diffusers.

    Attributes:
      prior_steps, steps, super_res_steps: noise levels of the prior, the decoder and the enlarging.
      prior_guidance, guidance: scales of guidance by the text, and by text and image; 1: none.

    Raises:
      ValueError: a value out of its range.
    """

    prior_steps: int = 25
    steps: int = 25
    super_res_steps: int = 7
    prior_guidance: float = 4.0
    guidance: float = 8.0

    def __post_init__(self):
        check_finite(vars(self), "sample")
        for name in ("prior_guidance", "guidance"):
            if getattr(self, name) < 0:
                raise ValueError(f"sample.{name} is {getattr(self, name)}: 1 is none; it is >= 0.")


class Draws(NamedTuple):
    """The randomness of a sampler: the noisiest state [B, ...], and the noise of step i."""

    start: jax.Array
    noise: Noise


class Texts(NamedTuple):
    """What the parts read of texts: `TEXT` of each row, and of a text of no words."""

    given: Mapping[str, jax.Array]
    nothing: Mapping[str, jax.Array]


def sample(
    model: Any,
    variables: Variables,
    batch: Batch,
    rng: Key[Array, " b"],
    settings: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """`System.sample`: `image` [B, H, W, 3] uint8.

    Args:
      batch: text and text_mask, between a begin and an end token; with `image` or `image_embed`
        [B, E] images of it, for which diffusers gives texts without words.
      settings: fields of `Settings`.

    Raises:
      ValueError: an unknown setting; an image for a model without an image tower, or none for one
        without a prior.
    """
    how = Settings(**check_kwargs(Settings, settings, "sample"))
    keys = [numbered(rng, i) for i in range(3)]
    side, large = model.image_size, model.large_size
    texts = read_texts(model, variables, batch)
    if "image_embed" in batch:
        embed = batch["image_embed"]
    elif "image" in batch:
        if model.image is None:
            raise ValueError(
                "This model has no image tower, and the batch has images: variations are made by "
                "a UnCLIPImageVariationPipeline."
            )
        embed = model.apply(variables, {"image": batch["image"]})["image_embed"]
    else:
        if model.prior is None:
            raise ValueError(
                "This model has no prior, and the batch no images: images of texts are made by a "
                "UnCLIPPipeline."
            )
        draws = drawn(keys[0], (model.embed_dim,))
        plan = how.prior_steps, how.prior_guidance
        embed, _ = embeddings(model, variables, texts, draws, *plan)
    draws = drawn(keys[1], (side, side, 3))
    small, _ = small_images(model, variables, texts, embed, draws, how.steps, how.guidance)
    draws = drawn(keys[2], (large, large, 3))
    found, _ = large_images(model, variables, small, draws, how.super_res_steps)
    return {"image": pixels(found)}


def compiled_sample(model: Any) -> Sample:
    """`sample`, compiled once for equal settings."""
    return compiled(functools.partial(sample, model))


def drawn(keys: Key[Array, " b"], shape: tuple[int, ...]) -> Draws:
    """The randomness of a sampler, from a key per row."""
    return Draws(
        normal(numbered(keys, 0), shape), lambda step: normal(numbered(keys, step + 1), shape)
    )


def read_texts(model: Any, variables: Variables, batch: Batch) -> Texts:
    """The texts of a batch, and as many without words, as their CLIP reads them."""
    text, mask = batch["text"], batch["text_mask"]
    last = mask.sum(1, keepdims=True, dtype=jnp.int32) - 1
    ends = jnp.take_along_axis(text, last, axis=1)
    none = jnp.concatenate([text[:, :1], ends, jnp.zeros_like(text[:, 2:])], axis=1)
    both = jnp.concatenate([text, none])
    masks = jnp.concatenate(
        [mask, jnp.broadcast_to(jnp.arange(mask.shape[1])[None] < 2, mask.shape)]
    )
    found = model.apply(variables, {"text": both, "text_mask": masks}) | {"text_mask": masks}
    halves = {k: jnp.split(found[k], 2) for k in TEXT}
    return Texts(*({k: x[i] for k, x in halves.items()} for i in range(2)))


def embeddings(
    model: Any,
    variables: Variables,
    texts: Texts,
    draws: Draws,
    steps: int,
    guidance: float,
    frames: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Image embeddings [B, E] of texts by the prior, and `frames` of the states between."""
    apply = _part(model.make_prior(parent=None), variables, "prior")
    given = _joined(texts, guidance)

    def predict(x, time):
        return apply({**given, "noisy_embed": x, "time": time})["clean_embed"]

    found, states = _denoise(model, "prior", _guide(predict, guidance), draws, steps, frames)
    scale = variables[BUFFERS]["prior"]
    return scale["mean"][None] + scale["deviation"][None] * found, states


def small_images(
    model: Any,
    variables: Variables,
    texts: Texts,
    embed: jax.Array,
    draws: Draws,
    steps: int,
    guidance: float,
    frames: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """The decoder's images [B, H, W, 3] in -1 ... 1 of embeddings, and the states between."""
    unet = _part(model.make_unet("decoder", parent=None), variables, "decoder")
    named = decoder_inputs(model, variables, texts, embed, guidance)

    def predict(x, time):
        return unet(x, time, **named)

    predict = _guide(predict, guidance)
    found, states = _denoise(model, "decoder", predict, draws, steps, frames)
    return jnp.clip(found, -1, 1), states


def decoder_inputs(
    model: Any, variables: Variables, texts: Texts, embed: jax.Array, guidance: float
) -> dict[str, jax.Array]:
    """What the decoder reads besides the noised images: `embedding`, `context`, `context_mask`.

    With guidance, of each row with its condition and then without it.
    """
    make = _part(model.make_condition(parent=None), variables, "condition")
    given, rows = _joined(texts, guidance), embed.shape[0]
    present = jnp.ones(rows, bool)
    if guidance != 1:
        embed, present = jnp.concatenate([embed, embed]), jnp.concatenate([present, ~present])
    condition, context = make(embed, present, given["text_embed"], given["text_tokens"])
    before = ((0, 0), (model.image_tokens, 0))
    mask = jnp.pad(given["text_mask"], before, constant_values=True)
    return {"embedding": condition, "context": context, "context_mask": mask}


def large_images(
    model: Any, variables: Variables, small: jax.Array, draws: Draws, steps: int, frames: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Images enlarged to [B, large, large, 3], and the states between."""
    first, last = (
        _part(model.make_unet(name, parent=None), variables, name)
        for name in ("super_res_first", "super_res_last")
    )
    given = jax.image.resize(small, draws.start.shape, "bicubic")
    end = float(even(model.how("super_res").schedule, steps).times[-1])

    def predict(x, time):
        joined = jnp.concatenate([x, given], axis=-1)
        return jax.lax.cond(time[0] == end, last, first, joined, time)

    return _denoise(model, "super_res", predict, draws, steps, frames)


def _denoise(
    model: Any, stage: str, predict: Predict, draws: Draws, steps: int, frames: int
) -> tuple[jax.Array, jax.Array]:
    how = model.how(stage)
    process = Process(even(how.schedule, steps), how.target, how.clip, frames)
    return ddpm(predict, draws.start, draws.noise, process, how.variance)


def _guide(predict: Predict, guidance: float) -> Predict:
    return predict if guidance == 1 else guided(predict, guidance)


def _joined(texts: Texts, guidance: float) -> dict[str, jax.Array]:
    """The texts; with guidance, then those without words."""
    if guidance == 1:
        return dict(texts.given)
    return {k: jnp.concatenate([x, texts.nothing[k]]) for k, x in texts.given.items()}


def _part(module: Any, variables: Variables, name: str) -> Callable[..., Any]:
    """A part of the model as a function."""
    own = {"params": variables["params"][name]}
    if name in variables.get(BUFFERS, {}):
        own[BUFFERS] = variables[BUFFERS][name]
    return functools.partial(module.apply, own)
