"""The priors of DALL-E 2: image embeddings of a frozen CLIP from texts."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jaxtyping import Array, Key

from mmjax.batch import Batch
from mmjax.config import check_kwargs, nearest
from mmjax.layers.norm import unit_length
from mmjax.losses.diffusion import squared_error
from mmjax.models import autoregressive_prior
from mmjax.models.autoregressive_prior import AutoregressivePrior
from mmjax.models.build import build
from mmjax.models.clip import CLIP, spec
from mmjax.models.prior_transformer import PriorTransformer
from mmjax.sample.compiled import compiled
from mmjax.sample.guidance import guided
from mmjax.sample.rows import normal, numbered
from mmjax.sample.schedules import Schedule
from mmjax.sample.settings import Settings, draw
from mmjax.system import BUFFERS, Context, Outputs, System, Terms, Variables, Weighted

CONDITION = ("text_tokens", "text_mask", "text_embed")
KINDS = {
    "diffusion": PriorTransformer,
    "one_shot": PriorTransformer,
    "autoregressive": AutoregressivePrior,
}


class DiffusionPrior(CLIP):
    """A frozen CLIP, and a transformer that predicts its image embeddings from its texts.

    A batch with image, text, time [B] and noise [B, E] gives target_embed and clean_embed [B, E];
    one with noisy_embed in place of the image, or without the text but with what a CLIP makes of it
    (`CONDITION`), clean_embed alone. A row whose text_present is false has no condition: its tokens
    are masked and its text embedding is 0.

    In place of the diffusion there are two other kinds. The "one_shot" prior is the same network,
    of which the noisy embedding is always 0, and the time too. The "autoregressive" one is an
    `AutoregressivePrior`, which has outputs of its own.

    Its parameters are those of a CLIP and, under `prior`, of the transformer: `init_from` reads a
    CLIP.

    Attributes:
      kind: "diffusion", "one_shot" or "autoregressive".
      prior: fields of `PriorTransformer`, or of `AutoregressivePrior`, but those of CLIP's sizes;
        schedule: of `Schedule`, for diffusion.

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2.2.
    """

    kind: str = "diffusion"
    prior: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text_tokens: bool = True

    def noise_schedule(self, parent: None = None) -> Schedule:
        """The noise schedule; by default the paper's."""
        fields = {"name": "squared_cosine", **self.schedule}
        return Schedule(**check_kwargs(Schedule, fields, "config.model.schedule"))

    def transformer(self, **kwargs) -> PriorTransformer | AutoregressivePrior:
        """The transformer that `prior` describes.

        Raises:
          ValueError: an unknown kind or setting, or more components than the embedding has.
        """
        if self.kind not in KINDS:
            raise ValueError(
                f"config.model.kind is '{self.kind}'; use one of {', '.join(KINDS)}."
                + nearest(self.kind, KINDS)
            )
        tower = self.text_tower(parent=None)
        width = getattr(tower, "sizes", None) or {"width": tower.width}
        sizes = {"text_width": width["width"], "length": tower.length}
        fields = {"dtype": self.dtype, "embed_dim": self.embed_dim, **sizes, **self.prior}
        network = KINDS[self.kind]
        made = network(**check_kwargs(network, fields, "config.model.prior"), **kwargs)
        if self.kind == "autoregressive" and made.components > self.embed_dim:
            raise ValueError(
                f"config.model.prior.components is {made.components}, and the CLIP's embeddings "
                f"have {self.embed_dim} numbers: set it to at most that."
            )
        return made

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs = jax.lax.stop_gradient(super().__call__(batch, train=False))
        given = {**batch, **outputs}
        if self.is_initializing():
            shape = (len(batch["text"]), self.embed_dim)
            given |= {"time": jnp.zeros(shape[:1]), "noise": jnp.zeros(shape)}
        if "time" not in given:
            return outputs
        present = given.get("text_present", jnp.ones(len(given["time"]), bool))[:, None]
        given["text_mask"] = given["text_mask"] & present
        given["text_embed"] = jnp.where(present, given["text_embed"], 0.0)
        given["alpha"], given["sigma"] = self.noise_schedule().levels(given["time"])
        if self.kind == "one_shot":
            given |= {k: jnp.zeros_like(given["time"]) for k in ("time", "alpha", "sigma")}
        return outputs | self.transformer(name="prior")(given, train=train)


def corrupt(schedule: Schedule, width: int, drop: float) -> Callable[[Batch, Context], Batch]:
    """`System.corrupt`: adds time [B] and noise [B, width], and drops some texts.

    Args:
      drop: probability that a row has no text.
    """

    def f(batch: Batch, context: Context) -> Batch:
        keys = [numbered(context.rng, i) for i in range(3)]
        chance, kept = (jax.vmap(jax.random.uniform)(key) for key in keys[:2])
        present = batch.get("text_present", jnp.ones(len(kept), bool)) & (kept >= drop)
        added = {"time": schedule.draw(chance), "noise": normal(keys[2], (width,))}
        return {**batch, **added, "text_present": present}

    return f


def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
    """`prior`, the squared error of the clean embedding in units of its deviation.

    And of rows with a text the cosines of the true embedding with the predicted one,
    `prior_cosine`, and with that of the text, `text_cosine`, which needs no prior.
    """
    del context
    error = squared_error(outputs["clean_embed"], outputs["target_embed"])
    image, has_text = outputs["image_embed"], batch["text_present"].astype(jnp.float32)
    has_image = batch.get("image_present", jnp.ones(len(image), bool)).astype(jnp.float32)
    predicted = unit_length(outputs["predicted_embed"])
    found = {"prior_cosine": predicted, "text_cosine": outputs["text_embed"]}
    return {"prior": Weighted(error, has_image)} | {
        name: Weighted((image * other).sum(-1), has_image * has_text)
        for name, other in found.items()
    }


