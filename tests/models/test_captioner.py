"""The captioner: what each token depends on, decoding with the cache, and learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from writers import IMAGE, TEXT, cached_logits, images, initial, outputs_of, texts

from mmjax.layers.sown import sown_weights
from mmjax.models import captioner

RNG = np.random.default_rng(0)
MODEL = captioner.make_model({"image": IMAGE, "text": TEXT})
APPLY = outputs_of(MODEL)


def batch_of(rows=3):
    text, mask = texts(RNG, rows, 10)
    return {"image": images(RNG, rows), "text": text, "text_mask": mask}


def logits(params, batch):
    return APPLY(params, batch)["text_logits"]


def test_a_token_depends_on_the_image_and_on_no_later_token():
    batch = batch_of()
    params = initial(MODEL, batch)
    before = logits(params, batch)
    assert before.shape == (3, 10, 13)
    later = {**batch, "text": batch["text"].copy(), "text_mask": np.ones((3, 10), bool)}
    before_full = logits(params, later)
    later["text"] = later["text"].copy()  # jax may still be reading the old one
    later["text"][:, 6] = (later["text"][:, 6] + 1) % 13
    after = logits(params, later)
    np.testing.assert_array_equal(after[:, :6], before_full[:, :6])
    assert not np.allclose(after[:, 6], before_full[:, 6])
    other = logits(params, {**batch, "image": 255 - batch["image"]})
    assert float(jnp.abs(other - before).max()) > 1e-3


def test_an_image_alone_gives_its_tokens_and_its_attention():
    batch = batch_of()
    params = initial(MODEL, batch)
    outputs, sown = MODEL.apply(
        {"params": params}, {"image": batch["image"]}, mutable=["intermediates"]
    )
    patches = (IMAGE["image_size"][0] // IMAGE["patch_size"]) ** 2
    assert outputs["image_tokens"].shape == (3, patches, IMAGE["width"])
    weights = sown_weights(sown["intermediates"])
    assert weights.shape == (IMAGE["depth"], 3, IMAGE["heads"], patches, patches)


def test_an_absent_image_changes_nothing_and_gets_no_gradient():
    batch = batch_of() | {"image_present": np.array([True, False, True])}
    params = initial(MODEL, batch)
    changed = {**batch, "image": batch["image"].copy()}
    changed["image"][1] = 255 - changed["image"][1]
    np.testing.assert_array_equal(logits(params, batch), logits(params, changed))

    def row(params, i):
        return logits(params, batch)[i].sum()

    for i, absent in ((1, True), (0, False)):
        gradient = jax.jit(jax.grad(row))(params, i)["image"]
        assert all(bool((g == 0).all()) for g in jax.tree.leaves(gradient)) is absent


@pytest.mark.parametrize("prompt", [1, 4])
def test_decoding_with_the_cache_gives_the_same_logits(prompt):
    batch = batch_of() | {"text_mask": np.ones((3, 10), bool)}
    params = initial(MODEL, batch)
    want = logits(params, batch)[:, prompt - 1 :]
    np.testing.assert_allclose(cached_logits(MODEL, params, batch, prompt), want, atol=2e-5)


def test_it_learns_captions_that_only_the_image_can_tell():
    text = np.array([[1, 5, 2, 0], [1, 7, 2, 0], [1, 9, 2, 0], [1, 11, 2, 0]], np.int32)
    batch = {"image": images(RNG, 4), "text": text, "text_mask": text > 0}
    loss = captioner.make_system({"model": {"image": IMAGE, "text": TEXT}, "loss": {}}).loss
    params = initial(MODEL, batch)
    optimizer = optax.chain(optax.trace(0.9), optax.scale(-0.1))

    @jax.jit
    def step(params, state):
        def f(p):
            outputs = MODEL.apply({"params": p}, batch, train=True)
            return toy.means(loss, outputs, batch)["captioning"]

        value, gradient = jax.value_and_grad(f)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for _ in range(60):
        params, state, value = step(params, state)
    assert value < 0.1
    # Given the wrong images, the first word is wrong: it is read off the image.
    shuffled = {**batch, "image": batch["image"][::-1]}
    guess = logits(params, shuffled)[:, 0].argmax(-1)
    np.testing.assert_array_equal(guess, text[::-1, 1])


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="needs an image and the batch has none"):
        MODEL.init(jax.random.key(0), {"text": np.ones((1, 4), np.int32)})
    with pytest.raises(ValueError, match=r"config.model.image.pool is 'cls'.*remove it"):
        captioner.make_model({"image": {**IMAGE, "pool": "cls"}, "text": TEXT})
    with pytest.raises(ValueError, match="Did you mean 'depth'"):
        wrong = {**TEXT, "decoder": {**TEXT["decoder"], "depht": 3}}
        model = captioner.make_model({"image": IMAGE, "text": wrong})
        model.init(jax.random.key(0), batch_of())
