"""ViLT's objectives: losses beside transformers', masked words, images that do not match."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity import GOLDEN, close, expected, outputs

from mmjax.losses.optimal_transport import transport_distance
from mmjax.models.systems import make_system
from mmjax.models.vilt import inner_tokens
from mmjax.pretrained import load
from mmjax.system import Context, average
from mmjax.variables import initial_params

MODEL = {
    "name": "vilt",
    "width": 16,
    "depth": 1,
    "heads": 2,
    "mlp_dim": 24,
    "text": {"vocab_size": 40, "length": 8},
    "image": {"image_size": (12, 12), "patch_size": 4, "padded_size": (16, 16)},
    "words": True,
    "matching": 2,
}
LOSS = {"mask_id": 3, "mask_ratio": 0.4}
ROWS = 64


def system(loss=LOSS, batch_size=ROWS, weights=(), **model):
    config = {"model": {**MODEL, **model}, "loss": loss, "batch_size": batch_size}
    return make_system(config | {"loss_weights": dict.fromkeys(weights, 1.0)})


def texts(rows, seed=0):
    """Random texts of 3 to 8 tokens, of which all but the first and the last belong to words."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(3, 9, rows)[:, None]
    at = np.arange(8)[None]
    word = np.where((at > 0) & (at < ends - 1), at // 2, -1)
    return {
        "text": np.where(at < ends, rng.integers(4, 40, (rows, 8)), 0).astype(np.int32),
        "text_mask": at < ends,
        "text_word": word.astype(np.int32),
    }


@functools.cache
def batch(rows=ROWS):
    rng = np.random.default_rng(1)
    return {
        **texts(rows),
        "image": rng.integers(0, 256, (rows, 16, 16, 3), np.uint8),
        "image_size": 4 * rng.integers(1, 5, (rows, 2), np.int32),
    }


def context(rows=ROWS, seed=0):
    keys = jax.random.split(jax.random.key(seed), rows)
    return Context(jnp.zeros((), jnp.int32), keys, None, {})


@functools.cache
def corrupted():
    return jax.tree.map(np.asarray, jax.jit(system().corrupt)(batch(), context()))


@functools.cache
def toy_model():
    """The system, its parameters with none at its initial zero, and the jitted model."""
    made = system()
    params = initial_params(made.model, made.spec, seed=0)
    params = jax.tree.map(
        lambda x: x + 0.05 * np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape), params
    )
    return made, params, jax.jit(lambda p, b: made.model.apply({"params": p}, b))


@functools.cache
def loss():
    return jax.jit(lambda outputs, batch: system().loss(outputs, batch, None))


# ---- losses


def test_the_loss_of_answers_is_that_of_transformers():
    loaded, want = load(GOLDEN / "vilt_vqa"), expected("vilt_vqa")
    made = make_system({"model": loaded.config, "loss": {"answers": "sigmoid"}, "batch_size": 4})
    names = ("text", "text_mask", "image", "image_size")
    given = {name: want[name] for name in names} | {"label_probs": want["labels"]}
    found = made.loss(outputs(loaded, given), given, None)
    np.testing.assert_allclose(average(found["classification"])[0], want["loss"][0], rtol=1e-5)


def test_the_loss_of_masked_words_is_that_of_transformers():
    loaded, want = load(GOLDEN / "vilt_words"), expected("vilt_words")
    made = make_system({"model": loaded.config, "loss": {"mask_id": 4}, "batch_size": 4})
    names = ("text_mask", "image", "image_size")
    given = {name: want[name] for name in names}
    given |= {"text": want["target"], "text_corrupted": want["text"], "text_masked": want["masked"]}
    found = made.loss(outputs(loaded, given), given, None)
    np.testing.assert_allclose(average(found["masked_text"])[0], want["loss"][0], rtol=1e-5)


