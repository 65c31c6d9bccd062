"""SAM's interactive training: clicks, boxes, rounds; parity of the model is in tests/weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from drawn import drawn

from mmjax import config as configs
from mmjax.models import sam, sam_clicks
from mmjax.models.systems import make_system
from mmjax.system import Context, row_keys
from mmjax.variables import abstract_variables

RNG = np.random.default_rng(0)


def test_a_uniform_click_is_on_each_pixel_as_often():
    region = RNG.random((5, 7)) < 0.3
    n = int(region.sum())
    draws = ((np.arange(4 * n) + 0.5) / (4 * n)).astype(np.float32)
    many = np.broadcast_to(region, (4 * n, 5, 7))
    rows, columns, there = sam_clicks.uniform_click(jnp.asarray(many), jnp.asarray(draws))
    assert there.all()
    counts = np.zeros((5, 7), int)
    np.add.at(counts, (rows, columns), 1)
    np.testing.assert_array_equal(counts, 4 * region)
    last = sam_clicks.uniform_click(jnp.asarray(region), jnp.float32(1.0 - 2**-24))
    assert region[last[0], last[1]]
    assert not sam_clicks.uniform_click(jnp.zeros((5, 7), bool), jnp.float32(0.5))[2]


def slow_depth(region):
    """King's moves to the nearest pixel outside, of each pixel."""
    height, width = region.shape
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    at = np.argwhere(np.ones_like(region)) + 1
    depth = np.abs(at[:, None] - outside).max(-1).min(-1).reshape(height, width)
    return np.where(region, depth, 0)


def test_a_central_click_is_farthest_from_the_border():
    regions = RNG.random((6, 9, 8)) < 0.85
    regions[0] = True
    regions[1] = False
    rows, columns, there = sam_clicks.central_click(jnp.asarray(regions))
    np.testing.assert_array_equal(there, regions.any((1, 2)))
    for region, row, column in zip(
        regions[[0, 2, 3, 4, 5]], *(x[jnp.asarray([0, 2, 3, 4, 5])] for x in (rows, columns))
    ):
        depth = slow_depth(region)
        assert depth[row, column] == depth.max() > 0
        ties = np.argwhere(depth == depth.max())
        apart = ((ties - ties.mean(0)) ** 2).sum(1)
        here = ((np.asarray([row, column]) - ties.mean(0)) ** 2).sum()
        np.testing.assert_allclose(here, apart.min(), atol=1e-4)


def test_an_error_click_says_which_kind_of_error_it_is():
    target = jnp.zeros((2, 4, 4), bool).at[:, 1, 2].set(True)
    logits = jnp.full((2, 4, 4), -1.0).at[1, 1, 2].set(1.0).at[1, 3, 0].set(1.0)
    at, label, wrong = sam_clicks.error_click(logits, target, sam_clicks.central_click)
    np.testing.assert_allclose(at, [[2.5 / 4, 1.5 / 4], [0.5 / 4, 3.5 / 4]])
    np.testing.assert_array_equal(label, [1, 0])
    right = jnp.where(target, 1.0, -1.0)
    assert (
        wrong.all() and not sam_clicks.error_click(right, target, sam_clicks.central_click)[2].any()
    )


def test_noise_of_boxes_is_a_tenth_of_their_sides_and_at_most_20_pixels():
    boxes = jnp.asarray([[[0.25, 0.25, 0.5, 0.75]]])
    noise = jnp.asarray([[[1.0, -1.0, 50.0, 2.0]]])
    found = sam_clicks.noisy_boxes(boxes, noise, 100)
    np.testing.assert_allclose(found[0, 0], [0.275, 0.2, 0.7, 0.85], atol=1e-6)


def test_masks_are_pooled_by_half():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :2, :1] = masks[0, 2, 2] = True
    np.testing.assert_array_equal(sam_clicks.shrink(masks, 2)[0], [[True, False], [False, False]])
    with pytest.raises(ValueError, match="4x4, which is no multiple of 3x3"):
        sam_clicks.shrink(masks, 3)


@pytest.fixture(scope="module")
def trained():
    """The system, its variables, a batch as training sees it, and the outputs for it."""
    config = toy.shrink(configs.load("configs/sam_boards.py", ()))
    system = make_system(config)
    variables = drawn(abstract_variables(system.model, system.spec), scale=0.3)
    batch = toy.batch(config)
    context = Context(jnp.int32(0), row_keys(jax.random.key(3), jnp.arange(8)), None, {})
    corrupted = system.corrupt(batch, context)
    outputs = jax.jit(system.model.apply)(variables, corrupted)
    return system, variables, corrupted, outputs


