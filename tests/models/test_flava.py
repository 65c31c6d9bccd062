"""FLAVA's pretraining: which rows have which loss, masks, texts that do not match, bad batches."""

import jax
import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax.layers.patch_embed import patchify
from mmjax.layers.pooling import end_position
from mmjax.models.flava_pretraining import ROWS, Settings, other_pairs
from mmjax.models.image_codebook import RandomQuantizer
from mmjax.models.systems import make_system
from mmjax.system import Context, average, evaluation_context
from mmjax.variables import initial_params


@pytest.fixture(scope="module")
def flava():
    """(config, system, parameters, losses of a batch), compiled once."""
    config = toy.shrink(configs.load("configs/flava_emoji.py", ()))
    with config.unlocked():
        config.loss.matching_negatives = 0.5
    system = make_system(config)
    params = initial_params(system.model, system.spec, 0)

    @jax.jit
    def losses(batch):
        context = evaluation_context(batch, np.int32(0), {})
        batch = system.corrupt(batch, context)
        outputs = system.model.apply({"params": params}, batch, train=True, rngs=RNGS)
        return {k: average(x) for k, x in system.loss(outputs, batch, context).items()}

    return config, system, params, losses


RNGS = {"dropout": jax.random.key(0)}


def corrupted(system, batch, key=0):
    rng = jax.random.split(jax.random.key(key), len(batch["text"]))
    return jax.device_get(jax.jit(system.corrupt)(batch, Context(np.int32(0), rng, None, {})))


def test_each_row_has_the_losses_of_what_it_has(flava):
    """A batch of rows of one kind has only its own losses."""
    config, _, _, losses = flava
    batch = toy.batch(config)
    for image, text in ((True, False), (False, True), (True, True)):
        batch["image_present"] = np.full(8, image)
        batch["text_present"] = np.full(8, text)
        found = losses(batch)
        has = {name for name, (_, rows) in found.items() if name in ROWS and rows}
        assert has == {name for name, kind in ROWS.items() if kind == (image, text)}


def test_what_a_row_lacks_changes_nothing(flava):
    """Noise in a missing image, its codebook's image and a missing text."""
    config, system, params, losses = flava
    batch = toy.batch(config)
    other = toy.batch(config, seed=1)
    for name in ("image", "image_codebook", "text", "text_mask"):
        there = batch[f"{name.split('_')[0]}_present"].reshape(-1, *(1,) * (other[name].ndim - 1))
        other[name] = np.where(there, batch[name], other[name])
    for name in ("example_id", "image_present", "text_present"):
        other[name] = batch[name]
    assert any((other[name] != batch[name]).any() for name in ("image", "text"))
    jax.tree.map(np.testing.assert_array_equal, losses(batch), losses(other))


def test_multimodal_features_are_of_what_is_present(flava):
    """Noise in what is missing does not change them, and in what is present it does."""
    config, system, params, _ = flava
    batch, noise = toy.batch(config), toy.batch(config, seed=1)
    apply = jax.jit(lambda b: system.model.apply({"params": params}, b)["multimodal_features"])
    found = apply(batch)
    for name in ("image", "text"):
        lacks = ~batch[f"{name}_present"]
        keys = [name, "text_mask"] if name == "text" else [name]
        changed = batch | {key: noise[key] for key in keys}
        np.testing.assert_array_equal(apply(changed)[lacks], found[lacks])
        assert (np.abs(apply(changed) - found).max(1)[~lacks] > 0).all()


def test_masks_and_texts_that_do_not_match(flava):
    config, system, _, _ = flava
    batch = toy.batch(config)
    pairs = batch["image_present"] & batch["text_present"]
    seen = 0
    for key in range(8):
        made = corrupted(system, batch, key)
        assert (made["image_masked"].sum(1) <= 2).all() and made["image_masked"].any()
        kept = np.where(made["text_masked"], 0, made["text_corrupted"])
        for i in range(8):
            (texts,) = np.nonzero(
                (kept[i] == np.where(made["text_masked"][i], 0, batch["text"])).all(1)
                & (made["text_corrupted_mask"][i] == batch["text_mask"]).all(1)
            )
            if made["text_matched"][i]:
                assert i in texts
            else:  # another pair's
                assert pairs[i] and i not in texts and pairs[texts].any()
                seen += 1
        end = np.asarray(end_position(made["text_corrupted_mask"]))
        special = np.stack([np.zeros(8, int), end], 1)
        assert not np.take_along_axis(made["text_masked"], special, 1).any()
        assert (made["text"] == batch["text"]).all()
    assert 4 * 8 * 0.5 * 0.4 < seen < 4 * 8 * 0.5 * 1.6


def test_equal_texts_match(flava):
    config, system, _, _ = flava
    batch = toy.batch(config)
    for name in ("text", "text_mask"):
        batch[name] = np.repeat(batch[name][:1], 8, axis=0)
    assert all(corrupted(system, batch, key)["text_matched"].all() for key in range(4))