def test_the_loss_of_the_classes_of_tokens_is_that_of_transformers():
    loaded, want = load(GOLDEN / "vilt_tokens"), expected("vilt_tokens")
    made = make_system({"model": loaded.config, "loss": {}, "batch_size": 4})
    given = {name: want[name] for name in ("text", "text_mask", "image", "image_size")}
    given["text_label"] = want["labels"]
    assert (given["text_label"] == -100).any()  # of padding
    logits = outputs(loaded, given)["token_logits"]
    found = made.loss({"token_logits": logits}, given, None)
    assert sorted(found) == ["token_accuracy", "token_classification"]
    np.testing.assert_allclose(
        average(found["token_classification"])[0], want["loss"][0], rtol=1e-5
    )
    counted = given["text_label"] >= 0
    right = (np.asarray(logits).argmax(-1) == given["text_label"])[counted].mean()
    np.testing.assert_allclose(average(found["token_accuracy"])[0], right, rtol=1e-6)
    made.check_batch(given)
    with pytest.raises(ValueError, match="has the text_label 5 and the head 5 classes"):
        made.check_batch({**given, "text_label": given["text_label"] + 1})
    alone = {**given, "text_label": np.full_like(given["text_label"], -1)}
    weighted = {"model": loaded.config, "loss": {}, "batch_size": 4}
    weighted = make_system(weighted | {"loss_weights": {"token_classification": 1.0}})
    with pytest.raises(ValueError, match="token_classification one with a text_label"):
        weighted.check_batch(alone)
    # Of a token without a class neither the loss nor its gradient depends on the logits.
    slope = jax.grad(
        lambda x: average(made.loss({"token_logits": x}, given, None)["token_classification"])[0]
    )
    slope = np.asarray(slope(logits))
    assert (slope[~counted] == 0).all() and (slope[counted] != 0).any(-1).all()


