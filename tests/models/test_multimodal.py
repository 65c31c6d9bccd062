import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax.core import meta

from mmjax.models.systems import make_system
from mmjax.system import Context, average, row_keys

RNG = np.random.default_rng(0)
SIZES = {"width": 16, "heads": 2, "mlp_dim": 32, "encoder_depth": 1}
FIELDS = {
    "image": {"image_size": (8, 8), "patch_size": 4},
    "audio": {"frames": 8, "mels": 4, "patch_size": 4},
    "text": {"vocab_size": 20, "length": 5},
    "fusion": {"kind": "early", "depth": 1},
    "num_classes": 3,
    **SIZES,
}
BATCH = {
    "image": RNG.integers(0, 256, (4, 8, 8, 3), np.uint8),
    "audio": RNG.normal(size=(4, 8, 4)).astype(np.float32),
    "text": RNG.integers(0, 20, (4, 5), np.int32),
    "text_mask": np.arange(5)[None] < np.asarray([[5], [3], [1], [2]]),
    "label": np.asarray([0, 1, 2, 1], np.int32),
}


def config(**fields):
    return {"model": {"name": "multimodal", **FIELDS, **fields}, "loss": {}}


@functools.cache
def random_params(**fields):
    """Random numbers for every parameter: the head starts with zeros."""
    system = make_system(config(**fields))
    model = system.model
    boxed = jax.eval_shape(
        lambda: model.init(
            {"params": jax.random.key(0), "dropout": jax.random.key(0)},
            {k: jnp.zeros(v.shape, v.dtype) for k, v in system.spec.items()},
        )
    )
    rng = np.random.default_rng(1)
    return model, jax.tree.map(
        lambda p: 0.3 * rng.normal(size=p.shape).astype(np.float32), meta.unbox(boxed["params"])
    )


@functools.cache
def apply():
    model, params = random_params()
    return jax.jit(lambda b: model.apply({"params": params}, b)["logits"])


def logits(batch):
    return np.asarray(apply()(batch))


def with_presence(**present):
    given = {f"{m}_present": np.asarray(p, bool) for m, p in present.items()}
    return BATCH | given


def test_spec_names_what_it_reads():
    spec = make_system(config()).spec
    assert {k: (v.shape, v.dtype) for k, v in spec.items()} == {
        "image": ((1, 8, 8, 3), np.uint8),
        "audio": ((1, 8, 4), np.float32),
        "text": ((1, 5), np.int32),
        "text_mask": ((1, 5), np.bool_),
        "label": ((1,), np.int32),
    }
    assert set(make_system(config(text=None)).spec) == {"image", "audio", "label"}
    assert set(make_system(config(text=None, num_classes=None)).spec) == {"image", "audio"}


def test_a_modality_that_the_batch_lacks_is_one_that_is_nowhere_present():
    absent = logits(with_presence(image=[0] * 4))
    lacking = logits({k: v for k, v in BATCH.items() if k != "image"})
    np.testing.assert_allclose(lacking, absent, atol=1e-5)
    nothing = logits(with_presence(image=[0] * 4, audio=[0] * 4, text=[0] * 4))
    assert np.isfinite(nothing).all()
    np.testing.assert_allclose(nothing, nothing[[0] * 4], atol=1e-6)  # nothing tells them apart


def test_what_is_absent_may_be_no_number():
    batch = with_presence(audio=[1, 0, 1, 0])
    broken = batch | {"audio": batch["audio"].copy()}
    broken["audio"][1] = np.nan
    np.testing.assert_array_equal(logits(broken), logits(batch))
    model, params = random_params()
    loss = make_system(config()).loss

    def gradient(batch):
        def f(p):
            return toy.means(loss, model.apply({"params": p}, batch), batch)["classification"]

        return jax.grad(f)(params)

    for a, b in zip(*(jax.tree.leaves(jax.jit(gradient)(b)) for b in (broken, batch))):
        np.testing.assert_array_equal(a, b)


def test_every_modality_counts_alone():
    present = {"image": [1, 0, 0, 0], "audio": [0, 1, 0, 0], "text": [0, 0, 1, 0]}
    before = logits(with_presence(**present))
    for i, m in enumerate(("image", "audio", "text")):
        moved = dict(with_presence(**present))
        moved[m] = np.roll(moved[m], 1, axis=0)
        changed = np.abs(logits(moved) - before).max(1) > 1e-5
        np.testing.assert_array_equal(changed, np.arange(4) == i)


def test_words_behind_the_mask_do_not_count():
    other = BATCH | {"text": np.where(BATCH["text_mask"], BATCH["text"], 7)}
    np.testing.assert_allclose(logits(other), logits(BATCH), atol=1e-5)


def draw(batch, ids, ratio=0.5):
    """The batch with masks, each row's drawn by its id."""
    context = Context(jnp.int32(0), row_keys(jax.random.key(0), jnp.asarray(ids)), None, {})
    return make_system(config(mask_ratio=ratio)).corrupt(batch, context)


