"""GLIDE: images from texts by diffusion in pixels; its upsampler, and inpainting."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import reduce

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.position import LearnedSequence
from mmjax.layers.precision import activation_dtype
from mmjax.layers.token_embed import look_up
from mmjax.layers.transformer import Transformer
from mmjax.models import diffusion, glide_sampling
from mmjax.models.build import build
from mmjax.models.diffusion import Diffusion
from mmjax.models.glide_sampling import CONDITION
from mmjax.models.unet import UNet
from mmjax.sample.compiled import compiled
from mmjax.sample.rows import normal, numbered
from mmjax.sharding import shard
from mmjax.system import Context, System


class TextCondition(nn.Module):
    """text [B, L] int32 and text_mask [B, L] -> condition [B, out], context [B, L, width].

    Padding has a learned vector at each place, is attended to, and is part of the context; the
    condition comes from the last place, which is usually padding. So a text without any valid token
    is the condition of no text.

    Attributes:
      length: maximum tokens of a text.

    Source: Nichol et al. 2021 (arXiv 2112.10741), section 4.1; openai/glide-text2im,
    text2im_model.py, Text2ImUNet.get_text_emb.
    """

    out: int
    vocab_size: int
    length: int = 128
    width: int = 512
    depth: int = 16
    heads: int = 8
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, text: jax.Array, mask: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        normal, shape = nn.initializers.normal, (self.vocab_size, self.width)
        table = param(self, "embedding", normal(0.02), shape, ("vocab", "embed"))
        stream = activation_dtype(self.dtype)
        places, padding = (
            LearnedSequence(self.length, self.width, name=name)(text.shape[1]).astype(stream)[None]
            for name in ("position", "padding")
        )
        x = jnp.where(mask[..., None], look_up(table, text, self.dtype) + places, padding)
        x = Transformer(
            self.depth,
            self.heads,
            4 * self.width,
            dropout=self.dropout,
            remat=self.remat,
            epsilon=1e-5,
            dtype=self.dtype,
            name="transformer",
        )(shard(x, "batch", "length", "act_embed"), train=train)
        x = LayerNorm(1e-5, self.dtype, name="norm")(x)
        init = normal(self.width**-0.5)
        head = Linear((self.out,), ("embed", None), dtype=self.dtype, kernel_init=init, name="head")
        return head(x[:, -1]).astype(jnp.float32), x.astype(jnp.float32)


class GLIDE(Diffusion):
    """What a U-Net predicts of noised images under a text: see `Diffusion`, whose fields it has.

    The batch has `text` and `text_mask` [B, L] beside the image; a row whose text_present is false
    has no text. A batch without an image gives what the U-Net reads of it, `condition` [B, E] and
    `context` [B, L, D], which may take its place in other batches. An upsampler also reads
    `low_res` [B, h, w, 3] in -1 ... 1, and inpainting `inpaint_mask` [B, H, W] bool, true where the
    image is known; without one, nothing is.

    Attributes:
      text: fields of `TextCondition`.
      text_dropout: probability that an example is trained without its text, which guidance needs.
      low_res: side of the image that is to be enlarged; None: no upsampler.
      low_res_noise: in training, noise of a deviation between 0 and this is added to it (Ho et al.
        2021, arXiv 2106.15282, section 4.2).
      inpaint: known pixels are given.

    Source: Nichol et al. 2021 (arXiv 2112.10741), sections 4 and 4.1 to 4.3.
    """

    text: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text_dropout: float = 0.0
    low_res: int | None = None
    low_res_noise: float = 0.0
    inpaint: bool = False
    learned_variance: bool = True

    def text_condition(self, **linen: Any) -> TextCondition:
        """The text's transformer.

        Raises:
          ValueError: an unknown or missing setting.
        """
        width = self.make_backbone(parent=None).embedding_width
        fields = check_kwargs(TextCondition, {"out": width, **self.text}, "config.model.text")
        return TextCondition(**{"dtype": self.dtype, **fields}, **linen)

    def check(self, **linen: Any) -> None:
        """Raise ValueError for settings that do not fit together."""
        super().check(**linen)
        if self.num_classes or self.latents is not None or self.backbone.get("kind") != "unet":
            raise ValueError(
                "A GLIDE is a U-Net of images with texts: leave out config.model.num_classes and "
                "latents, and set backbone.kind to 'unet'."
            )
        if not 0 <= self.text_dropout < 1:
            raise ValueError(
                f"config.model.text_dropout is {self.text_dropout}: give a probability below 1."
            )
        if self.low_res is not None and any(side % self.low_res for side in self.shape[:2]):
            raise ValueError(
                f"config.model.low_res is {self.low_res}, and images are {self.shape[0]} x "
                f"{self.shape[1]}: their sides must be multiples of it."
            )

    @property
    def drops(self) -> bool:
        """Whether examples are trained without their condition, which guidance needs."""
        return self.text_dropout > 0

    @property
    def dropouts(self) -> str:
        """The settings that `drops` needs, for messages."""
        return "text_dropout"

    @property
    def read(self) -> tuple[str, ...]:
        """The arrays of a batch that its condition comes from."""
        return ("text", "text_mask", "text_present")

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        given = {k: batch[k] for k in CONDITION if k in batch}
        if not given:
            given = self.encode(batch, train)
        if not ("noised" in batch or "image" in batch):
            return given
        x = batch["noised"] if "noised" in batch else self.clean(batch)
        time = batch["time"] if "time" in batch else jnp.zeros(len(x))
        backbone: UNet = self.make_backbone(name="backbone")
        output = backbone(
            jnp.concatenate([x, *self._known(batch, x)], axis=-1),
            time,
            embedding=given["condition"],
            context=given["context"],
            train=train,
        )
        if not self.learned_variance:
            return {"prediction": output}
        prediction, variance = jnp.split(output, 2, axis=-1)
        return {"prediction": prediction, "variance": variance}

    def conditioned(self, batch: Batch) -> Batch:
        """The batch to sample from, with what `encode` reads beside a text."""
        return batch

    def encode(self, batch: Batch, train: bool) -> dict[str, jax.Array]:
        """The condition and the context of a batch; called once in `__call__`."""
        mask = batch["text_mask"]
        if "text_present" in batch:
            mask = mask & batch["text_present"][:, None]
        found = self.text_condition(name="text_condition")(batch["text"], mask, train=train)
        return dict(zip(CONDITION, found))

    def _known(self, batch: Batch, x: jax.Array) -> list[jax.Array]:
        """Further channels of x: the known pixels and their mask, and the small image enlarged."""
        found = []
        if self.inpaint:
            image = self.clean(batch) if "image" in batch else jnp.zeros_like(x)
            mask = batch.get("inpaint_mask", jnp.zeros(x.shape[:3], bool))[..., None]
            found += [jnp.where(mask, image, 0.0), mask.astype(x.dtype)]
        if self.low_res is not None:
            small = batch["low_res"] if "low_res" in batch else self.reduced(self.clean(batch))
            found.append(jax.image.resize(small, x.shape, "bilinear"))
        return found

    def reduced(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, C] at the resolution of `low_res`: means of squares of pixels."""
        step = self.shape[0] // self.low_res
        return reduce(x, "b (h p) (w q) c -> b h w c", "mean", p=step, q=step)


