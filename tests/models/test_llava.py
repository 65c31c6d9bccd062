"""LLaVA: what its tokens depend on, packed rows, prefixes, decoding, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import parameters
from writers import IMAGE, TEXT, cached_logits, images, initial, outputs_of

from mmjax.losses.captioning import captioning_loss
from mmjax.models import llava
from mmjax.models.efficientnet import lite_fields
from mmjax.models.language import LanguageModel

RNG = np.random.default_rng(0)
PLACE = 12  # the token of an image; an image has four
TEXT = {**TEXT, "length": 24, "decoder": {**TEXT["decoder"], "positions": "rope"}}
CONFIG = {
    "image": IMAGE,
    "projector": {"kind": "mlp"},
    "text": TEXT,
    "image_token": PLACE,
    "max_images": 2,
}
SYSTEM = llava.make_system({"model": CONFIG, "loss": {}})
MODEL = SYSTEM.model
APPLY = outputs_of(MODEL)
CONVERSATIONS = (  # question, answer; images are at any places of the questions
    ([1, PLACE, PLACE, PLACE, PLACE, 4], [5, 6, 2]),
    ([1, 7, PLACE, PLACE, PLACE, PLACE], [8, 2]),
    ([1, 9, 3], [10, 11, 2]),
    ([1, *[PLACE] * 4, 3, *[PLACE] * 4], [4, 2]),
)
COUNTS = (1, 1, 0, 2)
IMAGES = images(RNG, 4, 2)


def rows(length=24):
    """Each conversation in a row of its own."""
    text, mask, learned = (np.zeros((4, length), kind) for kind in (np.int32, bool, bool))
    for i, (question, answer) in enumerate(CONVERSATIONS):
        whole = [*question, *answer]
        text[i, : len(whole)], mask[i, : len(whole)] = whole, True
        learned[i, len(question) : len(whole)] = True
    valid = np.arange(2)[None] < np.asarray(COUNTS)[:, None]
    images = np.where(valid[..., None, None, None], IMAGES, 0)
    texts = {"text": text, "text_mask": mask, "text_loss_mask": learned}
    return {**texts, "image": images, "image_mask": valid}


def packed():
    """The first three of them in one row, the last one in another."""
    alone = rows()
    out = {k: np.zeros((2, *x.shape[1:]), x.dtype) for k, x in alone.items()}
    out["text_pack"] = np.zeros((2, 24), np.int32)
    for row, (members, first) in enumerate((((0, 1, 2), 0), ((3,), 0))):
        place, image = first, 0
        for number, i in enumerate(members):
            length = alone["text_mask"][i].sum()
            for name in ("text", "text_mask", "text_loss_mask"):
                out[name][row, place : place + length] = alone[name][i, :length]
            out["text_pack"][row, place:] = number
            for k in range(COUNTS[i]):
                out["image"][row, image], out["image_mask"][row, image] = IMAGES[i, k], True
                image += 1
            place += length
    return out


@functools.cache
def params():
    return initial(MODEL, rows())


@functools.cache
def logits():
    return APPLY(params(), rows())["text_logits"]


def test_each_image_is_read_at_its_place_and_texts_alone_as_by_the_language_model():
    batch = rows()

    def changed(row, place):
        image = batch["image"].copy()
        image[row, place] = 255 - image[row, place]
        difference = jnp.abs(APPLY(params(), {**batch, "image": image})["text_logits"] - logits())
        return [np.flatnonzero(d > 0)[:1].tolist() for d in np.asarray(difference.max(-1))]

    assert changed(0, 0) == [[1], [], [], []]
    assert changed(1, 0) == [[], [2], [], []]
    assert changed(3, 1) == [[], [], [], [6]]
    assert changed(2, 0) == [[]] * 4 and changed(1, 1) == [[]] * 4  # not there
    words = {k: batch[k][2:3] for k in ("text", "text_mask")}
    plain = outputs_of(LanguageModel(TEXT))({"text": params()["text"]}, words)["text_logits"]
    np.testing.assert_allclose(logits()[2, :6], plain[0, :6], atol=1e-6)


def test_packed_rows_have_the_loss_and_the_gradient_of_their_conversations_alone():
    def loss(params, batch):
        found = captioning_loss(MODEL.apply({"params": params}, batch)["text_logits"], batch)
        value, weight = found["captioning"]
        return (value * weight).sum() / weight.sum()

    grad = jax.jit(jax.value_and_grad(loss))
    (alone, want), (together, found) = grad(params(), rows()), grad(params(), packed())
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, want)
    # That they are apart matters.
    mixed = {k: v for k, v in packed().items() if k != "text_pack"}
    assert abs(float(grad(params(), mixed)[0]) - float(alone)) > 1e-3
    SYSTEM.check_batch(packed())


def test_decoding_with_the_cache_gives_the_same_logits():
    batch = {k: v[3:, :10] if k == "text" else v[3:] for k, v in rows().items() if "mask" not in k}
    want = APPLY(params(), batch)["text_logits"][:, 9:]
    np.testing.assert_allclose(cached_logits(MODEL, params(), batch, 10), want, atol=2e-5)


def test_a_missing_image_is_not_read_and_a_locked_tower_gets_no_gradient():
    batch = rows() | {"image_present": np.array([False, True, True, True])}
    other = {**batch, "image": batch["image"].copy()}
    other["image"][0] = 255 - other["image"][0]
    kept = batch["text_mask"] & (batch["text"] != PLACE)
    found = [np.asarray(APPLY(params(), x)["text_logits"])[kept] for x in (batch, other)]
    np.testing.assert_array_equal(*found)
    SYSTEM.check_batch(batch)
    gradient = jax.jit(jax.grad(lambda p: APPLY(p, rows())["text_logits"].sum()))(params())
    assert all(bool((g == 0).all()) for g in jax.tree.leaves(gradient["image"]))
    assert all(bool((g != 0).any()) for g in jax.tree.leaves(gradient["projector"]["out"]))


def test_a_prefix_is_read_in_both_directions_and_the_answer_from_left_to_right():
    model = llava.make_model({**CONFIG, "prefix": True})
    apply, batch = outputs_of(model), rows()

    def changed(row, place):
        text = batch["text"].copy()
        text[row, place] = 3 if text[row, place] != 3 else 4
        before, after = (apply(params(), {**batch, "text": x}) for x in (batch["text"], text))
        difference = np.abs(after["text_logits"] - before["text_logits"])[row].max(-1)
        return np.flatnonzero(difference[: batch["text_mask"][row].sum()] > 0).tolist()

    assert changed(2, 2) == list(range(6))  # the end of the question
    assert changed(2, 4) == [4, 5]  # in the answer


@pytest.mark.parametrize("kind", ["efficientnet", "linear", "class"])
def test_other_towers_and_projectors(kind):
    if kind == "efficientnet":
        stages = [{"channels": 8, "depth": 1, "kernel": 3, "stride": 2, "expand": 2}]
        sizes = {"stem": 8, "stages": stages, "head": 16, "image_size": (8, 8)}
        changes = {"image": {"kind": kind, **lite_fields("lite0"), **sizes}}
    elif kind == "linear":
        changes = {"projector": {"kind": "linear", "shuffle": 2, "use_bias": False}}
    else:
        tower = {"pool": "all", "class_token": True, "feature_layer": -1}
        changes = {"image": {**IMAGE, **tower}, "class_feature": True}
    model = llava.make_model(CONFIG | changes)
    assert model.image_length == {"efficientnet": 4, "linear": 1, "class": 5}[kind]
    batch = {"image": IMAGES}
    given = parameters(model, {**rows(), **batch})
    found = model.apply({"params": given}, batch)["image_tokens"]
    assert found.shape == (4, 2, model.image_length, 16)
    if kind == "linear":  # one product of the four tokens side by side
        tokens = MODEL.image_tower(parent=None).apply(
            {"params": given["image"]}, {"image": IMAGES[:, 0]}
        )["image_tokens"]
        want = np.asarray(tokens).reshape(4, -1) @ given["projector"]["out"]["kernel"]
        np.testing.assert_allclose(found[:, 0, 0], want, atol=1e-5)


def test_images_and_their_tokens_must_agree():
    batch = rows()
    SYSTEM.check_batch(batch)
    more, less = batch["text"].copy(), batch["text"].copy()
    more[2, 1], less[0, 1] = PLACE, 3
    hole = np.array([[1, 0], [1, 0], [0, 0], [0, 1]], bool)
    answer = batch["text"].copy()
    answer[0, 2], answer[0, 7] = 3, PLACE
    for changes, words in (
        ({"text": more}, "row 2 of the batch has 1 image tokens, and its 0 images need 4 each"),
        ({"text": less}, "row 0 of the batch has 3 image tokens, and its 1 images need 4 each"),
        ({"image_mask": hole}, "row 3 .* 8 image tokens, and its 1 images"),
        ({"text": answer}, "Row 0 of the batch has a token of an image among those to predict"),
    ):
        with pytest.raises(ValueError, match=words):
            SYSTEM.check_batch({**batch, **changes})
    for changes, words in (
        ({"image": {**IMAGE, "pool": "cls"}}, "config.model.image.pool is 'cls'"),
        ({"image": {**IMAGE, "kind": "resnet"}}, r"kind is 'resnet'; use one of \['eff"),
        ({"image": {**IMAGE, "feature_layer": 1}}, "feature_layer 1, which pool 'all' alone"),
        ({"projector": {"kind": "conv"}}, "kind of a projector is 'conv'; use one of linear, mlp"),
        ({"image_token": 13}, "image_token is 13 and the vocabulary has 13 tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            model = llava.make_model(CONFIG | changes)
            jax.eval_shape(lambda m=model: m.init(jax.random.key(0), rows()))