def test_pretraining_terms():
    made, params, apply = toy_model()
    given = corrupted()
    found = apply(params, given)
    terms = loss()(found, given)
    assert sorted(terms) == ["alignment", "masked_text", "matching", "matching_accuracy"]

    match, logits = given["match_label"], np.asarray(found["match_logits"], np.float64)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(
        terms["matching"].value, -logp[np.arange(ROWS), match.astype(int)], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(terms["matching_accuracy"].value, logits.argmax(1) == match)

    words = given["text_word"] >= 0  # here, all but the first and the last token
    np.testing.assert_array_equal(inner_tokens(jnp.asarray(given["text_mask"])), words)
    patches = found["match_image_tokens_mask"][:, 1:]
    distance = jax.jit(transport_distance)(
        found["match_text_tokens"], found["match_image_tokens"][:, 1:], words, patches
    )
    want = np.where(match, distance, -distance)
    np.testing.assert_allclose(terms["alignment"].value, want, rtol=1e-5)
    assert terms["alignment"].weight.all()
    without = system({**LOSS, "alignment": False}).loss(found, given, None)
    assert "alignment" not in without


def test_pretraining_learns_what_an_image_shows():
    """Four plain images, each with its own word: the masked word, and whether both match."""
    made, params, _ = toy_model()
    kind = np.random.default_rng(0).integers(0, 4, ROWS)
    word = np.broadcast_to(np.asarray([-1, 0, 0, 1, 1, 2, 2, -1], np.int32), (ROWS, 8))
    given = {
        "text": np.where(word >= 0, 10 + kind[:, None], 4).astype(np.int32),
        "text_mask": np.ones((ROWS, 8), bool),
        "text_word": word,
        "image": np.tile((80 * kind).astype(np.uint8)[:, None, None, None], (1, 16, 16, 3)),
    }
    weights, optimizer = {"masked_text": 1.0, "matching": 1.0, "alignment": 0.1}, optax.adam(3e-3)

    @jax.jit
    def update(params, state, given, seed):
        keys = jax.vmap(jax.random.fold_in, (0, None))(context().rng, seed)
        corrupted = made.corrupt(given, context()._replace(rng=keys))

        def total(params):
            found = made.model.apply({"params": params}, corrupted)
            terms = made.loss(found, corrupted, None)
            values = {name: average(term)[0] for name, term in terms.items()}
            return sum(weights[name] * values[name] for name in weights), values

        grads, values = jax.grad(total, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # its step count is an integer
            changes, state = optimizer.update(grads, state)
        return optax.apply_updates(params, changes), state, values

    state = optimizer.init(params)
    for seed in range(80):
        params, state, values = update(params, state, given, np.int32(seed))
    assert values["masked_text"] < 0.5  # from 3.7
    assert values["matching_accuracy"] > 0.9
    assert values["alignment"] < 0  # words are nearer to the image that they belong to


def test_both_objectives_in_one_pass_are_those_of_two():
    _, params, apply = toy_model()
    given = corrupted()
    both = apply(params, given)
    plain = {k: given[k] for k in ("text", "text_mask", "image", "image_size")}
    masked = apply(params, {**plain, "text": given["text_corrupted"]})
    close(both["text_prediction"], masked["text_prediction"])
    close(both["fused_features"], masked["fused_features"])
    other = apply(params, {**plain, **{k[6:]: given[k] for k in given if k[:11] == "match_image"}})
    close(both["match_logits"], other["match_logits"])
    close(both["match_text_tokens"], other["text_tokens"])
    np.testing.assert_array_equal(both["match_image_tokens_mask"], other["image_tokens_mask"])


# ---- what a step draws


def test_words_are_masked_whole():
    given = corrupted()
    masked, word = given["text_masked"], given["text_word"]
    for row, number in zip(masked, word):
        assert not row[number < 0].any()
        for n in set(number[number >= 0]):
            assert len(set(row[number == n])) == 1
    words = sum(len(set(row[row >= 0])) for row in word)
    chosen = sum(len(set(number[row])) for row, number in zip(masked, word))
    assert abs(chosen / words - 0.4) < 4 * (0.24 / words) ** 0.5
    changed = given["text_corrupted"] != given["text"]
    assert not changed[~masked].any() and changed[masked].mean() > 0.8
    assert (given["text_corrupted"][masked] == 3).mean() > 0.6


def test_half_of_the_images_are_those_of_the_example_before():
    given = corrupted()
    match = given["match_label"]
    assert 0.25 < match.mean() < 0.75
    for name in ("image", "image_size"):
        other = np.roll(given[name], 1, axis=0)
        where = match.reshape(-1, *(1,) * (other.ndim - 1))
        np.testing.assert_array_equal(given[f"match_{name}"], np.where(where, given[name], other))
    again = jax.jit(system().corrupt)(batch(), context(seed=1))
    assert (np.asarray(again["match_label"]) != match).any()


def test_an_equal_text_or_a_missing_image_is_no_negative():
    same = {k: np.repeat(x[::2], 2, axis=0) if k[:4] == "text" else x for k, x in batch().items()}
    match = np.asarray(jax.jit(system().corrupt)(same, context())["match_label"])
    assert match[1::2].all() and not match[::2].all()
    one = {k: np.repeat(x[:1], ROWS, axis=0) if k[:4] == "text" else x for k, x in batch().items()}
    assert np.asarray(jax.jit(system().corrupt)(one, context())["match_label"]).all()
    present = np.arange(ROWS) % 4 != 1
    some = {**batch(), "image_present": present, "text_present": present[::-1]}
    made, params, apply = toy_model()
    given = jax.jit(made.corrupt)(some, context())
    match = np.asarray(given["match_label"])
    assert match[~present].all() and match[np.roll(~present, 1)].all() and not match.all()
    assert not np.asarray(given["text_masked"])[~present[::-1]].any()
    terms = loss()(apply(params, given), given)
    for name in ("matching", "alignment"):
        np.testing.assert_array_equal(terms[name].weight, present & present[::-1])
        assert np.isfinite(terms[name].value).all()


def test_a_batch_in_which_nothing_was_masked_counts_nothing():
    made, params, apply = toy_model()
    given = {**corrupted(), "text_masked": np.zeros((ROWS, 8), bool)}
    value, has = average(loss()(apply(params, given), given)["masked_text"])
    assert value == 0 and not has


def test_an_image_alone_gives_the_tokens_of_the_image():
    _, params, apply = toy_model()
    alone = apply(params, {k: batch()[k] for k in ("image", "image_size")})
    assert sorted(alone) == ["image_tokens", "image_tokens_mask"]
    unseen = {k: batch()[k] for k in ("text", "image", "image_size")}
    unseen["text_mask"] = np.zeros((ROWS, 8), bool)
    seen = np.asarray(alone["image_tokens_mask"])
    close(alone["image_tokens"][seen], apply(params, unseen)["image_tokens"][seen])


def test_training_keeps_some_of_the_patches():
    made = system(image={**MODEL["image"], "max_patches": 5})
    params = initial_params(made.model, made.spec, seed=0)
    given = {k: batch()[k] for k in ("text", "text_mask", "image", "image_size")}

    @functools.partial(jax.jit, static_argnums=0)
    def run(train):
        rngs = {"dropout": jax.random.key(0)}
        return made.model.apply({"params": params}, given, train=train, rngs=rngs)

    valid = (given["image_size"] // 4).prod(1)
    kept, whole = (np.asarray(run(train)["image_tokens_mask"]) for train in (True, False))
    assert kept.shape[1] == 6 and whole.shape[1] == 17
    np.testing.assert_array_equal(kept.sum(1), 1 + np.minimum(valid, 5))
    np.testing.assert_array_equal(whole.sum(1), 1 + valid)


def test_the_second_image_may_be_missing():
    loaded, want = load(GOLDEN / "vilt_nlvr2"), expected("vilt_nlvr2")
    given = {k: want[k] for k in ("text", "text_mask", "image", "image_size")}
    shown = np.asarray([[1, 1], [1, 0], [0, 1], [1, 1]], bool)
    found = outputs(loaded, {**given, "image_mask": shown})["logits"]
    close(found[[0, 3]], want["logits"][[0, 3]])
    noise = np.where(shown[..., None, None, None], given["image"], 255 - given["image"])
    again = outputs(loaded, {**given, "image": noise, "image_mask": shown})["logits"]
    np.testing.assert_array_equal(found, again)
    assert np.abs(found - want["logits"])[1:3].max() > 1e-3


# ---- bad input


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"classify": "answers"}, "classify is 'answers'; use one of question, images, tokens"),
        ({"matching": 3}, "matching is 3; use 0, 1 or 2"),
        ({"pooler": False}, "need its pooler: set config.model.pooler"),
        ({"images": 2}, r"modality_types is 2, and text and 2 image\(s\) need 3"),
        ({"images": 2, "modality_types": 3}, "2 images has no other head than classify='images'"),
        ({"image": {"size": 3}}, "config.model.image.size is not a setting of PaddedPatches"),
        ({"image": {**MODEL["image"], "max_patches": 0}}, "max_patches is 0: use a number of pat"),
        ({"text": {"vocab": 3}}, "config.model.text.vocab is not a setting of BertEmbed"),
    ],
)
def test_inconsistent_settings_of_the_model_are_refused(model, words):
    with pytest.raises(ValueError, match=words):
        system(**model)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({}, "mask_id is None: set it to the id of the tokenizer's mask token, 0 to 39"),
        ({"mask_id": 40}, "mask_id is 40: set it"),
        ({**LOSS, "mask_ratio": 0.0}, "mask_ratio is 0.0: it is above 0 and below 1"),
        ({**LOSS, "answers": "soft"}, "answers is 'soft'; use 'softmax' or 'sigmoid'"),
    ],
)
def test_wrong_settings_of_the_loss_are_refused(loss, words):
    with pytest.raises(ValueError, match=words):
        system(loss)


