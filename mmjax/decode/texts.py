"""Text generation and scoring for a system: one text per row, or log p of given texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.decode.generate import Generated, make_generate
from mmjax.decode.prompts import pad_rows
from mmjax.decode.score import make_score
from mmjax.decode.settings import Settings
from mmjax.layers.pooling import end_position
from mmjax.system import Variables


def make_texts(model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> Callable[..., Generated]:
    """`(variables, batch, seed=0) -> Generated`: continuations of the prompts, without the prompts.

    `batch` has the model's inputs and, optionally, prompts in `text` and `text_mask`, from which an
    end token at the end is removed. Without prompts a text begins with the begin token.

    Args:
      settings: fields of `Settings`; end_ids and pad_id default to the tokenizer's.

    Raises:
      ValueError: an unknown setting, max_new_tokens missing or larger than the model's window; when
        called, no prompts for a tokenizer without a begin token.
    """
    if "max_new_tokens" not in settings:
        raise ValueError(
            "decode.max_new_tokens is not set: say how many tokens a text may have, as in "
            'decode={"max_new_tokens": 20}.'
        )
    given = {"end_ids": tokenizer.end_ids, "pad_id": tokenizer.pad_id, **settings}
    generate = make_generate(model, Settings(**check_kwargs(Settings, given, "decode")))

    def generate_texts(variables: Variables, batch: Batch, seed: int = 0) -> Generated:
        found = generate(variables, _prompted(batch, tokenizer), seed)
        found = Generated((), *(process_allgather(x, tiled=True) for x in found[1:]))
        return found._replace(texts=[tokenizer.decode(row) for row in found.tokens[:, 0]])

    return generate_texts


def make_choice(
    model: Any, tokenizer: Any, texts: Sequence[str]
) -> Callable[[Variables, Batch], np.ndarray]:
    """`(variables, batch) -> [B, C]`: log p of each of C texts given each row's prompt.

    Prompts are as for `make_texts`; the end token of a text counts.

    Raises:
      ValueError: no texts, or no prompts for a tokenizer without a begin token.
    """
    begin = 0 if tokenizer.bos_id is None else 1
    ids = [(*prompt[begin:], tokenizer.eos_id) for prompt in tokenizer.prompts(texts)]
    score = make_score(model, *pad_rows(ids, max(map(len, ids), default=1)))

    def choice(variables: Variables, batch: Batch) -> np.ndarray:
        return process_allgather(score(variables, _prompted(batch, tokenizer)), tiled=True)

    return choice


def _prompted(batch: Batch, tokenizer: Any) -> dict[str, Any]:
    """The batch with prompts without end tokens; by default the begin token."""
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
        # numpy arrays, the same on every process of a mesh
        batch["text"] = np.full((rows, 1), tokenizer.bos_id, np.int32)
        batch["text_mask"] = np.ones((rows, 1), bool)
    return batch


def _open_ended(text, mask, eos_id: int):
    """The mask [B, L] without the last token of each row, if that is the end token."""
    last = jnp.arange(text.shape[1])[None] == end_position(mask)[:, None]
    return mask & ~(last & (text == eos_id))
