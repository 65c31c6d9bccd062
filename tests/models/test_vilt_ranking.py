"""ViLT's ranking of texts for an image: the loss beside single passes of the model."""

import jax
import numpy as np
import pytest
from drawn import drawn

from mmjax.models.systems import make_system
from mmjax.system import Context, average
from mmjax.variables import abstract_variables

MODEL = {
    "name": "vilt",
    "width": 16,
    "depth": 1,
    "heads": 2,
    "mlp_dim": 24,
    "text": {"vocab_size": 40, "length": 6},
    "image": {"image_size": (8, 8), "patch_size": 4},
    "matching": 1,
}
ROWS, FALSE = 5, 3


def system(batch_size=ROWS, false_texts=FALSE):
    loss = {"false_texts": false_texts}
    return make_system(
        {"model": MODEL, "loss": loss, "batch_size": batch_size, "loss_weights": {"ranking": 1.0}}
    )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    mask = np.arange(6)[None] < np.array([6, 4, 4, 3, 5])[:, None]
    text = np.where(mask, rng.integers(1, 40, (ROWS, 6)), 0).astype(np.int32)
    text[2] = text[1]  # a text of two images
    return {
        "image": rng.integers(0, 256, (ROWS, 8, 8, 3), np.uint8),
        "text": text,
        "text_mask": mask,
        "image_present": np.array([True, True, True, True, False]),
        "text_present": np.array([True, True, True, False, True]),
    }


def test_it_is_the_cross_entropy_of_the_own_text_among_others(batch):
    made = system()
    params = jax.device_put(drawn(abstract_variables(made.model, made.spec)["params"]))
    context = Context(np.int32(0), jax.random.split(jax.random.key(0), ROWS), None, {})

    @jax.jit
    def run(params, batch):
        given = made.corrupt(batch, context)
        outputs = made.model.apply({"params": params}, given)
        return given, outputs, made.loss(outputs, given, context)

    given, outputs, terms = jax.tree.map(np.asarray, run(params, batch))
    value, weight = terms["ranking"]
    accuracy, _ = terms["ranking_accuracy"]
    one = jax.jit(lambda b: made.model.apply({"params": params}, b)["match_logits"][:, 0])
    # Every image with every text of the batch, one after the other.
    scores = np.stack(
        [
            one({**batch, **{k: np.roll(batch[k], s, 0) for k in batch if "text" in k}})
            for s in range(FALSE + 1)
        ],
        1,
    ).astype(np.float64)
    np.testing.assert_allclose(outputs["match_logits"][:, 0], one(batch), rtol=0, atol=1e-5)
    for row in range(ROWS):
        others = [(row - s) % ROWS for s in range(1, FALSE + 1)]
        there = [
            batch["text_present"][other] and (batch["text"][other] != batch["text"][row]).any()
            for other in others
        ]
        assert given["false_text_valid"][row].tolist() == there
        present = batch["image_present"][row] and batch["text_present"][row] and any(there)
        assert weight[row] == present
        if present:
            kept = np.concatenate([scores[row, :1], scores[row, 1:][there]])
            want = np.log(np.exp(kept).sum()) - kept[0]
            np.testing.assert_allclose(value[row], want, rtol=1e-5, atol=1e-5)
            assert accuracy[row] == (kept[0] > kept[1:].max())
    assert weight.tolist() == [1, 1, 1, 0, 0]
    grads = jax.jit(jax.grad(lambda p: average(run(p, batch)[2]["ranking"])[0]))(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    assert np.abs(grads["match_head"]["kernel"]).max() > 1e-4


def test_what_cannot_be_ranked_is_refused(batch):
    with pytest.raises(ValueError, match="batch of one example has no image that does not match"):
        system(batch_size=1)
    with pytest.raises(ValueError, match="false_texts is 15: a batch of 5 has 1 to 4 texts"):
        system(false_texts=15)
    alone = {**batch, "image_present": np.zeros(ROWS, bool)}
    with pytest.raises(ValueError, match="ranking an image and a text"):
        system().check_batch(alone)
    assert system(batch_size=0).loss is not None  # as for a model that is loaded
