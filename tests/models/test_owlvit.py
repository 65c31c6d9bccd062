"""OWL-ViT: initial boxes and scores, queries in each form, batches that are refused."""

import drawn
import jax
import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax.layers.detection import grid_bias
from mmjax.models import owlvit
from mmjax.models.systems import make_system
from mmjax.variables import abstract_variables, initial_params


@pytest.fixture(scope="module")
def system():
    config = toy.shrink(configs.load("configs/owlvit_boards.py", ()))
    return make_system(config), toy.batch(config)


@pytest.fixture(scope="module")
def params(system):
    return drawn.drawn(abstract_variables(system[0].model, system[0].spec)["params"])


@pytest.fixture(scope="module")
def whole(system, params):
    return jax.jit(system[0].model.apply)({"params": params}, system[1])


def test_embedded_queries_give_what_texts_give(system, params, whole):
    model, batch = system[0].model, system[1]
    mask = batch["text_mask"].any(-1)
    given = {"image": batch["image"], "query_embed": whole["text_embed"], "query_mask": mask}
    found = jax.jit(model.apply)({"params": params}, given)
    for name in ("query_logits", "pred_boxes", "objectness_logits"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-4, atol=1e-5)
    padding = np.asarray(whole["query_logits"])[~np.broadcast_to(mask[:, None], (8, 4, 3))]
    assert len(padding) and (padding == np.finfo(np.float32).min).all()


def test_queries_do_not_depend_on_each_other_or_on_padding(system, params, whole):
    batch = dict(system[1])
    batch["text"] = batch["text"][:, ::-1].copy()
    batch["text_mask"] = batch["text_mask"][:, ::-1].copy()
    found = jax.jit(system[0].model.apply)({"params": params}, batch)
    want = np.asarray(whole["query_logits"])[..., ::-1]
    np.testing.assert_allclose(found["query_logits"], want, rtol=1e-4, atol=1e-5)


def test_words_of_the_queries_are_compared_with_the_regions_too():
    config = toy.shrink(configs.load("configs/glip_boards.py", ()))
    made, batch = make_system(config), toy.batch(config)
    params = drawn.drawn(abstract_variables(made.model, made.spec)["params"])
    apply = jax.jit(made.model.apply)
    found = apply({"params": params}, batch)
    words, mask = np.asarray(found["word_logits"]), batch["text_mask"]
    assert words.shape == (*found["query_logits"].shape, mask.shape[2])
    assert (words[np.broadcast_to(~mask.any(-1)[:, None], words.shape[:3])] < -1e30).all()
    # A query and its words do not depend on the other queries.
    turned = {k: batch[k][:, ::-1].copy() for k in ("text", "text_mask")}
    again = apply({"params": params}, {**batch, **turned})
    np.testing.assert_allclose(again["word_logits"], words[:, :, ::-1], rtol=1e-4, atol=1e-5)
    terms = made.loss(found, batch, None)
    assert np.isfinite(terms["region_words"]).all() and "focal" in terms
    # The first and the last token of a text are no words.
    changed = {**found, "word_logits": found["word_logits"].at[..., 0].add(1)}
    same = made.loss(changed, batch, None)["region_words"]
    np.testing.assert_array_equal(same, terms["region_words"])


def test_it_begins_with_a_box_per_patch_and_a_low_score(system):
    model, batch = system[0].model, system[1]
    params = initial_params(model, system[0].spec, seed=0)
    found = jax.jit(model.apply)({"params": params}, batch)
    assert np.ptp(found["pred_boxes"], axis=0).max() < 1e-6  # of the 2 x 2 patches alone
    x0, y0, x1, y1 = np.asarray(found["pred_boxes"][0]).T
    np.testing.assert_allclose((x0 + x1) / 2, [0.5, 1, 0.5, 1], atol=1e-3)
    np.testing.assert_allclose((y0 + y1) / 2, [0.5, 0.5, 1, 1], atol=1e-3)
    np.testing.assert_allclose([x1 - x0, y1 - y0], 0.5, atol=1e-3)
    valid = np.broadcast_to(batch["text_mask"].any(-1)[:, None], found["query_logits"].shape)
    scores = 1 / (1 + np.exp(-np.float64(found["query_logits"])[valid]))
    assert np.median(scores) < 0.1


def test_the_bias_of_a_grid_that_is_not_square():
    center, size = np.split(1 / (1 + np.exp(-grid_bias(2, 5))), 2, axis=-1)
    np.testing.assert_allclose(center[:, 0].reshape(2, 5), [[0.2, 0.4, 0.6, 0.8, 1]] * 2, atol=1e-3)
    np.testing.assert_allclose(center[:, 1].reshape(2, 5), [[0.5] * 5, [1] * 5], atol=1e-3)
    np.testing.assert_allclose(size, [[0.2, 0.5]] * 10, atol=1e-3)


def test_batches_that_cannot_be_learned_from_are_refused(system):
    batch = system[1]
    owlvit.check_boxes(batch)
    owlvit.check_boxes(batch | {"boxes_mask": np.zeros_like(batch["boxes_mask"])})  # no box at all
    for value in (1.5, -0.2, np.nan):
        boxes = batch["boxes"].copy()
        boxes[2, 0, 2] = value
        with pytest.raises(ValueError, match=r"has the box \[.*fractions of the image's sides"):
            owlvit.check_boxes(batch | {"boxes": boxes})
    for value in (-1, 7):
        label = batch["box_label"].copy()
        label[2, 0] = value
        with pytest.raises(ValueError, match=f"a box of query {value}, and its image has"):
            owlvit.check_boxes(batch | {"box_label": label})


def test_settings_that_do_not_fit_are_refused():
    config = toy.shrink(configs.load("configs/owlvit_boards.py", ()))
    with config.unlocked():
        config.model.image.pool = "mean"
    with pytest.raises(ValueError, match="reads the class token and the patches.*remove pool"):
        make_system(config)
    with config.unlocked():
        del config.model.image["pool"]
        config.loss.alfa = 1.0
    with pytest.raises(ValueError, match="config.loss.alfa is not a setting.*alpha"):
        make_system(config)
