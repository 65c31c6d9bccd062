"""The image tokenizer: relaxed codes, both losses by hand, its schedules, and what is refused."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax.core import meta

from mmjax.layers.quantizer import updated
from mmjax.models.systems import make_system
from mmjax.system import Context, row_keys

SIZES = {"image_size": (8, 12), "width": 8, "blocks": 1, "groups": 3, "first": 6, "codes": 7}
MODEL = {"name": "image_tokenizer", "code_width": 5, **SIZES}


def build(kind, **loss):
    system = make_system({"model": {**MODEL, "kind": kind}, "loss": loss})
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    shapes = jax.eval_shape(lambda: system.model.init(jax.random.key(0), {"image": image}))
    given = drawn.drawn(meta.unbox(shapes), scale=0.3)
    memory = {k: x for k, x in given.items() if k != "params"}
    keys = row_keys(jax.random.key(1), jnp.arange(3))
    return system, {"image": image}, given, Context(jnp.asarray(50, jnp.int32), keys, None, memory)


def test_gumbel():
    system, batch, given, context = build("gumbel", temperature=((0, 1.0), (100, 0.5)))
    noisy = system.corrupt(batch, context)
    assert noisy["gumbel_noise"].shape == (3, 2, 3, 7)
    np.testing.assert_allclose(noisy["temperature"], 0.75)

    @jax.jit
    def run(variables, plain, noisy):
        model = system.model.bind(variables)
        logits = model.encoder({"image": plain["image"]})["image_code_logits"]
        soft = jax.nn.softmax((logits + noisy["gumbel_noise"]) / 0.75)
        return logits, model.decoder(soft), model(plain), model(noisy)

    logits, pixels, plain, relaxed = run(given, batch, noisy)
    logits = np.asarray(logits, np.float64)
    np.testing.assert_allclose(relaxed["pixels"], pixels, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(plain["image_codes"], logits.argmax(-1))
    np.testing.assert_array_equal(relaxed["image_codes"], plain["image_codes"])
    assert not np.allclose(plain["pixels"], pixels, atol=1e-3)

    terms = toy.means(system.loss, relaxed, noisy)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(terms["kl"], (p * np.log(p * 7)).sum(-1).mean(), rtol=1e-4)
    # The density of sigmoid(Laplace), from that of its logit by the change of variables.
    x = 0.8 * batch["image"] / 255 + 0.1
    mean, scale = np.split(np.asarray(relaxed["pixels"], np.float64), 2, axis=-1)
    scale = np.exp(scale)
    density = np.exp(-np.abs(np.log(x / (1 - x)) - mean) / scale) / (2 * scale) / (x * (1 - x))
    np.testing.assert_allclose(terms["reconstruction"], -np.log(density).mean(), rtol=1e-5)
    used = len(np.unique(plain["image_codes"])) / 7
    np.testing.assert_allclose(terms["codes_used"], used, rtol=1e-6)


def test_noise_is_gumbel_and_a_gradient_reaches_the_encoder():
    system, batch, given, context = build("gumbel")
    many = jax.vmap(lambda key: jax.random.split(key, 200))(context.rng).reshape(-1)
    noise = system.corrupt(
        {"image": np.zeros((600, 8, 12, 3), np.uint8)}, context._replace(rng=many)
    )
    values = np.asarray(noise["gumbel_noise"], np.float64)
    assert values.mean() == pytest.approx(np.euler_gamma, abs=0.03)
    assert values.var() == pytest.approx(np.pi**2 / 6, abs=0.08)
    noisy = system.corrupt(batch, context)

    def loss(params):
        return system.loss(system.model.apply({"params": params}, noisy), noisy, context)[
            "reconstruction"
        ].mean()

    gradient = jax.jit(jax.grad(loss))(given["params"])
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))


def test_vector_quantized():
    system, batch, given, context = build("vq", decay=0.9, revive=0.2)
    found = jax.jit(system.model.apply)(given, batch)
    book, latents = given["codebook"]["quantizer"], np.asarray(found["latents"])
    distance = np.square(latents[..., None, :] - book["codes"]).sum(-1)
    np.testing.assert_array_equal(found["image_codes"], distance.argmin(-1))
    terms = toy.means(system.loss, found, batch)
    np.testing.assert_allclose(terms["commitment"], distance.min(-1).mean() / 5, rtol=1e-5)
    target = batch["image"] / 127.5 - 1
    want = np.square(np.asarray(found["pixels"]) - target).mean()
    np.testing.assert_allclose(terms["reconstruction"], want, rtol=1e-5)
    np.testing.assert_allclose(
        found["reconstruction"], np.clip(np.asarray(found["pixels"]) / 2 + 0.5, 0, 1), atol=1e-6
    )
    new = system.remember(context.memory, found, batch, context)["codebook"]["quantizer"]
    given = found["latents"], found["image_codes"], None, context.rng[0]
    want = updated(book, *given, decay=0.9, revive=0.2)
    jax.tree.map(np.testing.assert_array_equal, new, want)


@pytest.mark.parametrize(
    ("model", "loss", "problem"),
    [
        ({"kind": "vae"}, {}, "kind of an image tokenizer is 'vae'"),
        ({"image_size": (8, 10)}, {}, "Image size 8x10 is not a multiple"),
        ({}, {"temperature": ((0, 1.0), (9, 0.0))}, "config.loss.temperature has the value 0.0"),
        ({}, {"decay": 0.9}, "config.loss.decay is not a setting of gumbel"),
        ({"kind": "vq"}, {"temperature": 1.0}, "temperature is not a setting of vector_quantized"),
    ],
)
def test_wrong_settings(model, loss, problem):
    with pytest.raises(ValueError, match=problem):
        make_system({"model": {**MODEL, **model}, "loss": loss})
