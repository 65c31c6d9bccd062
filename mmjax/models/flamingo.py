"""Flamingo: a language model over text interleaved with images."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.perceiver import PerceiverResampler
from mmjax.models import captioner, language
from mmjax.models.build import build
from mmjax.models.text_decoder import TextDecoder, decode_text, make_text_decoder
from mmjax.models.vit import ViT
from mmjax.system import System, Variables


class Flamingo(nn.Module):
    """batch["image"] [B, M, H, W, 3] and ["text"] [B, L] -> `text_logits` [B, L, V].

    Without text, images [..., H, W, 3] give `image_tokens` [..., patches, width].

    The M images of an example belong to the positions of `image_token` in its text, in order; with
    fewer images, `image_mask` [B, M] is false on the rest. Through gated cross-attention a token
    attends to the resampled tokens of the latest image at or before it, and to no other; tokens
    before the first image, and texts without images, are processed by the language model alone.

    Freeze the language model by config.optim.freeze = (r"text/decoder/stack/layers/.*", ...): the
    gated layers are `text/decoder/stack/cross/...` and are the identity at initialization.

    Attributes:
      image: fields of `ViT`; resampler: fields of `PerceiverResampler`.
      text: fields of `TextDecoder`; its decoder's cross_every is the interval of the gated layers.
      image_token: id of the token that stands for an image.
      max_images: maximum images per training example.
      lock_image: the image encoder is frozen and runs in evaluation mode.
      max_length: maximum length of a prompt with its continuation; None: text.length, the training
        length.

    Source: Alayrac et al. 2022 (arXiv 2204.14198), section 3.1; masks: section 3.1.3.
    """

    image: Mapping[str, Any]
    resampler: Mapping[str, Any]
    text: Mapping[str, Any]
    image_token: int
    max_images: int
    lock_image: bool = True
    max_length: int | None = None
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder that `image` describes."""
        return captioner.image_tower(self.image, self.dtype, **kwargs)

    def resample(self, **kwargs) -> PerceiverResampler:
        """The resampler that `resampler` describes."""
        fields = {"dtype": self.dtype, "frames": 0, **self.resampler}
        fields = check_kwargs(PerceiverResampler, fields, "config.model.resampler")
        return PerceiverResampler(**fields, **kwargs)

    def text_decoder(self, **kwargs) -> TextDecoder:
        """The decoder that `text` describes."""
        decoder = {"cross_gated": True, **self.text["decoder"]}
        fields = {**self.text, "length": self.window, "decoder": decoder}
        return make_text_decoder(fields, self.dtype, 1, **kwargs)

    @property
    def window(self) -> int:
        """Maximum length of a text, prompt and continuation together."""
        return self.max_length or self.text["length"]

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        context = context_mask = None
        if "image" in batch:
            image = batch["image"]
            if image.ndim != 5 and "text" in batch:
                raise ValueError(
                    f"A Flamingo takes images [B, M, H, W, 3] with a text and got {image.shape}: "
                    "use the batch transform interleave, or the evaluator few_shot."
                )
            many = image.shape[:-3]
            x = self.image_tower(name="image")(
                {"image": image.reshape(-1, *image.shape[-3:])},
                train=train and not self.lock_image,
            )["image_tokens"]
            if self.lock_image:
                x = jax.lax.stop_gradient(x)
            if "text" not in batch:
                return {"image_tokens": x.reshape(*many, *x.shape[1:])}
            x = self.resample(name="resampler")(x.reshape(*many, 1, *x.shape[1:]))
            context = x.reshape(many[0], -1, x.shape[-1])
            text, mask = batch["text"], batch.get("text_mask")
            text = text if mask is None else jnp.where(mask, text, -1)  # padding is no image token
            context_mask = media_mask(text, self.image_token, image_mask(batch))
            context_mask = jnp.repeat(context_mask, x.shape[2], axis=2)
        elif not self.has_variable("cache", "text"):
            # Text alone: a fully masked context.
            context = jnp.zeros(
                (len(batch["text"]), 1, self.image_tower(parent=None).sizes["width"])
            )
            context_mask = jnp.zeros((*batch["text"].shape, 1), bool)
        return decode_text(self, batch, context, context_mask, train, cache_length)


def image_mask(batch: Batch) -> jax.Array:
    """[B, M] bool, true on valid images."""
    mask = batch.get("image_mask")
    if mask is None:
        mask = jnp.ones(batch["image"].shape[:2], bool)
    if "image_present" in batch:
        mask = mask & batch["image_present"][:, None]
    return mask


def media_mask(text: jax.Array, image_token: int, mask: jax.Array) -> jax.Array:
    """Cross-attention mask: each token attends to the latest image at or before it.

    Args:
      text: [B, L] int32; mask: [B, M] bool, true on valid images.

    Returns:
      [B, L, M] bool.
    """
    latest = jnp.cumsum(text == image_token, axis=1, dtype=jnp.int32)
    places = jnp.arange(1, mask.shape[1] + 1)
    return (latest[:, :, None] == places[None, None]) & mask[:, None]


def make_model(config: Mapping[str, Any]) -> Flamingo:
    """The model that `config.model` describes. See `build`."""
    return build(Flamingo, config, "image_tower", "resample", "text_decoder")


def make_system(config: Mapping[str, Any]) -> System:
    """Flamingo; its loss is that of a language model, see `mmjax.models.language`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    hooks = language.text_hooks(model, config["loss"])

    def generate(tokenizer, settings):  # never an image token
        settings = {"forbidden_ids": (model.image_token,), **settings}
        return _checked(model, hooks["generate"](tokenizer, settings))

    def score(tokenizer, texts):
        return _checked(model, hooks["score"](tokenizer, texts))

    own = {"generate": generate, "score": score, "check_batch": functools.partial(check, model)}
    shows = language.caption_evaluator(model)
    spec = language.spec_with_images(model)
    return System(model=model, spec=spec, evaluators=shows, **{**hooks, **own})


def _checked(model: Flamingo, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a check that the images match the image tokens of the prompts."""

    def checked(variables: Variables, batch: Batch, *args: Any) -> Any:
        checks = {k: v for k, v in batch.items() if k in ("text", "text_mask", "image_mask")}
        check_places(model.image_token, {**batch, **process_allgather(checks, tiled=True)})
        return function(variables, batch, *args)

    return checked


def check(model: Flamingo, batch: Batch) -> None:
    """Raise ValueError for a batch on the host that cannot be trained on.

    That is a batch without a supervised token, or one that fails `check_places`.
    """
    language.check_text(batch)
    check_places(model.image_token, batch)


def check_places(image_token: int, batch: Batch) -> None:
    """Raise ValueError where the image tokens of a text are not as many as the example's images.

    An example whose image is missing (`image_present`) keeps its image tokens.
    """
    is_place = (np.asarray(batch["text"]) == image_token) & np.asarray(batch["text_mask"])
    places = is_place.sum(1)
    mask = batch.get("image_mask")
    if mask is None:
        count = batch["image"].shape[1] if "image" in batch else 0
        mask = np.ones((len(places), count), bool)
    mask = np.asarray(mask)
    images = mask.sum(1)
    for row in np.flatnonzero(places != images):
        raise ValueError(
            f"The text of row {row} of the batch has {places[row]} image tokens, and its example "
            f"{images[row]} images: give each image its token, and leave room for them in "
            "tokenize()."
        )
    for row in np.flatnonzero((mask[:, 1:] & ~mask[:, :-1]).any(1)):
        raise ValueError(
            f"image_mask of row {row} of the batch is {mask[row].tolist()}: the k-th "
            "image token stands for the k-th image, so put the valid images first."
        )
