import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.models import systems as models

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
    model = models.make_model(config(**fields))
    boxed = jax.eval_shape(
        lambda: model.init(
            {"params": jax.random.key(0), "dropout": jax.random.key(0)},
            {k: jnp.zeros(v.shape, v.dtype) for k, v in models.spec(config(**fields)).items()},
        )
    )
    rng = np.random.default_rng(1)
    return model, jax.tree.map(
        lambda p: 0.3 * rng.normal(size=p.shape).astype(np.float32), meta.unbox(boxed["params"])
    )


def logits(batch, **fields):
    model, params = random_params(**fields)
    return np.asarray(jax.jit(lambda p, b: model.apply({"params": p}, b)["logits"])(params, batch))


def with_presence(**present):
    given = {f"{m}_present": np.asarray(p, bool) for m, p in present.items()}
    return BATCH | given


def test_spec_names_what_it_reads():
    spec = models.spec(config())
    assert {k: (v.shape, v.dtype) for k, v in spec.items()} == {
        "image": ((1, 8, 8, 3), np.uint8),
        "audio": ((1, 8, 4), np.float32),
        "text": ((1, 5), np.int32),
        "text_mask": ((1, 5), np.bool_),
    }
    assert set(models.spec(config(text=None))) == {"image", "audio"}


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
    loss = models.make_loss(config())

    def gradient(batch):
        def f(p):
            return loss(model.apply({"params": p}, batch), batch)["classification"]

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


def masked(batch, key=0):
    """Outputs and losses of a training step that hides half of the tokens."""
    model, params = random_params(mask_ratio=0.5)
    loss = models.make_loss(config(mask_ratio=0.5))

    @jax.jit
    def run(params, batch):
        rngs = {"dropout": jax.random.key(key)}
        outputs = model.apply({"params": params}, batch, train=True, rngs=rngs)
        return outputs, loss(outputs, batch)

    return run(params, batch)


def test_masked_prediction_hides_what_it_asks_for():
    batch = with_presence(audio=[1, 0, 1, 1])
    outputs, terms = masked(batch)
    assert {"masked_image", "masked_audio", "masked_text", "classification"} <= set(terms)
    hidden = {m: np.asarray(outputs[f"{m}_hidden"]) for m in ("image", "audio", "text")}
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


def test_example_losses_average_to_the_loss():
    outputs = {"logits": RNG.normal(size=(4, 3)).astype(np.float32)}
    each = models.make_example_losses(config())(outputs, BATCH)["classification"]
    whole = models.make_loss(config())(outputs, BATCH)["classification"]
    np.testing.assert_allclose(each.mean(), whole, rtol=1e-6)
    assert models.make_example_losses(config())({}, BATCH) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": None, "audio": None, "text": None}, "config.model has no modality"),
        ({"image": {"patch": 4}}, "config.model.image.patch is not a setting of ImageTokens"),
        ({"fusion": {"kind": "erly"}}, "config.model.fusion.kind is 'erly'.*Did you mean 'early'"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        models.make_model(config(**fields))


def test_a_batch_in_which_nothing_is_to_be_predicted_is_refused():
    absent = with_presence(text=[0, 0, 0, 0])
    models.check_batch(config(), absent)
    models.check_batch(config(mask_ratio=0.3), with_presence(text=[0, 0, 1, 0]))
    with pytest.raises(ValueError, match="has its text, so that masked_text has nothing"):
        models.check_batch(config(mask_ratio=0.3), absent)


def test_a_batch_without_any_modality_is_refused():
    with pytest.raises(ValueError, match="none of the model's modalities image, text, audio"):
        logits({"label": BATCH["label"]})
