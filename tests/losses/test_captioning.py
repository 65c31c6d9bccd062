import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.captioning import captioning_loss, check_supervised
from mmjax.system import average

B, L, V = 3, 5, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, L, V)).astype(np.float32)
TEXT = RNG.integers(0, V, (B, L)).astype(np.int32)
MASK = np.arange(L)[None] < np.asarray([5, 1, 3])[:, None]


def slow_loss(batch, smoothing):
    """Every token alone; the sum of each text, and how many tokens it has."""
    mask = batch.get("text_loss_mask", batch["text_mask"])
    present = batch.get("text_present", np.ones(B, bool))
    sums, count = np.zeros(B), np.zeros(B)
    for b in range(B):
        for i in range(1, L):
            if not (mask[b, i] and present[b]):
                continue
            x = LOGITS[b, i - 1].astype(np.float64)
            log_p = x - np.log(np.exp(x).sum())
            target = np.full(V, smoothing / V)
            target[TEXT[b, i]] += 1 - smoothing
            sums[b] -= (target * log_p).sum()
            count[b] += 1
    return sums, count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"text_loss_mask": np.roll(MASK, 1, axis=1) & MASK},
        {"text_present": np.asarray([False, True, True])},
    ],
)
def test_the_loss_is_that_of_the_loops(more, smoothing):
    batch = {"text": TEXT, "text_mask": MASK, **more}
    sums, count = slow_loss(batch, smoothing)
    found = captioning_loss(LOGITS, batch, smoothing)["captioning"]
    np.testing.assert_array_equal(found.weight, count)
    np.testing.assert_allclose(found.value, sums / np.maximum(count, 1), rtol=1e-5)
    np.testing.assert_allclose(average(found)[0], sums.sum() / count.sum(), rtol=1e-5)


def test_accuracy_counts_supervised_tokens_alone():
    right = jnp.asarray(10.0 * np.eye(V)[np.roll(TEXT, -1, axis=1)], jnp.float32)
    right = right.at[0, 0].set(-right[0, 0])  # one of the 6 is wrong
    found = captioning_loss(right, {"text": TEXT, "text_mask": MASK})
    np.testing.assert_allclose(average(found["token_accuracy"])[0], 5 / 6, rtol=1e-6)
    np.testing.assert_allclose(found["token_accuracy"].value, [3 / 4, 0, 1], rtol=1e-6)


def test_no_supervised_token_is_an_error_and_never_a_loss_of_0():
    batch = {"text": TEXT, "text_mask": np.arange(L)[None] < np.ones((B, 1), int)}
    with pytest.raises(ValueError, match="No token of the batch is supervised"):
        check_supervised(batch)
    value, has = average(captioning_loss(LOGITS, batch)["captioning"])
    assert has and np.isnan(value)
    check_supervised({"text": TEXT, "text_mask": MASK})


def test_a_batch_without_any_text_is_no_error_and_has_no_loss():
    batch = {"text": TEXT, "text_mask": MASK, "text_present": np.zeros(B, bool)}
    check_supervised(batch)
    for term in captioning_loss(LOGITS, batch).values():
        assert average(term) == (0.0, False)


def test_what_is_masked_has_no_gradient():
    batch = {"text": TEXT, "text_mask": MASK}
    grad = jax.grad(lambda x: average(captioning_loss(x, batch)["captioning"])[0])(LOGITS)
    np.testing.assert_array_equal(np.abs(grad).max(-1)[:, :-1] > 0, MASK[:, 1:])
