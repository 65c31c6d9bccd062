"""LLaVA: a language model that reads the tokens of images among those of its text."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.projector import Projector, count_tokens
from mmjax.models import language
from mmjax.models.build import build, of_kind
from mmjax.models.efficientnet import EfficientNet
from mmjax.models.prompted_images import check_images, with_checked_prompts
from mmjax.models.text_decoder import GeneratesText, TextDecoder, make_text_decoder
from mmjax.models.vit import ViT
from mmjax.system import System

TOWERS = {"efficientnet": EfficientNet, "vit": ViT}


class Llava(GeneratesText, nn.Module):
    """batch["image"] [B, M, H, W, 3] and ["text"] [B, L] -> `text_logits` [B, L, V].

    Each image of a row is `image_length` times the token `image_token` in its text, whose
    embeddings its projected tokens replace, in order; with fewer images than M, `image_mask` [B, M]
    is false on the last ones. One image for each row may come as [B, H, W, 3]. Where an image is
    missing (`image_present` false) its tokens are masked. Without text, images [..., H, W, 3] give
    `image_tokens` [..., image_length, width] of the language model.

    `text_pack` [B, L] int32 numbers the conversations that are packed into a row; see `Decoder`.

    Attributes:
      image: fields of the image tower; `kind` "efficientnet" is an EfficientNet, whose last feature
        map is read, else it is a `ViT` with pool "none" or "all".
      projector: fields of `Projector`.
      text: fields of `TextDecoder`.
      image_token: id of the token that stands for a token of an image.
      max_images: M of training.
      class_feature: the class token of the tower is one more token of an image.
      places: what is written around the tokens of an image in a prompt, whose embeddings are
        learned as all others are: fields of `ImagePlaces`.
      prefix: the tokens before the response attend to one another in both directions (PaliGemma).
      lock_image: the image tower is frozen and runs in evaluation mode.

    Stages are settings of the optimizer: config.optim.freeze = ("image/.*", "text/.*") trains the
    projector alone, ("image/.*",) also the language model; see also config.lora.

    Source: Liu et al. 2023 (arXiv 2304.08485), section 4.1; Liu et al. 2023 (arXiv 2310.03744).
    """

    image: Mapping[str, Any]
    projector: Mapping[str, Any]
    text: Mapping[str, Any]
    image_token: int
    max_images: int = 1
    class_feature: bool = False
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prefix: bool = False
    lock_image: bool = True
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT | EfficientNet:
        """The image tower that `image` describes."""
        fields = {"dtype": self.dtype, "kind": "vit", "pool": "none", **self.image}
        if fields["pool"] not in ("none", "all"):
            raise ValueError(
                f"config.model.image.pool is '{fields['pool']}', but the text reads all tokens of "
                "the image: use 'none', or 'all' without the final norm."
            )
        return of_kind(TOWERS, fields, "config.model.image", **kwargs)

    def project(self, **kwargs) -> Projector:
        """The projector that `projector` describes."""
        fields = {"dtype": self.dtype, "width": self.text["width"], **self.projector}
        return Projector(**check_kwargs(Projector, fields, "config.model.projector"), **kwargs)

    def text_decoder(self, **kwargs) -> TextDecoder:
        """The decoder that `text` describes."""
        return make_text_decoder(self.text, self.dtype, **kwargs)

    @property
    def image_length(self) -> int:
        """Tokens of the text that an image takes, without those around it."""
        tower = self.image_tower(parent=None)
        tokens = tower.grid[0] * tower.grid[1] + self.class_feature
        return count_tokens(tokens, self.project(parent=None).shuffle)

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        text, mask, inserted = batch.get("text"), batch.get("text_mask"), None
        if "image" in batch:
            images = self._image_tokens(batch["image"], train)
            if text is None:
                return {"image_tokens": images}
            if images.ndim == 3:
                images = images[:, None]
            if mask is None:
                mask = jnp.ones(text.shape, bool)
            places = (text == self.image_token) & mask
            inserted = rearrange(images, "b m s d -> b (m s) d"), places
            if "image_present" in batch:
                mask = mask & ~(places & ~batch["image_present"][:, None])
        prefix = None
        if self.prefix and not self.has_variable("cache", "text"):
            prefix = jnp.ones(text.shape, bool) if mask is None else mask
            if "text_loss_mask" in batch:
                prefix = prefix & ~batch["text_loss_mask"]
        return self.text_decoder(name="text")(
            text,
            mask,
            inserted=inserted,
            packs=batch.get("text_pack"),
            prefix=prefix,
            train=train,
            cache_length=cache_length,
        )

    def _image_tokens(self, image: jax.Array, train: bool) -> jax.Array:
        """Images [..., H, W, 3] -> projected tokens [..., image_length, width]."""
        many = image.shape[:-3]
        tower = self.image_tower(name="image")
        image = image.reshape(-1, *image.shape[-3:])
        x = tower({"image": image}, train=train and not self.lock_image)["image_tokens"]
        if self.lock_image:
            x = jax.lax.stop_gradient(x)
        patches = tower.grid[0] * tower.grid[1]
        x = x[:, x.shape[1] - patches - self.class_feature :]
        x = self.project(name="projector")(x)
        return x.reshape(*many, *x.shape[1:])


def make_model(config: Mapping[str, Any]) -> Llava:
    """The model that `config.model` describes. See `build`."""
    model = build(Llava, config, "image_tower", "project", "text_decoder")
    vocabulary = model.text["vocab_size"]
    if not 0 <= model.image_token < vocabulary:
        raise ValueError(
            f"config.model.image_token is {model.image_token} and the vocabulary has {vocabulary} "
            "tokens: it must be one of them."
        )
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """A LLaVA; its loss is that of a language model, see `mmjax.models.language`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    hooks = language.text_hooks(model, config["loss"])
    own = with_checked_prompts(model, hooks)
    own["check_batch"] = functools.partial(check, model)
    shows = language.caption_evaluator(model)
    spec = language.spec_with_images(model)
    return System(model=model, spec=spec, evaluators=shows, **{**hooks, **own})


def check(model: Llava, batch: Batch) -> None:
    """Raise ValueError for a batch on the host that cannot be trained on.

    That is a batch without a supervised token, one that supervises a token of an image, or one that
    fails `check_images`.
    """
    language.check_text(batch)
    check_images(model, batch)
    if "text_loss_mask" in batch:
        is_place = np.asarray(batch["text"]) == model.image_token
        wrong = np.asarray(batch["text_loss_mask"]) & is_place
        for row in np.flatnonzero(wrong.any(1)):
            raise ValueError(
                f"Row {row} of the batch has a token of an image among those to predict: images "
                "belong to the questions, not to the answers."
            )
