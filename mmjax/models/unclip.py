"""The decoder of DALL-E 2 (unCLIP): images from embeddings of a frozen CLIP, by diffusion."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.linear import Linear
from mmjax.layers.norm import unit_length
from mmjax.layers.parameters import param
from mmjax.models import glide
from mmjax.models.build import build
from mmjax.models.clip import joint_projection
from mmjax.models.glide import GLIDE
from mmjax.models.glide_sampling import CONDITION
from mmjax.models.vit import ViT
from mmjax.sample.rows import numbered
from mmjax.system import Context, System


class ImageCondition(nn.Module):
    """An image embedding [B, E] -> condition [B, out], which is added to that of the timestep, and
    tokens [B, S, width] that stand before those of the text.

    A row whose `present` is false has a learned embedding in place of its own.

    Attributes:
      tokens: S.

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2.1; UnCLIPTextProjModel of diffusers
    0.42, in whose map the S numbers of each channel stand together.
    """

    out: int
    width: int
    tokens: int = 4
    dtype: str = "float32"

    @nn.compact
    def __call__(self, embed: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        size = embed.shape[-1]
        nothing = param(self, "nothing", nn.initializers.zeros, (size,), (None,))
        embed = jnp.where(present[:, None], embed, nothing[None])
        init = nn.initializers.normal(size**-0.5)
        rest = {"dtype": self.dtype, "kernel_init": init}
        condition = Linear((self.out,), (None, "embed"), **rest, name="condition")(embed)
        found = Linear((self.width * self.tokens,), (None, "embed"), **rest, name="tokens")(embed)
        found = rearrange(found, "b (w s) -> b s w", s=self.tokens)
        return condition.astype(jnp.float32), found.astype(jnp.float32)


class UnCLIP(GLIDE):
    """A GLIDE that also reads the embedding of an image by a frozen CLIP: see `GLIDE`.

    The embedding is `image_embed` [B, E] of unit length, or that of `clip_image`, or else that of
    the batch's image, which has the size that the CLIP reads, and is resized to that of the
    samples. A row whose image_embed_present is false has none.

    Its parameters `image/...` and `image_proj/...` are those of a CLIP: `init_from` reads one. No
    gradient reaches them.

    Attributes:
      embed_dim: E; image: fields of `ViT`, as in a CLIP.
      image_dropout: probability that an example is trained without its embedding.
      image_tokens: tokens of an embedding.

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2.1.
    """

    embed_dim: int = 512
    image: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_dropout: float = 0.1
    image_tokens: int = 4

    def image_tower(self, **linen: Any) -> ViT:
        """The image tower of the CLIP.

        Raises:
          ValueError: an unknown setting.
        """
        fields = {"dtype": self.dtype, **self.image}
        return ViT(**check_kwargs(ViT, fields, "config.model.image"), **linen)

    def check(self, **linen: Any) -> None:
        """Raise ValueError for settings that do not fit together."""
        super().check(**linen)
        if self.low_res is not None or self.inpaint:
            raise ValueError(
                "A decoder starts from an embedding: leave out config.model.low_res and inpaint, "
                "which are of the system 'glide'."
            )
        if not 0 <= self.image_dropout < 1:
            raise ValueError(
                f"config.model.image_dropout is {self.image_dropout}: give a probability below 1."
            )
        height, width = self.image_tower(parent=None).train_size
        if height < self.shape[0] or width < self.shape[1]:
            raise ValueError(
                f"The CLIP reads images of {height} x {width}, and samples are {self.shape[0]} x "
                f"{self.shape[1]}: set config.model.image_size to at most that of the CLIP."
            )

    @property
    def read(self) -> tuple[str, ...]:
        """The arrays of a batch that its condition comes from."""
        return (*super().read, "image_embed", "clip_image", "image_embed_present")

    @property
    def drops(self) -> bool:
        """Whether examples are trained without their condition, which guidance needs."""
        return super().drops and self.image_dropout > 0

    @property
    def dropouts(self) -> str:
        """The settings that `drops` needs, for messages."""
        return "text_dropout and config.model.image_dropout"

    def clean(self, batch: Batch) -> jax.Array:
        """[B, H, W, C] fp32 in -1 ... 1, at the size of samples."""
        x = super().clean(batch)
        if x.shape[1:3] == tuple(self.shape[:2]):
            return x
        return jax.image.resize(x, (len(x), *self.shape), "bilinear", antialias=True)

    def conditioned(self, batch: Batch) -> Batch:
        """The batch to sample from: with an embedding, or the image that it is that of.

        Raises:
          ValueError: it has neither.
        """
        if "image_embed" in batch:
            return batch
        if "image" not in batch:
            raise ValueError(
                "A decoder samples from the embedding of an image: give image_embed, as a prior "
                "makes them of texts (python -m mmjax.unclip), or an image."
            )
        return {**batch, "clip_image": batch["image"]}

    def encode(self, batch: Batch, train: bool) -> dict[str, jax.Array]:
        """The condition and the context of a batch; called once in `__call__`."""
        given = super().encode(batch, train)
        if "image_embed" in batch:
            embed = batch["image_embed"]
        else:
            embed = self.embed(batch["clip_image"] if "clip_image" in batch else batch["image"])
        present = batch.get("image_embed_present", jnp.ones(len(embed), bool))
        text = self.text_condition(parent=None)
        condition = ImageCondition(
            text.out, text.width, self.image_tokens, self.dtype, name="image_condition"
        )
        added, tokens = condition(embed, present)
        both = given["condition"] + added, jnp.concatenate([tokens, given["context"]], axis=1)
        return dict(zip(CONDITION, both))

    def embed(self, image: jax.Array) -> jax.Array:
        """[B, E] of unit length, of images [B, h, w, 3] uint8; called once in `__call__`."""
        found = self.image_tower(name="image")({"image": image})["image_features"]
        project = joint_projection(found.shape[-1], self.embed_dim, False, "image_proj")
        return jax.lax.stop_gradient(unit_length(project(found)))


def corrupt(model: UnCLIP, batch: Batch, context: Context) -> Batch:
    """`System.corrupt`: that of `glide.corrupt`, and some embeddings dropped."""
    found = glide.corrupt(model, batch, context)
    keep = jax.vmap(jax.random.uniform)(numbered(context.rng, 8)) >= model.image_dropout
    return {**found, "image_embed_present": keep}


def make_model(config: Mapping[str, Any]) -> UnCLIP:
    """The decoder that `config.model` describes. See `build`."""
    return build(UnCLIP, config, "check", "make_backbone", "text_condition", "image_tower")


def make_system(config: Mapping[str, Any]) -> System:
    """A decoder with the losses of the system `diffusion`; see `diffusion.make_system`.

    Raises:
      ValueError: an unknown setting, or settings that do not fit together.
    """
    model = make_model(config["model"])
    return glide.system_of(model, config, spec(model), corrupt)


def spec(model: UnCLIP) -> Spec:
    """`System.spec`: images have the size that the CLIP reads."""
    size = model.image_tower(parent=None).train_size
    return {**glide.spec(model), "image": jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)}
