"""Texts of a system: what is a prompt, and what is decoded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.decode.texts import make_texts


class Counting:
    """A model whose next token is one more than the last one seen, whatever else it is given."""

    window = 12

    def apply(self, variables, batch, cache_length=0, mutable=()):
        last = jnp.take_along_axis(
            batch["text"], batch["text_mask"].sum(1, dtype=jnp.int32)[:, None] - 1, axis=1
        )
        return {"next_logits": 9.0 * jax.nn.one_hot(last[:, 0] + 1, 11)}, {"cache": {}}


class Words:
    """Token i is the word 'i'; 1 begins, 8 ends, 0 pads."""

    bos_id, eos_id, pad_id = 1, 8, 0

    def decode(self, ids):
        ids = [int(i) for i in ids]
        return " ".join(map(str, ids[: ids.index(8)] if 8 in ids else ids))


def test_without_prompts_a_text_starts_at_the_begin_token():
    write = make_texts(Counting(), Words(), {"max_new_tokens": 9})
    assert write({}, {"image": np.zeros((2, 4, 4, 3), np.uint8)}) == ["2 3 4 5 6 7"] * 2


def test_a_prompt_loses_its_end_token():
    write = make_texts(Counting(), Words(), {"max_new_tokens": 3})
    text = np.array([[1, 2, 8, 0, 0], [1, 2, 3, 8, 0], [1, 2, 8, 4, 8]], np.int32)
    assert write({}, {"text": text, "text_mask": text > 0}) == ["3 4 5", "4 5 6", "5 6 7"]


def test_settings_and_tokenizers_that_do_not_do():
    with pytest.raises(ValueError, match=r"decode.beam is not.*Did you mean 'beams'"):
        make_texts(Counting(), Words(), {"max_new_tokens": 3, "beam": 2})
    words = Words()
    words.bos_id = None
    write = make_texts(Counting(), words, {"max_new_tokens": 3})
    with pytest.raises(ValueError, match="no begin token"):
        write({}, {"image": np.zeros((2, 4, 4, 3), np.uint8)})
