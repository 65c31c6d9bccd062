"""Flamingo: which image a token sees, a language model that starts unchanged, and decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers import IMAGE, TEXT, cached_logits, images, initial, outputs_of

from mmjax.models import flamingo, language
from mmjax.variables import initial_params

RNG = np.random.default_rng(0)
PLACE = 12  # the image token
CONFIG = {
    "image": IMAGE,
    "resampler": {"latents": 2, "depth": 1, "heads": 2},
    "text": {**TEXT, "decoder": {**TEXT["decoder"], "cross_every": 2}},
    "image_token": PLACE,
    "max_images": 2,
}
SYSTEM = flamingo.make_system({"model": CONFIG, "loss": {}})
MODEL = SYSTEM.model
APPLY = outputs_of(MODEL)
# Two images at tokens 1 and 5; one at token 0; one at token 3.
TOKENS = np.array(
    [
        [1, PLACE, 4, 5, 6, PLACE, 7, 8, 9, 2],
        [PLACE, 4, 5, 6, 7, 8, 9, 10, 11, 2],
        [1, 4, 5, PLACE, 6, 7, 8, 9, 10, 2],
    ],
    np.int32,
)


def batch_of():
    return {
        "image": images(RNG, 3, 2),
        "image_mask": np.array([[True, True], [True, False], [True, False]]),
        "text": TOKENS,
        "text_mask": np.ones(TOKENS.shape, bool),
    }


def logits(params, batch):
    return APPLY(params, batch)["text_logits"]


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.sampled_from([3, 4, PLACE]), min_size=6, max_size=6), min_size=1, max_size=3
    ),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_media_mask_against_a_loop(rows, present):
    text = np.array(rows, np.int32)
    mask = np.tile(np.array(present), (len(rows), 1))
    want = np.zeros((len(rows), 6, 3), bool)
    for b, row in enumerate(rows):
        latest = -1
        for i, token in enumerate(row):
            latest += token == PLACE
            if 0 <= latest < 3:
                want[b, i, latest] = present[latest]
    np.testing.assert_array_equal(flamingo.media_mask(jnp.asarray(text), PLACE, mask), want)


def test_a_new_flamingo_is_its_language_model_exactly():
    batch = batch_of()
    model = flamingo.make_model(CONFIG)
    params = initial_params(model, SYSTEM.spec, seed=0)
    plain = language.make_model({"text": {**TEXT}})
    text = {**params["text"], "decoder": {**params["text"]["decoder"]}}
    text["decoder"]["stack"] = {"layers": text["decoder"]["stack"]["layers"]}
    want = plain.apply({"params": {"text": text}}, batch)["text_logits"]
    # Not compiled, since XLA would fuse the two differently.
    got = model.apply({"params": params}, batch)["text_logits"]
    np.testing.assert_array_equal(got, want)


def test_a_token_sees_the_latest_image_alone():
    batch = batch_of()
    params = initial(MODEL, batch)
    before = logits(params, batch)

    def changed(row, place):
        image = batch["image"].copy()
        image[row, place] = 255 - image[row, place]
        difference = jnp.abs(logits(params, {**batch, "image": image}) - before).max(-1)
        return [np.flatnonzero(d > 0).tolist() for d in np.asarray(difference)]

    # The gated layer is before the last layer: a later token may see an earlier one that saw the
    # image, so everything from the image's place on may change, and nothing before it.
    assert changed(0, 1) == [[5, 6, 7, 8, 9], [], []]
    assert changed(1, 0) == [[], list(range(10)), []]
    assert changed(2, 0) == [[], [], list(range(3, 10))]
    assert changed(1, 1) == [[], [], []]  # not there


def test_text_without_an_image_is_read_by_the_language_model_alone():
    batch = batch_of()
    params = initial(MODEL, batch)  # the gates are open
    alone = {k: batch[k] for k in ("text", "text_mask")}
    layers = {"layers": params["text"]["decoder"]["stack"]["layers"]}
    text = {**params["text"], "decoder": {**params["text"]["decoder"], "stack": layers}}
    plain = language.make_model({"text": TEXT})
    want = outputs_of(plain)({"text": text}, batch)["text_logits"]
    np.testing.assert_allclose(logits(params, alone), want, atol=1e-6)
    # So are the tokens before the first image.
    np.testing.assert_allclose(logits(params, batch)[2, :3], want[2, :3], atol=1e-6)
    assert not np.allclose(logits(params, batch)[2, 3], want[2, 3], atol=1e-3)


def test_images_alone_give_their_tokens():
    batch = batch_of()
    params = initial(MODEL, batch)
    several = APPLY(params, {"image": batch["image"]})["image_tokens"]
    one = APPLY(params, {"image": batch["image"][:, 1]})["image_tokens"]
    assert several.shape[:2] == batch["image"].shape[:2]
    np.testing.assert_allclose(several[:, 1], one, atol=1e-5)


def test_the_image_encoder_is_locked():
    batch = batch_of()
    params = initial(MODEL, batch)
    gradient = jax.jit(jax.grad(lambda p: logits(p, batch).sum()))(params)
    assert all(bool((g == 0).all()) for g in jax.tree.leaves(gradient["image"]))
    assert any(bool((g != 0).any()) for g in jax.tree.leaves(gradient["resampler"]))


def test_decoding_with_the_cache_gives_the_same_logits():
    batch = batch_of()
    params = initial(MODEL, batch)
    want = logits(params, batch)[:, 5:]
    np.testing.assert_allclose(cached_logits(MODEL, params, batch, 6), want, atol=2e-5)


def test_padding_is_no_place_for_an_image():
    batch = batch_of()
    params = initial(MODEL, batch)
    mask = np.tile(np.arange(10) > 2, (3, 1))  # padded on the left
    text = np.where(mask, np.roll(TOKENS, 3, axis=1), 0)
    want = logits(params, batch | {"text": text, "text_mask": mask})
    text = np.where(mask, text, PLACE)
    flamingo.check_places(PLACE, {**batch, "text": TOKENS, "text_mask": batch["text_mask"]})
    found = logits(params, batch | {"text": text, "text_mask": mask})
    np.testing.assert_array_equal(found[:, 3:], want[:, 3:])


def test_it_writes_and_chooses_where_each_image_has_its_place_alone():
    batch = batch_of()
    batch |= {name: batch[name][:, :7] for name in ("text", "text_mask")}
    params = initial(MODEL, batch)
    given = {"params": params}
    write = SYSTEM.generate(Letters(), {"max_new_tokens": 3})
    choose = SYSTEM.score(Letters(), ["a", "bc"])
    assert len(write(given, batch).texts) == 3 and choose(given, batch).shape == (3, 2)
    absent = batch | {"image_present": np.array([True, False, True])}
    other = absent | {"image": absent["image"].copy()}
    other["image"][1] = 255 - other["image"][1]
    np.testing.assert_array_equal(choose(given, absent), choose(given, other))
    wrong = (
        (batch | {"image": batch["image"][:, :1]} | {"image_mask": None}, "2 image tokens.* 1 im"),
        ({k: batch[k] for k in ("text", "text_mask")}, "2 image tokens, and its example 0 images"),
        (batch | {"text": np.full((3, 7), 4, np.int32)}, "0 image tokens, and its example 2 im"),
    )
    for bad, message in wrong:
        bad = {k: v for k, v in bad.items() if v is not None}
        for function in (write, choose):
            with pytest.raises(ValueError, match=message):
                function(given, bad)


def test_its_image_token_is_not_written():
    batch = batch_of()
    batch |= {name: batch[name][:, :6] for name in ("text", "text_mask")}
    params = initial(MODEL, batch)
    # A model that would say nothing else.
    table = params["text"]["embed"]["embedding"]
    params["text"]["embed"]["embedding"] = table.at[PLACE].set(100 * jnp.abs(table[PLACE]))
    said = []
    words = Letters(said)
    given = {"params": params}
    SYSTEM.generate(words, {"max_new_tokens": 4})(given, batch)
    SYSTEM.generate(words, {"max_new_tokens": 4, "beams": 2})(given, batch)
    assert said and PLACE not in np.concatenate(said)


class Letters:
    """A tokenizer: a token a letter, from 3 on. What it decodes is kept in `said`."""

    bos_id, eos_id, pad_id = 1, 2, 0
    end_ids = (2,)

    def __init__(self, said=None):
        self.said = [] if said is None else said

    def prompts(self, texts):
        return [(1, *(ord(letter) - ord("a") + 3 for letter in text)) for text in texts]

    def decode(self, ids):
        self.said.append(np.asarray(ids))
        return ""


def test_images_and_their_places_must_agree():
    batch = batch_of()
    SYSTEM.check_batch(batch)
    with pytest.raises(ValueError, match="row 1 of the batch has 1 image tokens.* 2 images"):
        SYSTEM.check_batch(batch | {"image_mask": np.ones((3, 2), bool)})
    none = batch["text"].copy()
    none[2, 3] = 4
    with pytest.raises(ValueError, match="row 2 of the batch has 0 image tokens.* 1 images"):
        SYSTEM.check_batch(batch | {"text": none})
    hole = {"image_mask": np.array([[True, True], [True, False], [False, True]])}
    with pytest.raises(ValueError, match=r"image_mask of row 2 .* is \[False, True\]"):
        SYSTEM.check_batch(batch | hole)
    padded = {"text_mask": np.arange(10)[None] < np.array([[10], [10], [3]])}
    with pytest.raises(ValueError, match="row 2 of the batch has 0 image tokens.* 1 images"):
        SYSTEM.check_batch(batch | padded)
    with pytest.raises(ValueError, match=r"takes images \[B, M, H, W, 3\] with a text"):
        MODEL.init(jax.random.key(0), batch | {"image": batch["image"][:, 0]})
    with pytest.raises(ValueError, match="No token of the batch is supervised"):
        SYSTEM.check_batch(batch | {"text_mask": np.zeros((3, 10), bool)})
