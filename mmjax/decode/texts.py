"""A system's writing: from a batch to one text a row."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.decode.generate import make_generate
from mmjax.decode.settings import Settings
from mmjax.layers.pooling import end_position


def make_texts(
    model: Any, tokenizer: Any, settings: Mapping[str, Any]
) -> Callable[[Any, Batch], list[str]]:
    """`(params, batch) -> texts`: the best continuation of each row's prompt, without it.

    `batch` has what the model looks at and, where there are prompts, `text` and `text_mask`: an end
    token at their end is taken off. Without prompts a text begins with the tokenizer's begin token.

    Args:
      settings: those of `Settings`; end_ids and pad_id are the tokenizer's.

    Raises:
      ValueError: an unknown setting, or no prompts for a tokenizer without a begin token.
    """
    given = {"end_ids": (tokenizer.eos_id,), "pad_id": tokenizer.pad_id, **settings}
    generate = make_generate(model, Settings(**check_kwargs(Settings, given, "decode")))

    def texts(params: Any, batch: Batch) -> list[str]:
        batch = dict(batch)
        if "text" in batch:
            batch["text_mask"] = _open_ended(batch["text"], batch["text_mask"], tokenizer.eos_id)
        elif tokenizer.bos_id is None:
            raise ValueError(
                "The tokenizer has no begin token to start a text with: give prompts, by a "
                "transform that ends in tokenize."
            )
        else:
            rows = len(next(iter(batch.values())))
            # numpy's, which are the same for every process of a mesh
            batch["text"] = np.full((rows, 1), tokenizer.bos_id, np.int32)
            batch["text_mask"] = np.ones((rows, 1), bool)
        tokens = process_allgather(generate(params, batch).tokens[:, 0], tiled=True)
        return [tokenizer.decode(row) for row in tokens]

    return texts


def _open_ended(text, mask, eos_id: int):
    """The mask [B, L] without the last token of each row, if that is the end token."""
    last = jnp.arange(text.shape[1])[None] == end_position(mask)[:, None]
    return mask & ~(last & (text == eos_id))
