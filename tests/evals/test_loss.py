"""The loss of held-out examples: means by hand, no padding in them, and draws that repeat."""

from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special
import toy

from mmjax import config as configs
from mmjax.evals.evaluators import make_evaluators
from mmjax.run.evaluation import Runner


class Arrays:
    """Examples that are rows of arrays already."""

    name, class_names = "arrays", None

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch["example_id"])

    def __getitem__(self, i):
        return {k: x[i] for k, x in self.batch.items() if k != "example_id"}


def loss_of(config, batch, params, mesh=None):
    """What the evaluator gives for the rows of a batch as its source, and for the same again."""
    run = toy.build(config, mesh)
    runner = Runner(run, Path(), lambda *args: None)
    runner.open_source = lambda config: Arrays(batch)
    preset = {"kind": "loss", "source": {}, "transform": ""}
    evaluator = make_evaluators({"x": preset}, runner)["x"]
    evaluator.check()
    variables = {"params": jax.device_put(params, jax.tree.map(lambda x: x.sharding, run.params))}
    return run, dict(evaluator.run(variables)), dict(evaluator.run(variables))


def random_params(run, seed=0):
    """No zeros among them, as a new head has."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: 0.3 * rng.normal(size=p.shape).astype(np.float32), run.params)


def rows_of(config, count, seed=0):
    """A batch of `count` rows for the config."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.batch_size = count
    return {"example_id": np.arange(count)} | toy.batch(config.lock(), seed)


@pytest.mark.parametrize("mesh", [None, toy.MESHES["data=4,fsdp=2"]], ids=["one", "mesh"])
def test_it_is_the_mean_over_the_rows_of_the_source(mesh):
    """11 rows in batches of 8: the 5 that fill the last one up do not count."""
    config = toy.config("vit", depth=1, model={"dropout": 0.5})
    batch = rows_of(config, 11)
    del batch["label_probs"]
    batch["label"] = np.array([0, 1, 2, 3, 4, 0, 1, -1, 2, 3, 4], np.int32)  # -1: without one
    params = random_params(toy.build(config))
    run, found, again = loss_of(config, batch, params, mesh)
    logits = toy.build(config).model.apply({"params": params}, {"image": batch["image"]})["logits"]
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=1)
    known = batch["label"] >= 0
    losses = -log_p[np.arange(11), batch["label"]][known]
    right = (log_p.argmax(1) == batch["label"])[known]
    assert found.keys() == {"classification", "accuracy"}
    np.testing.assert_allclose(found["classification"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], right.mean(), rtol=1e-5)
    assert again == found


def test_a_contrastive_loss_compares_the_real_rows_of_each_batch():
    config = toy.config(depth=1)
    batch = rows_of(config, 11)
    run, found, again = loss_of(config, batch, random_params(toy.build(config)))
    outputs = run.model.apply({"params": random_params(run)}, batch)
    x, y = (np.asarray(outputs[k], np.float64) for k in ("image_embed", "text_embed"))
    logits = float(outputs["logit_scale"]) * x @ y.T
    losses = []
    for part in (logits[:8, :8], logits[8:, 8:]):
        for each in (part, part.T):
            losses += list(-np.diag(scipy.special.log_softmax(each, axis=1)))
    np.testing.assert_allclose(found["contrastive"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(found["logit_scale"], outputs["logit_scale"], rtol=1e-6)
    assert again == found


def masked(batch_size, evaluated):
    config = toy.shrink(configs.load("configs/fusion_digits.py"))
    with config.unlocked():
        config.batch_size = batch_size
        config.model.mask_ratio = 0.5
    return loss_of(config.lock(), evaluated, random_params(toy.build(config)))


def test_masks_follow_from_the_place_in_the_source_alone():
    """So the batch size does not matter; another order of the same examples does."""
    config = toy.shrink(configs.load("configs/fusion_digits.py"))
    batch = rows_of(config, 11)
    _, found, again = masked(8, batch)
    assert again == found
    assert {"masked_image", "masked_audio", "classification"} <= found.keys()
    _, other, _ = masked(3, batch)
    assert other.keys() == found.keys()
    for name, value in found.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-5, err_msg=name)
    _, turned, _ = masked(8, {k: x if k == "example_id" else x[::-1] for k, x in batch.items()})
    assert abs(turned["masked_image"] - found["masked_image"]) > 1e-4


def test_a_term_that_no_example_has_is_left_out():
    config = toy.shrink(configs.load("configs/fusion_digits.py"))
    batch = rows_of(config, 5) | {"audio_present": np.zeros(5, bool)}
    _, found, _ = masked(8, batch)
    assert "masked_audio" not in found and np.isfinite(found["masked_image"])
