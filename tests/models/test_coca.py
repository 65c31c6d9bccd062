"""CoCa: what each output depends on, decoding with the cache, and its two losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from writers import IMAGE, TEXT, cached_logits, images, initial, outputs_of, texts

from mmjax.losses.captioning import captioning_loss
from mmjax.losses.contrastive import contrastive_loss
from mmjax.models import coca
from mmjax.system import average

RNG = np.random.default_rng(0)
CONFIG = {"embed_dim": 8, "image": IMAGE, "text": TEXT, "caption_queries": 3}
MODEL = coca.make_model(CONFIG)
APPLY = outputs_of(MODEL)


def system_of(**loss):
    return coca.make_system({"model": CONFIG, "loss": loss, "batch_size": 3})


def batch_of(rows=3):
    text, mask = texts(RNG, rows, 10)
    return {"image": images(RNG, rows), "text": text, "text_mask": mask}


def apply(params, batch):
    return APPLY(params, batch)


def test_updates_keep_the_logit_scale_below_100():
    assert system_of().limits == {"logit_scale": pytest.approx(np.log(100))}


def test_the_text_embedding_knows_the_text_and_not_the_image():
    batch = batch_of()
    params = initial(MODEL, batch)
    both = apply(params, batch)
    np.testing.assert_allclose(jnp.linalg.norm(both["text_embed"], axis=-1), 1, atol=1e-5)
    alone = apply(params, {k: batch[k] for k in ("text", "text_mask")})
    np.testing.assert_array_equal(alone["text_embed"], both["text_embed"])
    assert "text_logits" not in alone
    image = apply(params, {"image": batch["image"]})
    np.testing.assert_allclose(image["image_embed"], both["image_embed"], atol=1e-6)
    other = apply(params, {**batch, "image": 255 - batch["image"]})
    np.testing.assert_array_equal(other["text_embed"], both["text_embed"])
    assert float(jnp.abs(other["text_logits"] - both["text_logits"]).max()) > 1e-4


def test_padding_changes_nothing():
    batch = batch_of()
    params = initial(MODEL, batch)
    before = apply(params, batch)
    text = np.where(batch["text_mask"], batch["text"], 11).astype(np.int32)
    after = apply(params, {**batch, "text": text})
    np.testing.assert_array_equal(after["text_embed"], before["text_embed"])
    kept = batch["text_mask"]
    np.testing.assert_array_equal(after["text_logits"][kept], before["text_logits"][kept])


def test_a_token_is_not_told_by_later_ones():
    batch = batch_of() | {"text_mask": np.ones((3, 10), bool)}
    params = initial(MODEL, batch)
    before = apply(params, batch)["text_logits"]
    text = batch["text"].copy()
    text[:, 7] = (text[:, 7] + 1) % 13
    after = apply(params, {**batch, "text": text})["text_logits"]
    np.testing.assert_array_equal(after[:, :7], before[:, :7])
    assert not np.allclose(after[:, 7], before[:, 7])


def test_an_absent_image_tells_the_text_nothing():
    batch = batch_of() | {"image_present": np.array([True, False, True])}
    params = initial(MODEL, batch)

    start = functools.partial(MODEL.apply, cache_length=5, mutable=["cache"])
    start = jax.jit(start)

    def both(batch):
        read = dict(batch, text=batch["text"][:, :4], text_mask=batch["text_mask"][:, :4])
        made = start({"params": params}, read)
        return apply(params, batch)["text_logits"], made[0]["next_logits"]

    changed = {**batch, "image": 255 - batch["image"]}
    for before, after in zip(both(batch), both(changed), strict=True):
        np.testing.assert_array_equal(after[1], before[1])
        assert not np.allclose(after[0], before[0])


def test_a_batch_without_a_pair_is_refused():
    batch = batch_of()
    coca.check_batch(batch | {"image_present": np.array([True, False, False])})
    absent = {"image_present": np.array([True, False, False]), "text_present": np.arange(3) > 0}
    with pytest.raises(ValueError, match="has both its image and its text"):
        coca.check_batch(batch | absent)
    with pytest.raises(ValueError, match="No token of the batch is supervised"):
        coca.check_batch(batch | {"text_mask": np.zeros((3, 10), bool)})


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_decoding_with_the_cache_gives_the_same_logits(positions):
    text = {**TEXT, "decoder": {**TEXT["decoder"], "positions": positions}}
    model = coca.make_model({**CONFIG, "text": text})
    batch = batch_of() | {"text_mask": np.ones((3, 10), bool)}
    params = initial(model, batch)
    want = outputs_of(model)(params, batch)["text_logits"][:, 2:]
    np.testing.assert_allclose(cached_logits(model, params, batch, 3), want, atol=2e-5)


def test_the_loss_is_both_losses():
    batch = batch_of()
    outputs = apply(initial(MODEL, batch), batch)
    terms = system_of(caption_smoothing=0.1).loss(outputs, batch, None)
    pair, _ = contrastive_loss(
        outputs["image_embed"], outputs["text_embed"], outputs["logit_scale"]
    )
    words = captioning_loss(outputs["text_logits"], batch, 0.1)["captioning"]
    np.testing.assert_allclose(terms["contrastive"], pair, rtol=1e-6)
    np.testing.assert_allclose(terms["captioning"].value, words.value, rtol=1e-6)
    means = toy.means(system_of(caption_smoothing=0.1).loss, outputs, batch)
    np.testing.assert_allclose(means["contrastive"], pair.mean(), rtol=1e-6)
    np.testing.assert_allclose(means["captioning"], average(words)[0], rtol=1e-6)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="unimodal_depth is 2 of 2 layers"):
        coca.make_model({**CONFIG, "unimodal_depth": 2})
    with pytest.raises(ValueError, match=r"config.loss.label_smothing is not.*label_smoothing"):
        system_of(label_smothing=0.1)
    assert set(system_of(mask_duplicates=True).spec) >= {"image", "text", "example_id"}