def sample(
    model: DiffusionPrior,
    drop: float,
    variables: Variables,
    batch: Batch,
    rng: Key[Array, " b"],
    settings: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """`System.sample`: `image_embed` [B, E] of unit length for the texts of a batch.

    Args:
      drop: probability of training without a text.
      settings: fields of `Settings`, of which only diffusion reads others than `guidance`, and
        `candidates`, 2 by default: so many are drawn, and that of the highest cosine with the text
        is kept, as in the paper; of a one-shot prior, whose are equal, 1.

    Raises:
      ValueError: an unknown setting, or one that the model was not trained for.
    """
    options = {"candidates": 1 if model.kind == "one_shot" else 2, **settings}
    candidates = options.pop("candidates")
    how = Settings(**check_kwargs(Settings, options, "sample"))
    if candidates < 1:
        raise ValueError(f"sample.candidates is {candidates}: draw at least one.")
    if how.guidance != 1 and not drop:
        raise ValueError(
            f"sample.guidance is {how.guidance}, and this prior was trained with a text in every "
            "row: set config.loss.drop_text, such as 0.1, for training, or guidance to 1."
        )
    if "text" not in batch:
        raise ValueError("A prior makes embeddings of texts and the batch has none: give text.")
    texts = {k: batch[k] for k in ("text", "text_mask")}
    given = {**texts, **model.apply(variables, texts)}
    given = {k: repeat(given[k], "b ... -> (n b) ...", n=candidates) for k in CONDITION}
    rows, guides = len(rng) * candidates, how.guidance not in (0, 1)
    present = jnp.full(rows, how.guidance != 0)
    if guides:  # with the text, then without it
        condition = {k: jnp.concatenate([x, x]) for k, x in given.items()}
        condition["text_present"] = jnp.concatenate([present, ~present])
    else:
        condition = {**given, "text_present": present}

    keys = jnp.concatenate([numbered(rng, 1000 + i) for i in range(candidates)])
    found = DRAWS[model.kind](model, variables, condition, keys, how)
    cosine = (found * given["text_embed"]).sum(-1)
    best = rearrange(cosine, "(n b) -> b n", n=candidates).argmax(-1)
    found = rearrange(found, "(n b) e -> b n e", n=candidates)
    return {"image_embed": jnp.take_along_axis(found, best[:, None, None], axis=1)[:, 0]}


def draw_embeddings(
    model: DiffusionPrior,
    variables: Variables,
    condition: Batch,
    keys: Key[Array, " b"],
    how: Settings,
) -> jax.Array:
    """Image embeddings [B, E] of unit length, by diffusion or in one shot.

    Args:
      condition: `CONDITION` and text_present; with guidance also those of no text, in as many
        further rows.
    """

    def predict(x, time):
        step = {"noisy_embed": x, "time": time}
        return model.apply(variables, {**condition, **step})["clean_embed"]

    twice = len(condition["text_embed"]) > len(keys)
    predict = guided(predict, how.guidance) if twice else predict
    if model.kind == "one_shot":
        found = predict(jnp.zeros((len(keys), model.embed_dim)), jnp.zeros(len(keys)))
    else:
        schedule, size = model.noise_schedule(), (model.embed_dim,)
        found, _ = draw(predict, keys, size, schedule, how, target="x0")
    scale = variables[BUFFERS]["prior"]
    return unit_length(scale["mean"][None] + scale["deviation"][None] * found)


def draw_codes(
    model: DiffusionPrior,
    variables: Variables,
    condition: Batch,
    keys: Key[Array, " b"],
    how: Settings,
) -> jax.Array:
    """As `draw_embeddings`, by the autoregressive prior."""
    present = condition["text_present"][:, None]
    given = {
        "text_tokens": condition["text_tokens"],
        "text_mask": condition["text_mask"] & present,
        "text_embed": jnp.where(present, condition["text_embed"], 0.0),
    }
    own = {"params": variables["params"]["prior"], BUFFERS: variables[BUFFERS]["prior"]}
    network = model.transformer(parent=None)
    return autoregressive_prior.draw(network, own, given, keys, how.guidance)


DRAWS = {
    "diffusion": draw_embeddings,
    "one_shot": draw_embeddings,
    "autoregressive": draw_codes,
}


def make_model(config: Mapping[str, Any]) -> DiffusionPrior:
    """The prior that `config.model` describes. See `build`."""
    return build(
        DiffusionPrior, config, "image_tower", "text_tower", "noise_schedule", "transformer"
    )


def make_system(config: Mapping[str, Any]) -> System:
    """A prior with the loss above; `config.loss` may set `drop_text`, see `corrupt`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    drop = drop_rate(**check_kwargs(drop_rate, config["loss"], "config.loss"))
    of_codes = model.kind == "autoregressive"
    hooks = {}
    if of_codes:
        network = model.transformer(parent=None)
        seen = config["total_steps"], config["batch_size"]
        hooks = {
            "remember": functools.partial(autoregressive_prior.remember, network.examples),
            "check_source": functools.partial(autoregressive_prior.check_source, network, *seen),
        }
    return System(
        model=model,
        spec=spec(model, example_ids=False),
        loss=autoregressive_prior.loss if of_codes else loss,
        corrupt=corrupt(model.noise_schedule(), model.embed_dim, drop),
        sample=compiled(functools.partial(sample, model, drop)),
        **hooks,
    )


def drop_rate(drop_text: float = 0.1) -> float:
    """The probability that a row has no text, for guidance.

    Raises:
      ValueError: no probability.
    """
    if not 0 <= drop_text < 1:
        raise ValueError(f"config.loss.drop_text is {drop_text}: give a probability below 1.")
    return drop_text