def corrupt(model: GLIDE, batch: Batch, context: Context) -> Batch:
    """`System.corrupt`: time and noise as in `diffusion.corrupt`, texts dropped, and what an
    upsampler or inpainting is given."""
    found, uniform = diffusion.corrupt(model, batch, context), jax.vmap(jax.random.uniform)
    keys = [numbered(context.rng, i) for i in range(3, 8)]
    kept = uniform(keys[0]) >= model.text_dropout
    found["text_present"] = batch.get("text_present", jnp.ones_like(kept)) & kept
    if model.low_res is not None:
        small = model.reduced(model.clean(batch))
        deviation = model.low_res_noise * uniform(keys[1])
        noise = normal(keys[2], small.shape[1:])
        found["low_res"] = small + deviation[:, None, None, None] * noise
    if model.inpaint:
        found["inpaint_mask"] = _outside(model.shape[:2], keys[3], keys[4])
    return found


def _outside(size: tuple[int, int], keys: jax.Array, all_keys: jax.Array) -> jax.Array:
    """[B, H, W] bool: true outside of a rectangle of any sides; of a row in ten, false all over."""

    places = [jnp.arange(side, dtype=jnp.float32) for side in size]

    def one(key, whole):
        ends = jnp.sort(jax.random.uniform(key, (2, 2)), axis=1)
        inside = [
            (at >= low * side) & (at < high * side)
            for (low, high), side, at in zip(ends, size, places)
        ]
        return ~(inside[0][:, None] & inside[1][None]) & (jax.random.uniform(whole) >= 0.1)

    return jax.vmap(one)(keys, all_keys)


def make_model(config: Mapping[str, Any]) -> GLIDE:
    """The model that `config.model` describes. See `build`."""
    return build(GLIDE, config, "check", "make_backbone", "text_condition")


def make_system(config: Mapping[str, Any]) -> System:
    """GLIDE with the losses of the system `diffusion`; see `diffusion.make_system`.

    Raises:
      ValueError: an unknown setting, or settings that do not fit together.
    """
    model = make_model(config["model"])
    return system_of(model, config, spec(model), corrupt)


def system_of(
    model: GLIDE, config: Mapping[str, Any], spec: Spec, corrupt: Callable[..., Batch]
) -> System:
    """The system of a model with the losses of `diffusion`.

    Args:
      corrupt: the hook of `System`, after the model.
    """
    weighting = diffusion.weighting_of(config.get("loss", {}))
    return System(
        model=model,
        spec=spec,
        loss=functools.partial(diffusion.loss, model, weighting),
        corrupt=functools.partial(corrupt, model),
        sample=compiled(functools.partial(glide_sampling.sample, model)),
    )


def spec(model: GLIDE) -> Spec:
    """`System.spec`."""
    length = model.text_condition(parent=None).length
    arrays = {
        "image": ((*model.shape[:2], 3), jnp.uint8),
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
