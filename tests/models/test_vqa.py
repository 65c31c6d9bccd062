"""VQA: what each model sees, and which loss reaches which."""

import jax
import numpy as np
import pytest
import toy
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


def system_of(**loss):
    return vqa.make_system({"model": CONFIG, "loss": loss})


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
    loss = system_of(debias="learned_mixin").loss

    def value(params):
        return toy.means(loss, MODEL.apply({"params": params}, batch), batch)[term]

    gradient = jax.jit(jax.grad(value))
    found = {
        name
        for name, part in gradient(params).items()
        if any(bool((g != 0).any()) for g in jax.tree.leaves(part))
    }
    assert found == reached


def test_without_debiasing_the_loss_is_plain():
    batch = batch_of()
    outputs = APPLY(initial(MODEL, batch), batch)
    found = system_of().loss(outputs, batch, None)["classification"].value
    log_p = jax.nn.log_softmax(outputs["logits"], axis=-1)
    want = [-log_p[i, label] for i, label in enumerate(batch["label"])]
    np.testing.assert_allclose(found, want, rtol=1e-6)
    mean = toy.means(system_of().loss, outputs, batch)["classification"]
    np.testing.assert_allclose(mean, np.mean(want), rtol=1e-6)


def test_labels_are_read_and_those_beyond_the_head_refused():
    system, batch = system_of(), batch_of()
    assert system.spec["label"].shape == (1,)
    system.check_batch(batch)
    with pytest.raises(ValueError, match="label 5 and the head 5 classes .*config.model.answers"):
        system.check_batch({**batch, "label": np.array([0, 5, 1, 2], np.int32)})


def test_unknown_settings():
    with pytest.raises(ValueError, match="config.loss.debias is 'mixin'"):
        system_of(debias="mixin")
    with pytest.raises(ValueError, match="fusion.kind is 'earley'.*Did you mean 'early'"):
        main = {**CONFIG["main"], "fusion": {"kind": "earley", "depth": 1}}
        vqa.make_model({**CONFIG, "main": main})
    with pytest.raises(ValueError, match="main of a VQA has no fallback_depth and no fusion.rec"):
        vqa.make_model({**CONFIG, "main": {**CONFIG["main"], "fallback_depth": 1}})
