"""A causal language model: each token from those before it."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.decode import texts
from mmjax.losses.captioning import captioning_loss, check_supervised, example_captioning_losses
from mmjax.models.text_decoder import TextDecoder, make_text_decoder


class LanguageModel(nn.Module):
    """batch["text"] [B, L] int32, batch["text_mask"] [B, L] bool -> `text_logits` [B, L, V].

    Its parameters are `text/...`, as in the models that look at images besides: `init_from` with
    only="text/.*" starts those from a language model.

    Attributes:
      text: fields of `TextDecoder`; it inherits `dtype`.
    """

    text: Mapping[str, Any]
    dtype: str = "float32"

    def text_decoder(self, **kwargs) -> TextDecoder:
        """The decoder that `text` describes."""
        return make_text_decoder(self.text, self.dtype, **kwargs)

    @property
    def window(self) -> int:
        """Length of the longest text, prompt and continuation together."""
        return self.text["length"]

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        decoder = self.text_decoder(name="text")
        mask = batch.get("text_mask")
        return decoder(batch["text"], mask, train=train, cache_length=cache_length)


def make_model(config: Mapping[str, Any]) -> LanguageModel:
    """The language model that `config.model` describes.

    Raises:
      ValueError: an unknown setting.
    """
    model = LanguageModel(**check_kwargs(LanguageModel, config, "config.model"))
    model.text_decoder(parent=None)  # so that a typing error shows now
    return model


def make_loss(config: Mapping[str, Any]) -> Callable[..., dict[str, jax.Array]]:
    """Cross-entropy of the next token; `config.loss` may set `label_smoothing`.

    The loss returns `captioning` and `token_accuracy`.
    """
    settings = check_kwargs(next_token, config, "config.loss")
    return next_token(**settings)


def next_token(label_smoothing: float = 0.0) -> Callable[..., dict[str, jax.Array]]:
    """The loss function of those settings; see `make_loss`."""
    return lambda outputs, batch: captioning_loss(outputs["text_logits"], batch, label_smoothing)


def make_example_losses(config: Mapping[str, Any]) -> Callable[..., dict[str, jax.Array]]:
    """Each text's part of the loss: (outputs, batch) -> {"captioning": [B]}."""
    settings = check_kwargs(next_token, config, "config.loss")

    def losses(outputs, batch):
        logits = outputs["text_logits"]
        return {"captioning": example_captioning_losses(logits, batch, **settings)}

    return losses


make_generate = texts.make_texts
make_choice = texts.make_choice


def check_batch(model: Mapping[str, Any], batch: Batch) -> None:
    """Raise ValueError for a batch on the host that cannot be trained on.

    One process's rows of it may well have no token to predict; the whole batch's loss is then NaN,
    at which the training stops.
    """
    del model
    if jax.process_count() == 1:
        check_supervised(batch)


def spec(model: LanguageModel, loss: Mapping[str, Any]) -> Spec:
    """What the model and its loss read of a batch of one."""
    del loss
    return {
        "text": jax.ShapeDtypeStruct((1, model.window), jnp.int32),
        "text_mask": jax.ShapeDtypeStruct((1, model.window), jnp.bool_),
    }
