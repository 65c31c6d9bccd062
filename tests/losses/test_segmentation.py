"""Losses of masks beside slow references, pixel by pixel in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.losses.segmentation import ambiguous_mask_loss, dice_loss, focal_loss, mask_iou

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (2, 3, 4, 5)).astype(np.float32)
TARGET = RNG.random((2, 3, 4, 5)) < 0.4
GIVEN = jnp.asarray(LOGITS), jnp.asarray(TARGET)


def each(function, *arrays):
    return np.asarray([[function(*x) for x in zip(*row)] for row in zip(*arrays)])


def slow_focal(logits, target):
    total = 0.0
    for x, t in zip(logits.ravel().astype(np.float64), target.ravel()):
        p = 1 / (1 + np.exp(-x))
        total += -(0.25 * (1 - p) ** 2 * np.log(p) if t else 0.75 * p**2 * np.log(1 - p))
    return total / logits.size


def slow_dice(logits, target):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return 1 - (2 * p[target].sum() + 1) / (p.sum() + target.sum() + 1)


def slow_iou(mask, target):
    either = sum(a or b for a, b in zip(mask.ravel(), target.ravel()))
    return sum(a and b for a, b in zip(mask.ravel(), target.ravel())) / max(either, 1)


def test_losses_are_those_of_the_slow_references():
    np.testing.assert_allclose(focal_loss(*GIVEN), each(slow_focal, LOGITS, TARGET), 1e-5)
    np.testing.assert_allclose(dice_loss(*GIVEN), each(slow_dice, LOGITS, TARGET), 1e-5)
    found = mask_iou(GIVEN[0] > 0, GIVEN[1])
    np.testing.assert_allclose(found, each(slow_iou, LOGITS > 0, TARGET), 1e-6)
    assert float(mask_iou(jnp.zeros((4, 5), bool), jnp.zeros((4, 5), bool))) == 0


def test_only_the_best_mask_has_a_gradient():
    target, iou = TARGET[:, 0], RNG.random((2, 3)).astype(np.float32)
    given = jnp.asarray(iou), jnp.asarray(target)

    def total(logits):
        mask, error, _ = ambiguous_mask_loss(logits, *given)
        return mask.sum() + error.sum()

    mask, error, chosen = ambiguous_mask_loss(GIVEN[0], *given)
    gradient = np.asarray(jax.grad(total)(GIVEN[0]))
    for row in range(2):
        losses = [20 * slow_focal(x, target[row]) + slow_dice(x, target[row]) for x in LOGITS[row]]
        actual = [slow_iou(x > 0, target[row]) for x in LOGITS[row]]
        np.testing.assert_allclose(mask[row], min(losses), rtol=1e-5)
        np.testing.assert_allclose(error[row], np.mean((iou[row] - actual) ** 2), rtol=1e-5)
        np.testing.assert_allclose(chosen[row], actual[iou[row].argmax()], rtol=1e-6)
        moved = np.abs(gradient[row]).sum((1, 2)) > 0
        np.testing.assert_array_equal(moved, np.arange(3) == np.argmin(losses))
