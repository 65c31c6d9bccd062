"""DALL-E: what each layer attends to, the cache beside the whole pass, sampling, and its loss."""

import functools
import math

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax.core import meta
from flax.traverse_util import flatten_dict
from slow_patterns import slow

from mmjax import config as configs
from mmjax.decode import generate
from mmjax.decode.settings import Settings
from mmjax.models.systems import make_system
from mmjax.run import given_parts
from mmjax.system import row_keys
from mmjax.variables import abstract_variables

LENGTH, GRID, CODES = 5, (4, 3), 11
TOKENIZER = {"codes": CODES, "width": 8, "blocks": 1, "groups": 3, "first": 6}
TOKENIZER |= {"image_size": (16, 12)}
MODEL = {
    "name": "dalle",
    "width": 16,
    "text": {"vocab_size": 20, "length": LENGTH},
    "decoder": {"depth": 4, "heads": 2, "mlp_dim": 24, "kernel": 3},
    "image_tokenizer": TOKENIZER,
}


def build(**tokenizer):
    config = {**MODEL, "image_tokenizer": {**TOKENIZER, **tokenizer}}
    system, rng = make_system({"model": config, "loss": {}}), np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (3, 16, 12, 3), np.uint8),
        "text": rng.integers(0, 20, (3, LENGTH), np.int32),
        "text_mask": np.arange(LENGTH)[None] < np.array([[5], [2], [0]]),
    }
    shapes = jax.eval_shape(lambda: system.model.init(jax.random.key(0), batch))
    return system, batch, drawn.drawn(meta.unbox(shapes))


@pytest.fixture(scope="module")
def made():
    system, batch, given = build()

    @jax.jit
    def run(variables, batch):
        found, kept = system.model.apply(variables, batch, mutable=["intermediates"])
        (weights,) = jax.tree.leaves(kept)
        return found, weights

    found, weights = run(given, batch)
    return system, batch, given, found, np.asarray(weights)


def test_each_layer_attends_to_its_pattern_and_to_nothing_else(made):
    weights = made[-1]
    assert weights.shape[0] == 4
    for layer, pattern in zip(weights, ("row", "column", "row", "convolution")):
        want = slow(pattern, LENGTH, *GRID, 3)
        np.testing.assert_array_equal(layer > 0, np.broadcast_to(want, layer.shape))


def test_codes_are_those_of_the_tokenizer_and_padding_has_tokens_of_its_own(made):
    system, batch, given, found, _ = made
    tokenizer = system.model.tokenizer(parent=None)
    part = {"params": given["params"]["image_tokenizer"]}
    codes = jax.jit(functools.partial(tokenizer.apply, method="encode"))(part, batch["image"])
    np.testing.assert_array_equal(found["image_codes"], codes.reshape(3, -1))
    apply = jax.jit(system.model.apply)
    noise = np.where(batch["text_mask"], batch["text"], 19 - batch["text"])
    for name, x in apply(given, {**batch, "text": noise}).items():
        np.testing.assert_array_equal(x, found[name])
    alone = apply(given, {k: batch[k] for k in ("text", "text_mask")})
    np.testing.assert_allclose(alone.pop("text_logits"), found["text_logits"], rtol=1e-5, atol=1e-5)
    assert not alone and list(apply(given, {"image": batch["image"]})) == ["image_codes"]
    params = given["params"]
    other = {**params, "text_padding": {"table": -params["text_padding"]["table"]}}
    changed = apply({**given, "params": other}, batch)["image_logits"]
    same = np.isclose(changed, found["image_logits"], atol=1e-6).all((1, 2))
    np.testing.assert_array_equal(same, [True, False, False])  # the first text fills its positions


def greedy(system, given, batch):
    """The most probable codes, each from a whole pass over those before it."""
    apply = jax.jit(system.model.apply)
    codes = np.zeros((3, math.prod(GRID)), np.int32)
    for i in range(codes.shape[1]):
        logits = apply(given, {**batch, "image_codes": codes})["image_logits"]
        codes[:, i] = np.asarray(logits[:, i].argmax(-1))
    return codes


def test_the_cache_gives_the_logits_of_the_whole_pass(made):
    system, batch, given, found, _ = made
    model, count = system.model, math.prod(GRID)
    settings = Settings(max_new_tokens=count)
    texts = {k: batch[k] for k in ("text", "text_mask")}
    prompts = jax.jit(functools.partial(generate.read_prompts, model, settings))(given, texts)
    logits, cache = prompts[:2]
    step = jax.jit(functools.partial(generate.read_token, model))
    for i in range(count):
        np.testing.assert_allclose(logits, found["image_logits"][:, i], rtol=1e-5, atol=1e-5)
        logits, new = step(given, cache, found["image_codes"][:, i])
        cache = new["cache"]


