"""Texts of a system: what is a prompt, and what is decoded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from markov import NONE

from mmjax.decode.texts import make_choice, make_texts


class Counting:
    """A model whose next token is one more than the last one seen, whatever else it is given."""

    window = 12

    def apply(self, variables, batch, cache_length=0, mutable=()):
        last = jnp.take_along_axis(
            batch["text"], batch["text_mask"].sum(1, dtype=jnp.int32)[:, None] - 1, axis=1
        )
        cache = {"seen": jnp.ones((len(last), 1), bool)}
        return {"next_logits": 9.0 * jax.nn.one_hot(last[:, 0] + 1, 11)}, {"cache": cache}


class Words:
    """Token i is the word 'i'; 1 begins, 8 ends, 0 pads."""

    bos_id, eos_id, pad_id = 1, 8, 0
    end_ids = (8,)

    def decode(self, ids):
        ids = [int(i) for i in ids]
        return " ".join(map(str, ids[: ids.index(8)] if 8 in ids else ids))

    def prompts(self, texts):
        begin = [] if self.bos_id is None else [self.bos_id]
        return [(*begin, *map(int, text.split())) for text in texts]


def test_without_prompts_a_text_starts_at_the_begin_token():
    write = make_texts(Counting(), Words(), {"max_new_tokens": 9})
    assert write(NONE, {"image": np.zeros((2, 4, 4, 3), np.uint8)}).texts == ["2 3 4 5 6 7"] * 2


def test_a_prompt_loses_its_end_token():
    write = make_texts(Counting(), Words(), {"max_new_tokens": 3})
    text = np.array([[1, 2, 8, 0, 0], [1, 2, 3, 8, 0], [1, 2, 8, 4, 8]], np.int32)
    found = write(NONE, {"text": text, "text_mask": text > 0})
    assert found.texts == ["3 4 5", "4 5 6", "5 6 7"]
    np.testing.assert_array_equal(found.tokens[:, 0], [[3, 4, 5], [4, 5, 6], [5, 6, 7]])
    np.testing.assert_array_equal(found.lengths, [[3]] * 3)
    right = 9 - np.log(np.exp(9) + 10)
    np.testing.assert_allclose(found.scores, [[3 * right]] * 3, atol=1e-5)


@pytest.mark.parametrize("begin", [1, None])
def test_a_text_is_as_probable_as_its_tokens_and_its_end(begin):
    words = Words()
    words.bos_id = begin
    choice = make_choice(Counting(), words, ["6 7", "6", "7"])
    text = np.array([[1, 5, 8, 0], [1, 4, 5, 8], [1, 6, 0, 0]], np.int32)
    found = choice(NONE, {"text": text, "text_mask": text > 0})
    right, wrong = 9 - np.log(np.exp(9) + 10), -np.log(np.exp(9) + 10)
    after_5 = [3 * right, right + wrong, wrong + right]  # 8 ends a text, and follows 7
    after_6 = [wrong + 2 * right, 2 * wrong, 2 * right]
    np.testing.assert_allclose(found, [after_5, after_5, after_6], rtol=1e-5, atol=1e-5)


def test_no_texts_to_choose_from():
    with pytest.raises(ValueError, match="There are 0 texts"):
        make_choice(Counting(), Words(), [])


def test_settings_and_tokenizers_that_do_not_do():
    with pytest.raises(ValueError, match=r"decode.beam is not.*Did you mean 'beams'"):
        make_texts(Counting(), Words(), {"max_new_tokens": 3, "beam": 2})
    with pytest.raises(ValueError, match="decode.max_new_tokens is not set"):
        make_texts(Counting(), Words(), {})
    words = Words()
    words.bos_id = None
    write = make_texts(Counting(), words, {"max_new_tokens": 3})
    with pytest.raises(ValueError, match="no begin token"):
        write(NONE, {"image": np.zeros((2, 4, 4, 3), np.uint8)})
