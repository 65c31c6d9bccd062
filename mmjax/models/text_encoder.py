"""A standalone text encoder: sentence embeddings, as from MiniLM, or a classifier of texts."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.linear import class_head
from mmjax.layers.norm import unit_length
from mmjax.losses.classification import check_labels, check_token_labels, token_classification
from mmjax.models.bert import BERT
from mmjax.models.build import build
from mmjax.models.classification import classification
from mmjax.system import Context, Outputs, System, Terms


class TextEncoder(nn.Module):
    """batch["text"] [B, L] int32, batch["text_mask"] [B, L] bool -> text_features [B, width].

    Gives the outputs of `BERT`, and text_embed [B, width]: the features normalized to unit length,
    whose dot products are cosine similarities. Its parameters are `text/...`, as in a CLIP with
    such a tower: `init_from` with only="text/.*" initializes that tower from this model.

    Attributes:
      text: fields of `BERT`; it inherits `dtype`.
      num_classes: size of the head; None: no head.
      classify: what the head classifies: "text" gives logits [B, num_classes] of the features,
        "tokens" gives token_logits [B, L, num_classes].

    Raises:
      ValueError: another `classify`.
    """

    text: Mapping[str, Any]
    num_classes: int | None = None
    classify: str = "text"
    dtype: str = "float32"

    def text_tower(self, **kwargs) -> BERT:
        """The encoder that `text` describes."""
        fields = {"dtype": self.dtype, **self.text}
        return BERT(**check_kwargs(BERT, fields, "config.model.text"), **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        if self.classify not in ("text", "tokens"):
            raise ValueError(f"config.model.classify is '{self.classify}'; use 'text' or 'tokens'.")
        outputs = self.text_tower(name="text")(batch, train=train)
        outputs["text_embed"] = unit_length(outputs["text_features"])
        if self.num_classes is not None:
            head = class_head(self.num_classes)
            if self.classify == "text":
                outputs["logits"] = head(outputs["text_features"])
            else:
                outputs["token_logits"] = head(outputs["text_tokens"].astype(jnp.float32))
        return outputs


def make_model(config: Mapping[str, Any]) -> TextEncoder:
    """The encoder that `config.model` describes. See `build`."""
    return build(TextEncoder, config, "text_tower")


def make_system(config: Mapping[str, Any]) -> System:
    """A text encoder. A classifier of texts or of their tokens has a loss, see `classification` and
    `token_classification`; others are trained as a tower of a `clip`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    length = model.text_tower(parent=None).length
    spec = {
        "text": jax.ShapeDtypeStruct((1, length), jnp.int32),
        "text_mask": jax.ShapeDtypeStruct((1, length), jnp.bool_),
    }
    if model.num_classes is None:
        return System(model=model, spec=spec, loss=None)
    head = {"classes": model.num_classes, "setting": "config.model.num_classes"}
    if model.classify == "tokens":
        return System(
            model=model,
            spec=spec | {"text_label": jax.ShapeDtypeStruct((1, length), jnp.int32)},
            loss=_tokens(**check_kwargs(_tokens, config["loss"], "config.loss")),
            check_batch=functools.partial(check_token_labels, **head),
        )
    return System(
        model=model,
        spec=spec | {"label": jax.ShapeDtypeStruct((1,), jnp.int32)},
        loss=classification(**check_kwargs(classification, config["loss"], "config.loss")),
        check_batch=functools.partial(check_labels, **head),
        evaluators={"classification": {"kind": "classification", "modalities": ("text",)}},
    )


def _tokens(label_smoothing: float = 0.0) -> Callable[[Outputs, Batch, Context], Terms]:
    """The loss of the classes of tokens for these settings of `config.loss`."""

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        return token_classification(outputs["token_logits"], batch, label_smoothing)

    return loss
