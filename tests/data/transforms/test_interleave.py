"""Interleaving rows, against a slow reading of what each row should say."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.transforms.interleave import interleave, join
from mmjax.models import flamingo

PLACE = 99


class Begins:
    bos_id = 1


def batch_of(words):
    """Row i is <1> its words <2>, and its image is all i."""
    length = max(len(w) for w in words) + 2
    text, mask = np.zeros((len(words), length), np.int32), np.zeros((len(words), length), bool)
    for i, w in enumerate(words):
        row = [1, *w, 2]
        text[i, : len(row)], mask[i, : len(row)] = row, True
    image = np.broadcast_to(
        np.arange(len(words), dtype=np.uint8)[:, None, None, None], (len(words), 2, 2, 3)
    )
    return {"image": image, "text": text, "text_mask": mask}


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(3, 50), min_size=1, max_size=4), min_size=8, max_size=8),
    st.integers(1, 3),
    st.integers(7, 24),
    st.integers(0, 5),
)
def test_each_place_has_the_image_whose_text_follows(words, images, length, seed):
    batch = batch_of(words)
    made = interleave(images, length, PLACE, tokenizer=Begins)(batch, np.random.default_rng(seed))
    flamingo.check(types.SimpleNamespace(image_token=PLACE), made)
    for i in range(len(words)):
        row = made["text"][i][made["text_mask"][i]].tolist()
        assert row[0] == 1 and not made["text"][i][~made["text_mask"][i]].any()
        chunks, at = [], 1
        while at < len(row):
            assert row[at] == PLACE
            end = row.index(2, at)
            chunks.append(row[at + 1 : end])
            at = end + 1
        shown = made["image"][i, : len(chunks), 0, 0, 0]
        assert [words[j] for j in shown] == chunks
        assert shown[-1] == i  # its own is the last
        assert len(set(shown.tolist())) == len(chunks) <= images
        supervised = made["text"][i][made["text_loss_mask"][i]].tolist()
        assert supervised == [token for chunk in chunks for token in [*chunk, 2]]


def test_processes_that_share_a_batch_make_the_same_rows():
    words = [[10 + i] * (1 + i % 3) for i in range(16)]
    f = interleave(3, 24, PLACE, tokenizer=Begins)
    whole = batch_of(words)
    together = f(whole, np.random.default_rng(1))
    for count in (2, 4):
        shares = [
            f({k: v[i * 16 // count : (i + 1) * 16 // count] for k, v in whole.items()}, rng)
            for i, rng in enumerate(np.random.default_rng(1) for _ in range(count))
        ]
        for name, rows in together.items():
            np.testing.assert_array_equal(np.concatenate([s[name] for s in shares]), rows)


def test_a_prompt_ends_with_an_image_token():
    lines = [np.array([1, 5, 2]), np.array([1, 6, 7, 2])]
    text, mask, _, kept = join(lines, 1, 10, PLACE, open_end=True)
    assert text[mask].tolist() == [1, PLACE, 5, 2, PLACE, 6, 7, 2, PLACE] and kept == 2
    text, mask, _, kept = join(lines, 1, 8, PLACE, open_end=True)
    assert text[mask].tolist() == [1, PLACE, 6, 7, 2, PLACE] and kept == 1
    text, mask, _, kept = join([], 1, 8, PLACE, open_end=True)
    assert text[mask].tolist() == [1, PLACE] and kept == 0


def test_a_tokenizer_without_a_begin_token():
    lines = [np.array([5, 2]), np.array([6, 7, 2])]
    text, mask, supervised, kept = join(lines, None, 9, PLACE)
    assert text[mask].tolist() == [PLACE, 5, 2, PLACE, 6, 7, 2] and kept == 2
    assert text[supervised].tolist() == [5, 2, 6, 7, 2]
    text, mask, _, kept = join(lines, None, 5, PLACE, open_end=True)
    assert text[mask].tolist() == [PLACE, 6, 7, 2, PLACE] and kept == 1


def test_what_does_not_fit_is_named():
    batch = batch_of([[3, 4, 5], [6], [7]])
    with pytest.raises(ValueError, match="A text of 5 tokens does not fit.*length 5"):
        interleave(1, 5, PLACE, tokenizer=Begins)(batch, np.random.default_rng(0))
    with pytest.raises(ValueError, match="4 images from blocks of 4 rows .* has 3 rows"):
        interleave(4, 20, PLACE, tokenizer=Begins)(batch, np.random.default_rng(0))