def test_a_round_of_training_is_a_call_with_its_prompts(trained):
    """The first two rounds, rebuilt from the model's own outputs by its public prompts."""
    system, variables, batch, outputs = trained
    pixels, apply = 16, jax.jit(system.model.apply)
    assert outputs["refined_logits"].shape == (8, 2, 4, 16, 16)
    target = np.asarray(sam_clicks.shrink(batch["masks"], 16))
    image = {k: batch[k] for k in ("image", "image_size")}
    embedding = apply(variables, image)["image_embedding"]
    is_box = np.asarray(batch["draw_box"])
    assert is_box.any() and not is_box.all()
    row, column, _ = sam_clicks.uniform_click(target, batch["draw_pixels"][..., 0])
    first = np.stack([column, row], -1)[:, :, None] / 16 + (0.5 / 16 - 0.5 / pixels)
    ones = np.ones((8, 2, 1), np.int32)
    boxes = sam_clicks.noisy_boxes(batch["boxes"], batch["draw_noise"], pixels)
    by_point = {"prompt_points": first.astype(np.float32), "prompt_labels": ones}
    by_box = {"prompt_boxes": boxes}
    calls = [apply(variables, {"image_embedding": embedding, **x}) for x in (by_point, by_box)]
    want = np.where(
        is_box[:, :, None, None, None], calls[1]["mask_logits"], calls[0]["mask_logits"]
    )
    np.testing.assert_allclose(outputs["mask_logits"], want, rtol=1e-4, atol=1e-5)

    best = np.asarray(sam._best(outputs["mask_logits"], outputs["iou"]))
    wrong = (best > 0) ^ target
    row, column, any_ = sam_clicks.uniform_click(jnp.asarray(wrong), batch["draw_pixels"][..., 1])
    label = np.take_along_axis(
        target.reshape(8, 2, -1), np.asarray(row * 16 + column)[..., None], -1
    )
    new = np.stack([column, row], -1)[:, :, None] / 16 + (0.5 / 16 - 0.5 / pixels)
    clicked = (np.asarray(batch["draw_pause"]) != 1)[:, None] & np.asarray(any_)
    assert clicked.any() and not clicked.all()
    refined = {"image_embedding": embedding, "prompt_masks": best}

    def call(points, labels, boxes):
        given = {
            "prompt_points": points.astype(np.float32),
            "prompt_labels": labels.astype(np.int32),
        }
        given |= {"prompt_boxes": boxes} if boxes is not None else {}
        return np.asarray(apply(variables, {**refined, **given})["mask_logits"][:, :, 0])

    both, kinds = np.concatenate([first, new], 2), np.concatenate([ones, label], 2)
    none = np.zeros((8, 2, 0, 2)), np.zeros((8, 2, 0))
    found = np.asarray(outputs["refined_logits"][:, :, 0])
    for which, given in (
        (clicked & ~is_box, (both, kinds, None)),
        (~clicked & is_box, (*none, boxes)),
    ):
        assert which.any()
        np.testing.assert_allclose(found[which], call(*given)[which], rtol=1e-4, atol=2e-5)


def test_objects_that_are_missing_do_not_count(trained):
    system, _, batch, outputs = trained
    terms = system.loss(outputs, batch, None)
    np.testing.assert_array_equal(terms["mask"].weight, batch["boxes_mask"].sum(1))
    other = {**batch, "masks": batch["masks"] ^ ~batch["boxes_mask"][:, :, None, None]}
    again = system.loss(outputs, other, None)
    for name in terms:
        np.testing.assert_allclose(again[name].value, terms[name].value, rtol=1e-6)


def test_the_pause_is_any_round_but_the_last():
    batch = {"masks": np.zeros((500, 1, 16, 16), bool)}
    keys = row_keys(jax.random.key(0), jnp.arange(500))
    found = sam.draw_prompts(batch, Context(jnp.int32(0), keys, None, {}), rounds=10)
    assert set(np.asarray(found["draw_pause"]).tolist()) == set(range(1, 10))
    assert abs(float(found["draw_box"].mean()) - 0.5) < 0.1


def test_an_empty_box_is_refused():
    batch = {"boxes": np.asarray([[[0.5, 0.5, 0.5, 0.7]]]), "boxes_mask": np.ones((1, 1), bool)}
    with pytest.raises(
        ValueError, match=r"Object 0 of row 0 .* the empty box \[0.5, 0.5, 0.5, 0.7\]"
    ):
        sam.check_objects(batch)
    sam.check_objects({**batch, "boxes_mask": np.zeros((1, 1), bool)})


@pytest.mark.parametrize(
    ("section", "changed", "message"),
    [
        ("image", {"global_blocks": (2,)}, "names block 2, .* the blocks 0 to 1"),
        ("image", {"image_size": 18}, "18x18 is not a multiple of patch_size 4"),
        ("image", {"image_size": (16, 16)}, r"image_size"),
        ("decoder", {"mask": 3}, "config.model.decoder.mask is not a setting"),
        (None, {"clicks": -1}, "clicks -1"),
    ],
)
def test_wrong_settings_are_refused(section, changed, message):
    config = toy.shrink(configs.load("configs/sam_boards.py", ()))
    with config.unlocked(), config.ignore_type():
        (config.model[section] if section else config.model).update(changed)
    with pytest.raises(ValueError, match=message):
        make_system(config)
