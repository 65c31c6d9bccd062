"""The decoder of DALL-E 2: its condition beside diffusers', and what it samples from."""

from pathlib import Path

import jax
import numpy as np
import pytest
import toy
from drawn import drawn
from safetensors.numpy import load_file

from mmjax.models import glide_sampling
from mmjax.models.diffusion import pixels
from mmjax.models.systems import make_system
from mmjax.models.unclip import ImageCondition
from mmjax.sample.embeddings import slerp, text_diff
from mmjax.system import Context, row_keys
from mmjax.variables import abstract_variables

GOLDEN = Path(__file__).parents[1] / "golden"
BACKBONE = {"kind": "unet", "channels": (8, 8), "blocks": 1, "attention": (False, True)}
TOWER = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 32}
MODEL = {
    "name": "unclip",
    "embed_dim": 12,
    "image": {**TOWER, "patch_size": 4, "image_size": (16, 16)},
    "image_size": 8,
    "backbone": {**BACKBONE, "head_dim": 4, "groups": 2},
    "text": {"vocab_size": 64, "length": 8, "width": 16, "depth": 1, "heads": 2},
    "text_dropout": 0.5,
    "image_dropout": 0.25,
    "schedule": {"steps": 20},
}


def test_the_condition_is_that_of_diffusers():
    want = load_file(GOLDEN / "image_condition.safetensors")
    names = {"condition": "clip_image_embeddings_project_to_time_embeddings"}
    names["tokens"] = "clip_extra_context_tokens_proj"
    params = {
        ours: {"kernel": want[f"{theirs}.weight"].T, "bias": want[f"{theirs}.bias"]}
        for ours, theirs in names.items()
    }
    params["nothing"] = want["learned_classifier_free_guidance_embeddings"]
    model = ImageCondition(10, 8)
    embed = np.concatenate([want["image_embed"]] * 2)
    present = np.arange(6) >= 3  # diffusers puts the rows without a condition first
    condition, tokens = model.apply({"params": params}, embed, present)
    np.testing.assert_allclose(condition, want["guided.condition"], atol=1e-5)
    np.testing.assert_allclose(tokens, want["guided.tokens"], atol=1e-5)
    np.testing.assert_allclose(tokens[3:], want["plain.tokens"], atol=1e-5)


@pytest.fixture(scope="module")
def made():
    """The system, drawn variables, and a batch."""
    system = make_system({"model": MODEL})
    variables = drawn(abstract_variables(system.model, system.spec))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    return system, variables, {"image": image, **toy._texts(rng, 8)}


def keys(rows=8):
    return row_keys(jax.random.key(0), jax.numpy.arange(rows))


def test_a_training_step_reads_the_image_twice_and_trains_the_decoder_alone(made):
    system, variables, batch = made
    context = Context(0, keys(), None, {})
    noised = system.corrupt(batch, context)
    assert noised["noised"].shape == (8, 8, 8, 3)
    clean = np.asarray(system.model.clean(batch))
    small = batch["image"].reshape(8, 8, 2, 8, 2, 3).mean((2, 4)) / 127.5 - 1
    assert np.abs(clean - small).mean() < 0.2  # resized, not cropped

    @jax.jit
    def gradients(params):
        def total(params):
            outputs = system.model.apply({"params": params}, noised)
            return system.loss(outputs, noised, context)["simple"].sum()

        return jax.grad(total)(params)

    found = jax.device_get(gradients(variables["params"]))
    frozen = {name: found.pop(name) for name in ("image", "image_proj")}
    assert not any(np.any(x) for x in jax.tree.leaves(frozen))
    assert np.any(found["image_condition"]["tokens"]["kernel"])
    assert np.any(found["text_condition"]["embedding"])