@functools.cache
def masking():
    model, params = random_params(mask_ratio=0.5)
    loss = make_system(config(mask_ratio=0.5)).loss

    @jax.jit
    def run(batch):
        batch = draw(batch, np.arange(4))
        outputs = model.apply({"params": params}, batch, train=True)
        return outputs, loss(outputs, batch, None)

    return run


def masked(batch):
    """Outputs and losses of a training step that masks half of the tokens."""
    outputs, terms = masking()(batch)
    return outputs, {name: average(term)[0] for name, term in terms.items()}


def test_a_rows_mask_is_drawn_by_its_key_alone():
    whole = draw(BATCH, np.arange(4))
    part = draw({k: x[[3, 1]] for k, x in BATCH.items()}, [3, 1])
    names = {f"{m}_masked" for m in ("image", "audio", "text")}
    assert whole.keys() == part.keys() == BATCH.keys() | names
    for name in names:
        np.testing.assert_array_equal(part[name], whole[name][jnp.asarray([3, 1])])
        other = draw(BATCH, np.arange(4, 8))[name]
        assert (other != whole[name]).any()
    assert not any(draw(BATCH, np.arange(4), 1e-9)[name].any() for name in names)
    assert all(draw(BATCH, np.arange(4), 1.0)[name].all() for name in names)


def test_masked_prediction_hides_what_it_asks_for():
    batch = with_presence(audio=[1, 0, 1, 1])
    outputs, terms = masked(batch)
    assert {"masked_image", "masked_audio", "masked_text", "classification"} <= set(terms)
    hidden = {m: np.asarray(outputs[f"{m}_masked"]) for m in ("image", "audio", "text")}
    assert not hidden["audio"][1].any() and not (hidden["text"] & ~batch["text_mask"]).any()
    assert all(h.any() for h in hidden.values())
    # Other contents in the hidden places: the losses change, the predictions do not.
    other = dict(batch, text=np.where(hidden["text"], 3, batch["text"]))
    blocks = hidden["image"].reshape(4, 2, 2).repeat(4, 1).repeat(4, 2)[..., None]
    noise = RNG.integers(0, 256, batch["image"].shape, np.uint8)
    other["image"] = np.where(blocks, noise, batch["image"])
    changed, changed_terms = masked(other)
    for m in ("image", "audio", "text"):
        np.testing.assert_array_equal(changed[f"{m}_prediction"], outputs[f"{m}_prediction"])
    assert changed_terms["masked_image"] != terms["masked_image"]
    # And what is shown does reach the predictions of the other modalities.
    shown = dict(batch, image=np.where(blocks, batch["image"], noise))
    moved = np.abs(masked(shown)[0]["audio_prediction"] - outputs["audio_prediction"])
    assert moved.max() > 1e-4


def test_masked_prediction_alone_has_no_head_and_evaluates_whole():
    model, params = random_params(mask_ratio=0.5, num_classes=None)
    assert "head" not in params
    outputs = jax.eval_shape(lambda p: model.apply({"params": p}, BATCH), params)
    assert set(outputs) == {"fused_features"}


def test_the_classification_is_each_examples_cross_entropy():
    logits = RNG.normal(size=(4, 3)).astype(np.float32)
    loss = make_system(config()).loss
    found = loss({"logits": logits}, BATCH, None)["classification"]
    want = np.log(np.exp(logits).sum(1)) - logits[np.arange(4), BATCH["label"]]
    np.testing.assert_allclose(found.value, want, rtol=1e-5)
    np.testing.assert_allclose(average(found)[0], want.mean(), rtol=1e-5)
    assert loss({}, BATCH, None) == {}


ROBUST = {"fusion": {"kind": "late", "depth": 1, "reconstruction": 4}, "fallback_depth": 1}


@functools.cache
def robust():
    """A model with classifiers of each modality and decoders: its parameters, and the function
    batch -> outputs, losses, and the gradient of each."""
    system = make_system(config(**ROBUST))
    model, params = random_params.__wrapped__(**ROBUST)  # a dict has no hash

    @jax.jit
    def run(batch):
        def f(p):
            outputs = model.apply({"params": p}, batch)
            means = toy.means(system.loss, outputs, batch)
            return {k: means[k] for k in ("fallback", "reconstruction")}, outputs

        grads, outputs = jax.jacrev(f, has_aux=True)(params)
        return outputs, toy.means(system.loss, outputs, batch), grads

    return params, run