def test_batches_that_cannot_be_learned_from_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="batch of one example has no image that does not match"):
        system(batch_size=1)
    made = system(num_classes=3, weights=["masked_text"])
    given = {**batch(), "label": np.zeros(ROWS, np.int32)}
    made.check_batch(given)
    with pytest.raises(ValueError, match="the label 3 and the head 3 classes"):
        made.check_batch({**given, "label": np.full(ROWS, 3, np.int32)})
    nothing = {**given, "text_word": np.full((ROWS, 8), -1, np.int32)}
    with pytest.raises(ValueError, match="No word of the batch can be masked: text_word is -1"):
        made.check_batch(nothing)
    with pytest.raises(ValueError, match=r"image_size of \[16, 20\] in an array of \[16, 16\]"):
        made.check_batch({**given, "image_size": np.full((ROWS, 2), [16, 20], np.int32)})

    absent = {
        f"{name}_present": np.arange(ROWS) % 2 == i for i, name in enumerate(["image", "text"])
    }
    gone = {"text_present": np.zeros(ROWS, bool)}
    for weights, rows in (
        (["matching", "alignment"], absent),
        (["masked_text"], gone),
        (["matching", "masked_text"], gone),
    ):
        check = system(weights=weights).check_batch
        check(given)
        with pytest.raises(ValueError, match="No example of the batch has a loss in config.loss_w"):
            check({**given, **rows})
    system(weights=["matching"]).check_batch(nothing)
    system(weights=["matching", "masked_text"]).check_batch({**given, **absent})

    @dataclasses.dataclass
    class Source:
        name: str = "questions"
        class_names: tuple = ("no", "yes", "red", "a cat")

    with pytest.raises(ValueError, match="4 classes and the head 3, so that 'a cat' would have no"):
        made.check_source(Source())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": None, "image": None}, r"has \['image_size', 'text_mask', 'text_word'\]: a ViLT"),
        (
            {"image": np.zeros((4, 2, 16, 16, 3), np.uint8)},
            r"\[4, 2, 16, .*images is 1",
        ),
        ({"image": np.zeros((4, 16, 18, 3), np.uint8)}, "16x18 is not a multiple of patch_size 4"),
        ({"text": np.zeros((4, 9), np.int32), "text_mask": None}, "9 tokens is longer than .* 8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, words):
    made, params, _ = toy_model()
    given = {k: x[:4] for k, x in batch().items()} | change
    with pytest.raises(ValueError, match=words):
        made.model.apply({"params": params}, {k: x for k, x in given.items() if x is not None})