def test_sampling(made):
    system, batch, given, _, _ = made
    texts = {k: batch[k] for k in ("text", "text_mask")}
    keys = row_keys(jax.random.key(3), jnp.arange(3))

    def sampler(**settings):
        return lambda *args: system.sample(*args, settings)

    best = sampler(temperature=0.0)(given, texts, keys)
    codes = greedy(system, given, batch)
    np.testing.assert_array_equal(best["image_codes"], codes)
    logits = jax.jit(system.model.apply)(given, {**batch, "image_codes": codes})
    np.testing.assert_allclose(best["log_p"], -logits["image_losses"].sum(1), rtol=1e-4)
    pixels = system.model.apply(given, jnp.asarray(codes), method="decode")
    np.testing.assert_array_equal(best["image"], pixels)
    assert best["image"].dtype == np.uint8 and best["image"].shape == (3, 16, 12, 3)

    # A row follows from its key and its text alone.
    one = sampler(top_k=5)(given, texts, keys)
    order = np.array([2, 0, 1])
    other = sampler(top_k=5)(given, {k: x[order] for k, x in texts.items()}, keys[order])
    np.testing.assert_array_equal(one["image_codes"][order], other["image_codes"])
    assert not np.array_equal(one["image_codes"], codes)

    found = sampler(top_k=5, candidates=2)(given, texts, keys)
    assert found["candidates"].shape == (3, 2, 16, 12, 3) and "image" not in found
    for i in range(2):
        alone = sampler(top_k=5)(given, texts, row_keys_of(keys, i))
        np.testing.assert_array_equal(found["image_codes"][:, i], alone["image_codes"])
        np.testing.assert_array_equal(found["candidates"][:, i], alone["image"])


def row_keys_of(keys, candidate):
    return jax.vmap(lambda key: jax.random.fold_in(key, candidate))(keys)


def test_the_loss(made):
    system, batch, _, found, _ = made
    terms = toy.means(system.loss, found, batch)
    text = np.asarray(jax.nn.log_softmax(found["text_logits"]))
    image = np.asarray(jax.nn.log_softmax(found["image_logits"]))
    losses = [
        -text[b, i - 1, batch["text"][b, i]] for b, n in ((0, 5), (1, 2)) for i in range(1, n)
    ]
    np.testing.assert_allclose(terms["text"], np.mean(losses), rtol=1e-5)
    codes = np.asarray(found["image_codes"])
    want = -np.take_along_axis(image, codes[..., None], 2).mean()
    np.testing.assert_allclose(terms["image"], want, rtol=1e-5)
    np.testing.assert_allclose(terms["image_bits"], want / np.log(2), rtol=1e-5)


def test_a_codebook_of_vectors_is_read_and_not_learned():
    system, batch, given = build(kind="vq", code_width=4)
    assert system.remember is None and given["codebook"]["image_tokenizer"]["quantizer"]
    found = jax.jit(system.model.apply)(given, batch)
    codes = found["image_codes"].reshape(3, *GRID)
    image = system.model.apply(given, found["image_codes"], method="decode")
    part = {k: given[k]["image_tokenizer"] for k in ("params", "codebook")}
    tokenizer = system.model.tokenizer(parent=None)
    want = jax.jit(tokenizer.apply)(part, {"image": batch["image"]})
    np.testing.assert_array_equal(codes, want["image_codes"])
    np.testing.assert_array_equal(image, np.round(255 * want["reconstruction"]).astype(np.uint8))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"candidates": 0}, "sample.candidates is 0"),
        ({"temperatur": 1.0}, "sample.temperatur is not a setting"),
        ({"top_k": 12}, "decode.top_k is 12 and the vocabulary has 11"),
    ],
)
def test_wrong_settings_of_sampling(made, settings, problem):
    system, batch, given, _, _ = made
    texts = {k: batch[k] for k in ("text", "text_mask")}
    with pytest.raises(ValueError, match=problem):
        system.sample(given, texts, jax.random.key(0), settings)
    long = {k: np.pad(x, ((0, 0), (0, 1))) for k, x in texts.items()}
    with pytest.raises(ValueError, match="A prompt of 6 tokens was given to a model .* have 5"):
        system.sample(given, long, jax.random.key(0), {})


def test_the_image_tokenizer_is_that_of_the_run_it_learned_with(made, capsys):
    system, _, given, _, _ = made
    part, params = "image_tokenizer", given["params"]
    known = given_parts.fingerprint(params, part)
    only = ("(codebook/)?image_tokenizer/.*",)
    taken = {"path": "runs/dvae", "only": only}
    given_parts.check_taken(system, taken, params)
    assert known in capsys.readouterr().out
    config = {**MODEL, "fingerprint": "0123456789abcdef"}
    other = make_system({"model": config, "loss": {}})
    with pytest.raises(ValueError, match=f"fingerprint is 0123456789abcdef, and .* has {known}"):
        given_parts.check_taken(other, taken, params)
    for settings in ({"path": "", "only": ()}, {"path": "x", "only": ("decoder/.*",)}):
        with pytest.raises(ValueError, match="are of another run: name it in config.init_from"):
            given_parts.check_taken(system, settings, params)
    frozen = jax.tree.map(lambda _: False, params)
    with pytest.raises(ValueError, match="set config.optim.freeze="):
        given_parts.check_frozen(system, frozen)
    moved = {**params, "row_position": {"table": 1 + params["row_position"]["table"]}}
    assert given_parts.fingerprint(moved, part) == known


def test_the_paper_s_size():
    config = configs.load("configs/dalle_12b.py", ())
    system = make_system(config)
    params = abstract_variables(system.model, system.spec)["params"]
    layers = flatten_dict(params["decoder"]["stack"])
    matrices = sum(x.size for path, x in layers.items() if path[-1] == "kernel")
    assert matrices == 12 * 64 * 3968**2 == 12_092_178_432
    assert sum(x.size for x in jax.tree.leaves(params["image_tokenizer"])) == 97_616_006
    assert system.model.window == 256 + 1024
