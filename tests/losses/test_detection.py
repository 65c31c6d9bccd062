"""The losses of detection beside scipy's assignment and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mmjax.detection.boxes import overlaps
from mmjax.losses.detection import assign, box_overlap, detection_loss, matching_cost
from mmjax.losses.focal import focal


def random_boxes(rng, *shape):
    low, high = np.sort(rng.random((2, *shape, 2)).astype(np.float32), axis=0)
    return np.concatenate([low, high], axis=-1)


def slow_giou(a, b):
    """Of two boxes, by the definition, in float64."""
    a, b = np.float64(a), np.float64(b)
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return w * h / union, w * h / union - (hull - union) / hull


def test_giou_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 40), random_boxes(rng, 40)
    b[:5] = a[:5]  # the same
    b[5:8] = a[5:8] + 2  # apart
    b[8] = [*a[8, :2], *a[8, :2]]  # empty
    want = np.asarray([slow_giou(*pair) for pair in zip(a, b, strict=True)])
    np.testing.assert_allclose(np.stack(box_overlap(a, b), -1), want, rtol=0, atol=1e-5)
    pairwise = np.stack(overlaps(a, b), -1)
    np.testing.assert_allclose(pairwise[np.arange(40), np.arange(40)], want, rtol=0, atol=1e-5)


def test_degenerate_boxes_have_finite_overlaps_and_gradients():
    point, line = [0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.6]
    box, far = [0.1, 0.1, 0.5, 0.5], [0.7, 0.7, 0.9, 0.9]
    pairs = [(box, box), (box, far), (point, box), (box, point), (point, point), (line, line)]
    pairs += [(point, [0.7] * 4), (box, [0.0] * 4), (box, [0.5, 0.1, 0.9, 0.5])]
    a, b = (jnp.asarray(x, jnp.float32) for x in zip(*pairs, strict=True))
    (value, (iou, giou)), gradient = jax.value_and_grad(
        lambda a: ((found := box_overlap(a, b))[1].sum(), found), has_aux=True
    )(a)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(iou, [1] + [0] * 8, atol=1e-6)
    assert (np.asarray(giou) >= -1).all() and giou[1] < 0 and giou[6] == -1


@pytest.mark.parametrize("kind", ["random", "ties", "constant", "large"])
def test_assignment_is_the_cheapest_for_any_number_of_boxes(kind):
    rng = np.random.default_rng(1)
    cost = rng.normal(size=(6, 13, 5)).astype(np.float32)
    if kind == "ties":
        cost = rng.integers(0, 3, cost.shape).astype(np.float32)
    elif kind == "constant":
        cost = np.full_like(cost, 2)
    elif kind == "large":
        cost *= 1e6
    valid = np.arange(5)[None] < np.asarray([0, 1, 2, 3, 4, 5])[:, None]
    valid[3] = [True, False, True, False, True]  # padding between boxes
    found = np.asarray(jax.jit(assign)(cost, valid))
    for matrix, mask, tokens in zip(cost, valid, found, strict=True):
        assert len(set(tokens.tolist())) == 5
        rows, columns = linear_sum_assignment(matrix[:, mask])
        cheapest = np.float64(matrix[:, mask])[rows, columns].sum()
        total = np.float64(matrix)[tokens[mask], np.flatnonzero(mask)].sum()
        np.testing.assert_allclose(total, cheapest, rtol=1e-6)


def test_more_slots_than_predictions_are_refused():
    with pytest.raises(ValueError, match="3 slots for boxes and the model predicts 2: set config"):
        assign(np.zeros((1, 2, 3), np.float32), np.ones((1, 3), bool))


def slow_losses(logits, predicted, boxes, label, mask, queries, alpha, gamma):
    """Of one image, by loops over predictions and queries, in float64."""
    p = 1 / (1 + np.exp(-np.float64(logits)))
    n = np.flatnonzero(mask)
    cost = np.zeros((len(p), len(n)))
    pos = -alpha * (1 - p) ** gamma * np.log(p)
    neg = -(1 - alpha) * p**gamma * np.log(1 - p)
    for i in range(len(p)):
        for k, j in enumerate(n):
            q = label[j]
            cost[i, k] = pos[i, q] - neg[i, q] + np.abs(predicted[i] - boxes[j]).sum()
            cost[i, k] -= slow_giou(predicted[i], boxes[j])[1]
    rows, columns = linear_sum_assignment(cost)
    total, l1, giou = 0.0, 0.0, 0.0
    box_of = dict(zip(rows, n[columns], strict=True))
    for i in range(len(p)):
        for q in np.flatnonzero(queries):
            total += pos[i, q] if i in box_of and label[box_of[i]] == q else neg[i, q]
    for i, j in box_of.items():
        l1 += np.abs(predicted[i] - boxes[j]).sum()
        giou += 1 - slow_giou(predicted[i], boxes[j])[1]
    return np.asarray([total, l1, giou]) / max(1, len(n))


def example(rng, batch=4, predictions=9, queries=4, slots=3):
    logits = rng.normal(size=(batch, predictions, queries)).astype(np.float32)
    query_mask = np.ones((batch, queries), bool)
    query_mask[1, 3] = False
    logits[1, :, 3] = np.finfo(np.float32).min  # as of padding queries
    mask = np.arange(slots)[None] < np.asarray([3, 2, 0, 1])[:, None]
    label = np.where(mask, rng.integers(0, 3, (batch, slots)), -1).astype(np.int32)
    boxes = np.where(mask[..., None], random_boxes(rng, batch, slots), 0).astype(np.float32)
    return logits, random_boxes(rng, batch, predictions), boxes, label, mask, query_mask


def test_losses_are_those_of_loops_with_padding_and_without_boxes():
    given = example(np.random.default_rng(2))
    found = jax.jit(detection_loss)(*given)
    with np.errstate(divide="ignore", invalid="ignore"):
        want = [slow_losses(*(x[i] for x in given), 0.3, 2.0) for i in range(4)]
    ours = np.stack([found[k] for k in ("focal", "box_l1", "box_giou")], -1)
    np.testing.assert_allclose(ours, want, rtol=1e-5)
    assert found["focal"][2] > 0 and found["box_l1"][2] == 0 == found["box_giou"][2]


def test_words_are_positives_of_the_regions_that_their_phrase_describes():
    rng = np.random.default_rng(4)
    logits, predicted, boxes, label, mask, queries = example(rng)
    words = rng.normal(size=(4, 9, 4, 5)).astype(np.float32)
    counted = queries[..., None] & (np.arange(5)[None, None] < rng.integers(1, 6, (4, 4, 1)))
    given = (logits, predicted, boxes, label, mask, queries, None, 0.3, 2.0, words, counted)
    found = jax.jit(lambda *x: detection_loss(*x, None, 0.3, 2.0, words, counted))(*given[:6])
    assert found.keys() - detection_loss(*given[:6]).keys() == {"region_words"}
    cost = matching_cost(logits, predicted, boxes, label, 0.3, 2.0)
    token, total = np.asarray(assign(cost, mask)), np.zeros(4)
    for b, p, q, k in np.ndindex(words.shape):
        if counted[b, q, k]:
            described = any(mask[b, n] and token[b, n] == p and label[b, n] == q for n in range(3))
            s = 1 / (1 + np.exp(-np.float64(words[b, p, q, k])))
            positive, negative = -0.3 * (1 - s) ** 2 * np.log(s), -0.7 * s**2 * np.log(1 - s)
            total[b] += positive if described else negative
    np.testing.assert_allclose(found["region_words"], total / np.maximum(mask.sum(1), 1), rtol=1e-5)
    # Of a word that does not count there is no gradient.
    slope = jax.grad(lambda w: detection_loss(*given[:9], w, counted)["region_words"].sum())(words)
    shown = np.broadcast_to(counted[:, None], words.shape)
    assert (np.asarray(slope)[~shown] == 0).all() and (np.asarray(slope)[shown] != 0).all()


def test_gradients_are_finite_and_pull_boxes_to_their_targets():
    logits, predicted, boxes, label, mask, queries = example(np.random.default_rng(3))

    def loss(logits, predicted):
        found = detection_loss(logits, predicted, boxes, label, mask, queries, logits[..., 0])
        return sum(found[k].sum() for k in ("focal", "box_l1", "box_giou", "objectness"))

    grads = jax.grad(loss, (0, 1))(jnp.asarray(logits), jnp.asarray(predicted))
    assert all(np.isfinite(x).all() for x in grads)
    assert (grads[0][1, :, 3] == 0).all()  # padding
    moved = jnp.asarray(predicted) - 1e-3 * grads[1]
    assert loss(jnp.asarray(logits), moved) < loss(jnp.asarray(logits), jnp.asarray(predicted))


def test_focal_loss_without_focus_is_the_cross_entropy():
    logits = np.linspace(-5, 5, 11, dtype=np.float32)
    positive, negative = focal(logits, 0.5, 0.0)
    np.testing.assert_allclose(positive * 2, np.log1p(np.exp(-logits)), rtol=1e-5)
    np.testing.assert_allclose(negative * 2, np.log1p(np.exp(logits)), rtol=1e-5)


def test_matching_prefers_the_box_and_the_label():
    boxes = np.asarray([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]], np.float32)
    logits = np.asarray([[[4, -4], [-4, 4]]], np.float32)
    cost = matching_cost(logits, boxes[:, ::-1], boxes, np.asarray([[1, 0]], np.int32), 0.3, 2.0)
    assert assign(cost, np.ones((1, 2), bool)).tolist() == [[1, 0]]