def test_variations_are_the_samples_of_the_image_s_embedding(made):
    system, variables, batch = made
    settings = {"steps": 2, "guidance": 2.0}
    draw = jax.jit(lambda batch: system.sample(variables, batch, keys(), settings)["image"])
    of_image = np.asarray(draw({"image": batch["image"]}))
    assert of_image.shape == (8, 8, 8, 3)
    other = np.asarray(draw({"image": batch["image"][::-1]}))
    assert (of_image != other).any()
    embed = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    embed /= np.linalg.norm(embed, axis=1, keepdims=True)
    text = {k: batch[k] for k in ("text", "text_mask")}
    with_text = np.asarray(draw({"image_embed": embed, **text}))
    assert (with_text != np.asarray(draw({"image_embed": embed}))).any()


def test_what_a_decoder_cannot_do_is_refused(made):
    system, variables, batch = made
    with pytest.raises(ValueError, match="give image_embed, as a prior"):
        system.sample(variables, {"text": batch["text"]}, keys(), {})
    without = make_system({"model": MODEL | {"image_dropout": 0.0}})
    with pytest.raises(ValueError, match="train with config.model.text_dropout and .*image_drop"):
        without.sample(variables, batch, keys(), {"guidance": 2.0, "steps": 2})
    for change, said in (
        ({"image_size": 32}, "The CLIP reads images of 16 x 16, and samples are 32 x 32"),
        ({"image_dropout": -0.1}, "image_dropout is -0.1"),
        ({"low_res": 4}, "leave out config.model.low_res"),
    ):
        with pytest.raises(ValueError, match=said):
            make_system({"model": MODEL | change})


def test_embeddings_between_two_are_on_their_great_circle():
    start, end = np.asarray([1.0, 0, 0]), np.asarray([0.0, 0.6, 0.8])
    found = slerp(start, end, np.asarray([0, 1 / 3, 1]))
    third = [np.cos(np.pi / 6), 0.6 * np.sin(np.pi / 6), 0.8 * np.sin(np.pi / 6)]
    np.testing.assert_allclose(found, [start, third, end], atol=1e-12)
    np.testing.assert_allclose(slerp(start, start, np.asarray([0.5])), [start])
    moved = text_diff(start, end, -start, np.asarray([0.0, 1.0]))
    expected = (-start - end) / np.linalg.norm(start + end)
    np.testing.assert_allclose(moved, [start, expected], atol=1e-12)
    with pytest.raises(ValueError, match="opposite"):
        slerp(start, -start, np.asarray([0.5]))
    with pytest.raises(ValueError, match="same embedding"):
        text_diff(start, end, end, np.asarray([0.5]))


def test_inversion_finds_the_noise_of_an_image(made):
    _, variables, batch = made
    system = make_system({"model": MODEL | {"schedule": {"name": "squared_cosine"}}})
    params = dict(variables["params"])
    params["backbone"] = {**params["backbone"]}
    head = params["backbone"]["conv_out"]  # of a denoiser that is not as wild as a random one
    params["backbone"]["conv_out"] = {k: 0.05 * x for k, x in head.items()}
    variables = {**variables, "params": params}
    settings = {"steps": 25, "guidance": 2.0}
    image = {"image": batch["image"], **{k: batch[k] for k in ("text", "text_mask")}}
    start = glide_sampling.invert(system.model, variables, image, keys(), settings)["start"]
    assert start.shape == (8, 8, 8, 3)
    found = np.asarray(
        system.sample(variables, {**image, "start": start}, keys(), settings)["image"]
    )
    true = np.asarray(pixels(system.model.clean(batch)))
    assert np.abs(found.astype(int) - true).mean() < 2  # of 255
    with pytest.raises(ValueError, match="only DDIM with eta 0 goes back"):
        glide_sampling.invert(system.model, variables, image, keys(), {"sampler": "ddpm"})
    with pytest.raises(ValueError, match="sample.steps is 1, and none of these noise levels"):
        glide_sampling.invert(system.model, variables, image, keys(), {"steps": 1})
