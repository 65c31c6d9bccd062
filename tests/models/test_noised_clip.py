"""A CLIP of noised images: what it is trained on, and the gradient by which it guides a GLIDE."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from drawn import drawn

from mmjax.models import noised_clip
from mmjax.models.systems import make_system
from mmjax.sample.schedules import Schedule
from mmjax.system import Context, row_keys
from mmjax.variables import abstract_variables

TOWER = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 32}
MODEL = {
    "name": "noised_clip",
    "embed_dim": 12,
    "image": {**TOWER, "patch_size": 4, "image_size": (8, 8)},
    "text": {**TOWER, "vocab_size": 64, "length": 8},
    "schedule": {"steps": 20},
}
GLIDE = {
    "name": "glide",
    "image_size": 8,
    "backbone": {
        "kind": "unet",
        "channels": (8,),
        "blocks": 1,
        "attention": (False,),
        "head_dim": 4,
        "groups": 2,
    },
    "text": {"vocab_size": 64, "length": 8, "width": 16, "depth": 1, "heads": 2},
    "schedule": {"steps": 20},
}


@pytest.fixture(scope="module")
def made():
    """The system, drawn variables, its compiled model, and a batch."""
    system = make_system({"model": MODEL, "loss": {}})
    variables = drawn(abstract_variables(system.model, system.spec))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (8, 8, 8, 3), np.uint8), **toy._texts(rng, 8)}
    return system, variables, jax.jit(system.model.apply), batch


def context(rows=8):
    return Context(0, row_keys(jax.random.key(0), jnp.arange(rows)), None, {})


def test_training_sees_noise_of_the_schedule_and_the_time_of_it(made):
    system, variables, apply, batch = made
    many = {"image": np.repeat(batch["image"][:1], 4000, 0)}
    found = jax.device_get(system.corrupt(many, context(4000)))
    assert {*np.unique(found["time"])} == {*range(20)}
    clean = many["image"][0] / 127.5 - 1
    alpha, sigma = map(np.asarray, Schedule(steps=20).levels(jnp.arange(20.0)))
    for time in (0, 19):
        rows = found["noised"][found["time"] == time]
        np.testing.assert_allclose(rows.mean(0), alpha[time] * clean, atol=0.4)
        np.testing.assert_allclose((rows - alpha[time] * clean).std(), sigma[time], rtol=0.05)
    noised = system.corrupt(batch, context())
    outputs = apply(variables, noised)
    assert {"image_embed", "text_embed", "logit_scale"} <= set(outputs)
    assert np.isfinite(system.loss(outputs, noised, context())["contrastive"]).all()
    # The time counts, and a clean image is seen as that of time 0.
    later = apply(variables, {**noised, "time": (noised["time"] + 5) % 20})
    assert np.abs(later["image_embed"] - outputs["image_embed"]).max() > 1e-3
    clean = {"noised": batch["image"].astype(np.float32) / 127.5 - 1, "time": np.zeros(8)}
    both = (apply(variables, {**batch, **more})["image_embed"] for more in ({}, clean))
    np.testing.assert_allclose(*both, atol=1e-5)


def test_the_score_is_the_gradient_of_the_logits(made):
    system, variables, apply, batch = made
    noised = {k: system.corrupt(batch, context())[k] for k in ("noised", "time")}
    text = {k: np.array(batch[k]) for k in ("text", "text_mask")}
    text["text_mask"][3] = False
    score = jax.jit(noised_clip.score(system.model, variables, text, 2.5))
    found = np.asarray(score(noised["noised"], noised["time"]))
    assert not found[3].any()
    way = np.random.default_rng(1).normal(size=found.shape).astype(np.float32)

    def logits(step):
        outputs = apply(variables, {**batch, **noised, "noised": noised["noised"] + step * way})
        cosine = np.sum(outputs["image_embed"] * outputs["text_embed"], axis=1)
        return 2.5 * np.asarray(outputs["logit_scale"] * cosine, np.float64)

    slope = (logits(5e-3) - logits(-5e-3)) / 1e-2
    there = np.arange(8) != 3
    along = (found * way).sum((1, 2, 3))
    np.testing.assert_allclose(along[there], slope[there], rtol=0.02, atol=0.02)


def test_guided_samples_fit_their_texts_better(made):
    clip, guide, apply, batch = made
    system = make_system({"model": GLIDE})
    variables = drawn(abstract_variables(system.model, system.spec))
    text = {k: batch[k] for k in ("text", "text_mask")}
    given = {**text, **{f"guide_{k}": x for k, x in text.items()}}
    config = json.dumps({k: x for k, x in MODEL.items() if k != "name"})

    def sampled(scale):
        settings = {"steps": 10, "clip_guidance": scale, "clip": config}
        both = {**variables, "guide": guide}
        return system.sample(both, given, context().rng, settings)["image"]

    cosine = [
        np.sum(found["image_embed"] * found["text_embed"], axis=1).mean()
        for found in (apply(guide, {**text, "image": sampled(scale)}) for scale in (0.0, 20.0))
    ]
    assert cosine[1] > cosine[0] + 0.05
    other = json.dumps(json.loads(config) | {"schedule": {"steps": 30}})
    with pytest.raises(ValueError, match="train it with the same image_size and schedule"):
        settings = {"steps": 2, "clip_guidance": 1.0, "clip": other}
        system.sample({**variables, "guide": guide}, given, context().rng, settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": {**MODEL["image"], "pool": "mean"}}, "pool to 'cls'"),
        ({"image": {"kind": "efficientnet"}}, "kind to 'vit'"),
        ({"schedule": {"name": "continuous_cosine"}}, "which is continuous"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        make_system({"model": MODEL | change, "loss": {}})