def test_where_a_modality_is_missing_the_own_classifiers_of_the_others_answer():
    present = {"image": [1, 1, 0, 0], "audio": [1, 0, 1, 0], "text": [1, 1, 1, 0]}
    batch = with_presence(**present) | {"label": np.asarray([0, 1, 2, -1], np.int32)}
    params, run = robust()
    outputs, means, grads = run(batch)
    alone = {m: np.asarray(outputs[f"{m}_logits"]) for m in present}
    want = [(alone["image"] + alone["text"])[1] / 2, (alone["audio"] + alone["text"])[2] / 2]
    np.testing.assert_allclose(outputs["logits"][1:3], want, atol=1e-5)
    features, head = outputs["fused_features"], params["head"]
    fused = np.asarray(features) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(outputs["logits"][jnp.asarray([0, 3])], fused[[0, 3]], atol=1e-5)

    log_p = {m: np.asarray(jax.nn.log_softmax(x)) for m, x in alone.items()}
    rows = [
        np.mean([-log_p[m][row, row] for m, there in present.items() if there[row]])
        for row in range(3)
    ]
    np.testing.assert_allclose(means["fallback"], np.mean(rows), rtol=1e-5)
    values, target = (np.asarray(outputs[f"reconstruction{x}"]) for x in ("", "_target"))
    error = np.square(values - target).sum(-1) / np.square(target).sum(-1).clip(1e-6)
    there = np.stack([present[m] for m in ("image", "text", "audio")], 1).astype(bool)
    rows = [error[row][there[row]].mean() for row in range(3)]
    np.testing.assert_allclose(means["reconstruction"], np.mean(rows), rtol=1e-5)

    def trains(term):
        found = {k for k, g in grads[term].items() if any(x.any() for x in jax.tree.leaves(g))}
        return found | {f"fusion/{k}" for k, g in grads[term].get("fusion", {}).items()
                        if any(x.any() for x in jax.tree.leaves(g))}  # fmt: skip

    # The reconstruction trains nothing but its decoders; the own classifiers not the fusion.
    assert trains("reconstruction") == {"fusion", "fusion/decoders"}
    assert {"image_alone", "audio_alone", "text_alone", "image"} < trains("fallback")
    assert not {"fusion", "head"} & trains("fallback")


def test_a_modality_that_the_batch_lacks_falls_back_too():
    lacking = {k: v for k, v in BATCH.items() if k != "image"}
    params, _ = robust()
    model = make_system(config(**ROBUST)).model
    outputs = jax.jit(lambda p: model.apply({"params": p}, lacking))(params)
    want = (outputs["audio_logits"] + outputs["text_logits"]) / 2
    np.testing.assert_allclose(outputs["logits"], want, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": None, "audio": None, "text": None}, "config.model has no modality"),
        ({"image": {"patch": 4}}, "config.model.image.patch is not a setting of ImageTokens"),
        ({"fallback_depth": 1, "num_classes": None}, "fallback_depth is for classifiers, and"),
        (
            {"image": None, "text": None, "fusion": {**FIELDS["fusion"], "reconstruction": 4}},
            "reconstruction decodes a modality from the others, and the model has audio alone",
        ),
        ({"fusion": {"kind": "erly"}}, "config.model.fusion.kind is 'erly'.*Did you mean 'early'"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make_system(config(**fields))


def test_classifiers_and_decoders_without_their_losses_are_refused():
    weights = {"classification": 1.0, "reconstruction": 1.0}
    with pytest.raises(ValueError, match="fallback_depth is set and config.loss_weights has no 'f"):
        make_system(config(**ROBUST) | {"loss_weights": weights})
    with pytest.raises(ValueError, match="evidential reads logits as evidence, and the"):
        make_system(config(**ROBUST) | {"loss": {"evidential": 0.1}})
    del weights["reconstruction"]
    weights["fallback"] = 1.0
    with pytest.raises(ValueError, match="fusion.reconstruction is set and .* no 'reconstruction'"):
        make_system(config(**ROBUST) | {"loss_weights": weights})


def test_a_modality_that_no_row_has_gives_no_loss_and_the_rest_trains():
    absent = with_presence(text=[0, 0, 0, 0])
    system = make_system(config(mask_ratio=0.5))
    system.check_batch(absent)
    model, params = random_params(mask_ratio=0.5)

    def total(params):
        batch = draw(absent, np.arange(4))
        terms = system.loss(model.apply({"params": params}, batch, train=True), batch, None)
        means = {name: average(term) for name, term in terms.items()}
        return sum(mean for mean, _ in means.values()), means

    (value, means), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    assert not means["masked_text"][1] and means["masked_text"][0] == 0
    assert all(has for name, (_, has) in means.items() if name != "masked_text")
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert not any(g.any() for g in jax.tree.leaves(gradient["text_prediction"]))
    assert any(g.any() for g in jax.tree.leaves(gradient["image_prediction"]))


def test_labels_beyond_the_head_are_refused():
    batch = BATCH | {"label": np.asarray([0, 1, 3, 1], np.int32)}
    with pytest.raises(ValueError, match="label 3 and the head 3 classes .*config.model.num_cl"):
        make_system(config()).check_batch(batch)


def test_a_batch_without_any_modality_is_refused():
    with pytest.raises(ValueError, match="none of the model's modalities image, text, audio"):
        logits({"label": BATCH["label"]})
