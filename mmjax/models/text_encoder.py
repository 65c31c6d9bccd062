"""A standalone text encoder: sentence embeddings, as from MiniLM."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.norm import unit_length
from mmjax.models.bert import BERT
from mmjax.models.build import build
from mmjax.system import System


class TextEncoder(nn.Module):
    """batch["text"] [B, L] int32, batch["text_mask"] [B, L] bool -> text_features [B, width].

    Gives the outputs of `BERT`, and text_embed [B, width]: the features normalized to unit length,
    whose dot products are cosine similarities. Its parameters are `text/...`, as in a CLIP with
    such a tower: `init_from` with only="text/.*" initializes that tower from this model.

    Attributes:
      text: fields of `BERT`; it inherits `dtype`.
    """

    text: Mapping[str, Any]
    dtype: str = "float32"

    def text_tower(self, **kwargs) -> BERT:
        """The encoder that `text` describes."""
        fields = {"dtype": self.dtype, **self.text}
        return BERT(**check_kwargs(BERT, fields, "config.model.text"), **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs = self.text_tower(name="text")(batch, train=train)
        return outputs | {"text_embed": unit_length(outputs["text_features"])}


def make_model(config: Mapping[str, Any]) -> TextEncoder:
    """The encoder that `config.model` describes. See `build`."""
    return build(TextEncoder, config, "text_tower")


def make_system(config: Mapping[str, Any]) -> System:
    """A text encoder. It has no loss; it is trained as a tower of a `clip`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    length = model.text_tower(parent=None).length
    spec = {
        "text": jax.ShapeDtypeStruct((1, length), jnp.int32),
        "text_mask": jax.ShapeDtypeStruct((1, length), jnp.bool_),
    }
    return System(model=model, spec=spec, loss=None)