def test_other_pairs_are_equally_likely_and_never_the_row_itself():
    pairs = np.array([1, 0, 1, 1, 0, 1], bool)
    draws = np.broadcast_to(np.arange(300, dtype=np.float32)[:, None] / 300, (300, 6))
    found = np.asarray(jax.vmap(lambda x: other_pairs(pairs, x))(draws))
    for i in np.flatnonzero(pairs):
        others, counts = np.unique(found[:, i], return_counts=True)
        assert others.tolist() == [j for j in np.flatnonzero(pairs) if j != i]
        assert (counts == 100).all()
    np.testing.assert_array_equal(found[:, ~pairs], np.broadcast_to([1, 4], (300, 2)))
    alone = np.array([0, 1, 0], bool)
    np.testing.assert_array_equal(other_pairs(alone, np.full(3, 0.9, np.float32)), range(3))


def test_a_batch_without_a_masked_token_has_no_loss_of_words(flava):
    """Texts of their two special tokens: handled, the other losses stay finite."""
    config, system, params, losses = flava
    batch = toy.batch(config)
    batch["text_mask"] = np.arange(8)[None] < np.full((8, 1), 2)
    found = losses(batch)
    assert not found["mlm"][1] and not found["mmm_text"][1]
    assert all(np.isfinite(x) for x, _ in found.values())


def test_a_batch_no_row_of_which_has_a_weighted_loss_is_refused(flava):
    config, _, _, _ = flava
    with config.unlocked():
        only = configs.load("configs/flava_emoji.py", ())
    with only.unlocked():
        only.loss_weights = {"matching": 1.0}
    check = make_system(toy.shrink(only)).check_batch
    batch = toy.batch(config)
    check(batch)
    check({k: x for k, x in batch.items() if not k.endswith("_present")})
    with pytest.raises(ValueError, match="A batch of one has no other pair"):
        check({name: x[:1] for name, x in batch.items()})
    batch["text_present"] = np.zeros(8, bool)
    with pytest.raises(
        ValueError, match=r"has 6 images alone, 0 texts alone and 0 pairs, and none"
    ):
        check(batch)


def test_probabilities_that_are_none_are_refused():
    with pytest.raises(ValueError, match="mask_text is 0.0: it is above 0 and below 1"):
        Settings(mask_text=0.0)
    with pytest.raises(ValueError, match="matching_negatives is 1.5: use 0 to 1"):
        Settings(matching_negatives=1.5)
    config = toy.shrink(configs.load("configs/flava_emoji.py", ()))
    for patches in ({"mask_patches": 0}, {"mask_patches": 4}, {"mask_patches_min": 3}):
        with config.unlocked():
            config.loss.update(mask_patches=2, mask_patches_min=1)
            config.loss.update(patches)
        with pytest.raises(
            ValueError, match="config.loss.mask_patches is . and .* of 4 patches in"
        ):
            make_system(config)


def test_the_codes_of_the_random_quantizer():
    """The nearest of the unit codes, for patches of pixels in [-1, 1]; nothing is trained."""
    model = RandomQuantizer(patch_size=4, image_size=(8, 12), vocab_size=30, width=5)
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    params = model.init(jax.random.key(0), {"image": image})["params"]
    params = jax.tree.map(np.asarray, {k: x.value for k, x in params.items()})
    found = model.apply({"params": params}, {"image": image})["image_codes"]
    x = np.asarray(patchify(image / np.float32(127.5) - 1, 4)) @ params["projection"]
    codes = params["codes"] / np.linalg.norm(params["codes"], axis=1, keepdims=True)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    distance = ((x[..., None, :] - codes) ** 2).sum(-1)
    np.testing.assert_array_equal(found, distance.argmin(-1))
    assert found.shape == (3, 2, 3) and len(np.unique(found)) > 5


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"text.mask_id": 64}, "mask_id is 64, and vocab_size 64"),
        ({"text.width": 24}, "need encoders of one width"),
        ({"codebook.vocab_size": 9}, "codebook has 9 ids and config.model.codebook_size is 10"),
        ({"codebook.patch_size": 4}, r"\(2, 2\) patches and the codebook gives \(4, 4\) ids"),
        ({"codebook.kind": "dall"}, "config.model.codebook.kind is 'dall'; use one of"),
        ({"image.mask_token": False}, "image.mask_token is False, and a FLAVA needs True"),
        ({"image.pool": "mean"}, "config.model.image.pool is 'mean', and a FLAVA needs 'all'"),
        ({"multimodal.layers": 2}, "config.model.multimodal.layers is not a setting"),
    ],
)
def test_parts_that_do_not_fit_are_refused(flava, settings, problem):
    config = flava[0].copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        for path, value in settings.items():
            part, name = path.split(".")
            config.model[part][name] = value
    with pytest.raises(ValueError, match=problem):
        make_system(config)


@pytest.mark.parametrize(
    ("heads", "missing"), [(False, set(ROWS) - {"contrastive"}), (True, {"mim", "mmm_image"})]
)
def test_without_a_part_its_losses_are_left_out(flava, heads, missing):
    config = flava[0].copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        config.model.codebook, config.model.heads = None, heads
    system = make_system(config)
    assert "image_codebook" not in system.spec

    def losses(batch):
        context = evaluation_context(batch, np.int32(0), {})
        if system.corrupt is not None:
            batch = system.corrupt(batch, context)
        outputs, _ = system.model.init_with_output(RNGS | {"params": jax.random.key(0)}, batch)
        return system.loss(outputs, batch, context)

    assert set(ROWS) - set(jax.eval_shape(losses, toy.batch(config))) == missing
