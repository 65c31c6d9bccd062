"""Karlo, a published unCLIP: CLIP's texts, a prior, a decoder, and two networks that enlarge."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.models import karlo_sampling
from mmjax.models.build import build
from mmjax.models.clip import joint_projection
from mmjax.models.prior_transformer import PriorTransformer, inputs
from mmjax.models.text import TextTransformer
from mmjax.models.unclip import ImageCondition
from mmjax.models.unet import UNet, check_halves
from mmjax.models.vit import ViT
from mmjax.sample.parameterization import check_target
from mmjax.sample.samplers import VARIANCES
from mmjax.sample.schedules import Schedule
from mmjax.system import System

COLORS = 3


@dataclasses.dataclass(frozen=True)
class Denoising:
    """How a part is sampled from: ancestrally, over steps of the squared cosine.

    Attributes:
      steps: of the noise schedule; target: see `parameterization`; variance: see `samplers.ddpm`.
      clip: limit of the predicted clean sample; None: none.

    Raises:
      ValueError: an unknown target or variance.
    """

    steps: int = 1000
    target: str = "epsilon"
    variance: str = "small"
    clip: float | None = 1.0

    def __post_init__(self):
        check_target(self.target)
        if self.variance not in VARIANCES:
            raise ValueError(
                f"The variance is '{self.variance}'; use one of {', '.join(VARIANCES)}."
            )

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return Schedule("squared_cosine", self.steps)


class Condition(nn.Module):
    """What the decoder reads of an image's embedding [B, E] and a text: see `ImageCondition`.

    A text has an embedding [B, E] and tokens [B, L, E], of a CLIP, not normalized. The tokens of
    the text stand behind those of the image, and only theirs are normalized.

    Source: UnCLIPTextProjModel of diffusers 0.42.
    """

    out: int
    width: int
    tokens: int = 4
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        image_embed: jax.Array,
        present: jax.Array,
        text_embed: jax.Array,
        text_tokens: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """condition [B, out] and context [B, S + L, width], fp32."""
        image = ImageCondition(self.out, self.width, self.tokens, self.dtype, name="image")
        condition, tokens = image(image_embed, present)

        def project(x, features, name):
            init = nn.initializers.normal(x.shape[-1] ** -0.5)
            rest = {"dtype": self.dtype, "kernel_init": init}
            return Linear((features,), (None, "embed"), **rest, name=name)(x)

        condition += project(text_embed, self.out, "text_condition").astype(jnp.float32)
        words = project(text_tokens, self.width, "text_tokens")
        words = LayerNorm(1e-5, self.dtype, name="text_norm")(words).astype(jnp.float32)
        return condition, jnp.concatenate([tokens, words], axis=1)


class Karlo(nn.Module):
    """The parts of a pipeline, which `karlo_sampling` calls one after the other.

    A batch of text and text_mask [B, L] gives text_tokens [B, L, E] and text_embed [B, E] of the
    CLIP, and one of image [B, h, w, 3] uint8 image_embed [B, E]; none is normalized.

    Attributes:
      embed_dim: E, also the width of the CLIP's texts; text: fields of `TextTransformer`.
      image: fields of the CLIP's `ViT`; None: there are no variations of images.
      prior: fields of `PriorTransformer`, but those of the CLIP; None: there are no images of
        texts.
      image_tokens, context_width: of the decoder's context.
      decoder, super_res_first, super_res_last: fields of `UNet`; the last one makes the last step
        of the enlarging.
      image_size: side of the decoder's images; large_size: of the enlarged ones.
      denoising: fields of `Denoising` for "prior", "decoder" and "super_res".

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2; UnCLIPPipeline and
    UnCLIPImageVariationPipeline of diffusers 0.42.
    """

    embed_dim: int
    text: Mapping[str, Any]
    decoder: Mapping[str, Any]
    super_res_first: Mapping[str, Any]
    super_res_last: Mapping[str, Any]
    image: Mapping[str, Any] | None = None
    prior: Mapping[str, Any] | None = None
    image_tokens: int = 4
    context_width: int = 1536
    image_size: int = 64
    large_size: int = 256
    denoising: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"

    def text_tower(self, **linen: Any) -> TextTransformer:
        """The CLIP's text tower."""
        fields = {"dtype": self.dtype, **self.text, "tokens": True}
        return TextTransformer(
            **check_kwargs(TextTransformer, fields, "config.model.text"), **linen
        )

    def image_tower(self, **linen: Any) -> ViT:
        """The CLIP's image tower."""
        fields = {"dtype": self.dtype, **self.image}
        return ViT(**check_kwargs(ViT, fields, "config.model.image"), **linen)

    def make_prior(self, **linen: Any) -> PriorTransformer:
        """The prior."""
        sizes = {"text_width": self.embed_dim, "length": self.text_tower(parent=None).length}
        fields = {"dtype": self.dtype, "embed_dim": self.embed_dim, **sizes, **self.prior}
        kind = PriorTransformer
        return kind(**check_kwargs(kind, fields, "config.model.prior"), **linen)

    def make_condition(self, **linen: Any) -> Condition:
        """What makes the condition of the decoder."""
        out = self.make_unet("decoder", parent=None).embedding_width
        return Condition(out, self.context_width, self.image_tokens, self.dtype, **linen)

    def make_unet(self, part: str, **linen: Any) -> UNet:
        """The U-Net of a part."""
        stage = "decoder" if part == "decoder" else "super_res"
        learned = self.how(stage).variance == "learned"
        own = {"out_channels": COLORS * (2 if learned else 1), "dtype": self.dtype}
        made = UNet(
            **check_kwargs(UNet, getattr(self, part), f"config.model.{part}") | own, **linen
        )
        side = self.image_size if part == "decoder" else self.large_size
        check_halves((side, side), len(made.channels))
        return made

    def how(self, stage: str) -> Denoising:
        """How a part is sampled from."""
        fields = self.denoising.get(stage, {})
        return Denoising(**check_kwargs(Denoising, fields, f"config.model.denoising.{stage}"))

    def check(self, **linen: Any) -> None:
        """Raise ValueError for settings that do not fit together."""
        del linen
        known = ("prior", "decoder", "super_res")
        if not self.denoising.keys() <= {*known}:
            raise ValueError(
                f"config.model.denoising is of {', '.join(self.denoising)}; it may be of "
                f"{', '.join(known)}."
            )
        width = self.text_tower(parent=None).sizes["width"]
        if width != self.embed_dim:
            raise ValueError(
                f"The CLIP's texts have the width {width} and its embeddings {self.embed_dim}: "
                "the two are the same in Karlo."
            )
        for part in ("decoder", "super_res_first", "super_res_last"):
            self.make_unet(part, parent=None)
        for part, make in (("prior", self.make_prior), ("image", self.image_tower)):
            if getattr(self, part) is not None:
                make(parent=None)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs = {}
        if "text" in batch:
            found = self.text_tower(name="text")(batch, train=train)
            outputs["text_tokens"] = found["text_tokens"].astype(jnp.float32)
            outputs["text_embed"] = self._project("text_proj", found["text_features"])
        if "image" in batch:
            found = self.image_tower(name="image")(batch, train=train)
            outputs["image_embed"] = self._project("image_proj", found["image_features"])
        if self.is_initializing():
            self._initialize(outputs)
        return outputs

    def _project(self, name: str, features: jax.Array) -> jax.Array:
        return joint_projection(features.shape[-1], self.embed_dim, False, name)(features)

    def _initialize(self, texts: Mapping[str, jax.Array]) -> None:
        """Call the parts that `karlo_sampling` applies by themselves."""
        time, embed = jnp.zeros(1), texts["text_embed"][:1]
        if self.prior is not None:
            prior = self.make_prior(name="prior")
            prior({k: jnp.zeros(x.shape, x.dtype) for k, x in inputs(prior).items()})
        condition = self.make_condition(name="condition")
        given = condition(embed, jnp.ones(1, bool), embed, texts["text_tokens"][:1])
        named = dict(zip(("embedding", "context"), given))
        small = jnp.zeros((1, self.image_size, self.image_size, COLORS))
        self.make_unet("decoder", name="decoder")(small, time, **named)
        large = jnp.zeros((1, self.large_size, self.large_size, 2 * COLORS))
        for part in ("super_res_first", "super_res_last"):
            self.make_unet(part, name=part)(large, time)


def make_system(config: Mapping[str, Any]) -> System:
    """Published parts, to sample from: they are trained as a `diffusion_prior`, an `unclip` and a
    `glide` are.

    Raises:
      ValueError: an unknown setting, or settings that do not fit together.
    """
    model = build(Karlo, config["model"], "check")
    return System(
        model=model, spec=spec(model), loss=None, sample=karlo_sampling.compiled_sample(model)
    )


def spec(model: Karlo) -> Spec:
    """`System.spec`."""
    length = model.text_tower(parent=None).length
    found = {
        "text": jax.ShapeDtypeStruct((1, length), jnp.int32),
        "text_mask": jax.ShapeDtypeStruct((1, length), jnp.bool_),
    }
    if model.image is not None:
        size = model.image_tower(parent=None).train_size
        found["image"] = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    return found
