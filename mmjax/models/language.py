"""A causal language model."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs, check_type
from mmjax.decode import texts
from mmjax.losses.captioning import captioning_loss, check_supervised
from mmjax.models.build import build
from mmjax.models.text_decoder import GeneratesText, TextDecoder, make_text_decoder
from mmjax.system import System, Terms


class LanguageModel(GeneratesText, nn.Module):
    """batch["text"] [B, L] int32, batch["text_mask"] [B, L] bool -> `text_logits` [B, L, V].

    Without a head it gives `text_tokens` [B, L, width] instead, and does not generate.

    Its parameters are `text/...`, as in the models that also take images: `init_from` with
    only="text/.*" initializes those from a language model.

    Attributes:
      text: fields of `TextDecoder`; it inherits `dtype`.
      head: False: a bare decoder, as transformers' LlamaModel.
    """

    text: Mapping[str, Any]
    head: bool = True
    dtype: str = "float32"

    def text_decoder(self, **kwargs) -> TextDecoder:
        """The decoder that `text` describes."""
        text = self.text if self.head else {**self.text, "tied": True}  # no parameters of a head
        return make_text_decoder(text, self.dtype, **kwargs)

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        decoder = self.text_decoder(name="text")
        mask = batch.get("text_mask")
        return decoder(batch["text"], mask, train=train, cache_length=cache_length, head=self.head)


def make_model(config: Mapping[str, Any]) -> LanguageModel:
    """The language model that `config.model` describes. See `build`."""
    return build(LanguageModel, config, "text_decoder")


def make_system(config: Mapping[str, Any]) -> System:
    """A language model; `config.loss` may set `label_smoothing`.

    Its loss gives `captioning`, the cross-entropy of the next token, and `token_accuracy`. Without
    a head it has neither a loss nor generation.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    if not model.head:
        return System(model=model, spec=spec(model), loss=None)
    return System(model=model, spec=spec(model), **text_hooks(model, config["loss"]))


def text_hooks(model: Any, loss: Mapping[str, Any]) -> dict[str, Callable]:
    """Loss, generation and checks of a system whose only loss is next-token prediction."""
    return {
        "loss": next_token(**check_kwargs(next_token, loss, "config.loss")),
        "check_batch": check_text,
        **generation_hooks(model),
    }


def caption_evaluator(model: Any) -> dict[str, dict[str, Any]]:
    """`System.evaluators` of a system that learns to write captions."""
    check_type(model.text["length"], int, "config.model.text.length")
    decode = {"max_new_tokens": model.text["length"] - 1}
    return {"captioning": {"kind": "captioning", "decode": decode}}


def generation_hooks(model: Any) -> dict[str, Callable]:
    """`generate` and `score` of a system that generates text."""
    return {
        "generate": functools.partial(texts.make_texts, model),
        "score": functools.partial(texts.make_choice, model),
    }


def next_token(label_smoothing: float = 0.0) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`; see `captioning_loss`."""
    return lambda outputs, batch, context: captioning_loss(
        outputs["text_logits"], batch, label_smoothing
    )


def check_text(batch: Batch) -> None:
    """Raise ValueError for a batch on the host without a token to predict.

    Not checked with several processes, as the rows of one process may have no such token. If the
    whole batch has none, the loss is NaN, and training stops.
    """
    if jax.process_count() == 1:
        check_supervised(batch)


def spec(model: Any) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    return {
        "text": jax.ShapeDtypeStruct((1, model.text["length"]), jnp.int32),
        "text_mask": jax.ShapeDtypeStruct((1, model.text["length"]), jnp.bool_),
    }


def spec_with_images(model: Any) -> Spec:
    """As `spec`, of a model that reads up to `max_images` images beside the text."""
    size = model.image_tower(parent=None).train_size
    image = jax.ShapeDtypeStruct((1, model.max_images, *size, 3), jnp.uint8)
    return {"image": image, **spec(model)}
