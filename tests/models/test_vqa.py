"""VQA: what each model sees, and which loss reaches which."""

import jax
import numpy as np
import pytest
from writers import images, initial, outputs_of, texts

from mmjax.models import vqa

RNG = np.random.default_rng(0)
SMALL = {"width": 16, "heads": 2, "mlp_dim": 24}
CONFIG = {
    "answers": 5,
    "main": {
        **SMALL,
        "encoder_depth": 1,
        "fusion": {"kind": "early", "depth": 1},
        "image": {"image_size": (8, 8), "patch_size": 4},
        "text": {"vocab_size": 13, "length": 10},
    },
    "question": {**SMALL, "depth": 1, "length": 10},
}
MODEL = vqa.make_model(CONFIG)
APPLY = outputs_of(MODEL)


def batch_of(rows=4):
    text, mask = texts(RNG, rows, 10)
    label = RNG.integers(0, 5, rows).astype(np.int32)
    return {"image": images(RNG, rows), "text": text, "text_mask": mask, "label": label}


def test_the_question_model_does_not_see_the_image():
    batch = batch_of()
    params = initial(MODEL, batch)
    before, after = APPLY(params, batch), APPLY(params, {**batch, "image": 255 - batch["image"]})
    np.testing.assert_array_equal(before["question_logits"], after["question_logits"])
    assert not np.allclose(before["logits"], after["logits"])
    assert before["logits"].shape == before["question_logits"].shape == (4, 5)


@pytest.mark.parametrize(
    ("term", "reached"),
    [
        ("classification", {"main", "mixin_gate"}),
        ("question", {"question", "head"}),
        ("mixin_entropy", {"mixin_gate"}),
    ],
)
def test_each_loss_reaches_its_own_parameters(term, reached):
    batch = batch_of()
    params = initial(MODEL, batch)
    loss = vqa.make_loss({"debias": "learned_mixin"})
    gradient = jax.jit(jax.grad(lambda p: loss(MODEL.apply({"params": p}, batch), batch)[term]))
    found = {
        name
        for name, part in gradient(params).items()
        if any(bool((g != 0).any()) for g in jax.tree.leaves(part))
    }
    assert found == reached


def test_without_debiasing_the_loss_is_plain():
    batch = batch_of()
    outputs = APPLY(initial(MODEL, batch), batch)
    terms = vqa.make_loss({})(outputs, batch)
    log_p = jax.nn.log_softmax(outputs["logits"], axis=-1)
    want = -np.mean([log_p[i, label] for i, label in enumerate(batch["label"])])
    np.testing.assert_allclose(terms["classification"], want, rtol=1e-6)
    each = vqa.make_example_losses({})(outputs, batch)
    np.testing.assert_allclose(each["classification"].mean(), want, rtol=1e-6)


def test_unknown_settings():
    with pytest.raises(ValueError, match="config.loss.debias is 'mixin'"):
        vqa.make_loss({"debias": "mixin"})
    with pytest.raises(ValueError, match="fusion.kind is 'earley'.*Did you mean 'early'"):
        main = {**CONFIG["main"], "fusion": {"kind": "earley", "depth": 1}}
        vqa.make_model({**CONFIG, "main": main})
