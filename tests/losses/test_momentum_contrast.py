"""The contrast with a queue against loops in float64: dense, in chunks, on one device and eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax import sharding
from mmjax.losses.momentum_contrast import batch_keys, empty_queue, momentum_contrast, push

ROWS, SIZE, DIM = 8, 13, 5


def unit(rng, rows):
    x = rng.normal(size=(rows, DIM)).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def case(seed=0, ids=True):
    """Student, teacher and queue, with an incomplete pair, empty slots and equal ids."""
    rng = np.random.default_rng(seed)
    student = {k: unit(rng, ROWS) for k in ("image", "text")}
    teacher = {k: unit(rng, ROWS) for k in ("image", "text")}
    queue = {k: unit(rng, SIZE) for k in ("image", "text")}
    some = {"valid": np.arange(ROWS) != 3}
    if ids:
        some |= {"image_id": np.arange(ROWS, dtype=np.int32)}
        some |= {"text_id": np.array([0, 1, 0, 3, 4, 5, 6, 7], np.int32)}
    teacher = batch_keys(**teacher, **some)
    queue |= {
        "image_id": np.array([5, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31], np.int32),
        "text_id": np.array([90, 1, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101], np.int32),
        "valid": np.arange(SIZE) < 11,
    }
    return student, teacher, {k: jnp.asarray(x) for k, x in queue.items()}


def slow(student, teacher, queue, scale, alpha):
    """Loops over queries; the softmax over a list of the keys that count."""
    found = np.zeros(ROWS)
    for query, key in (("image", "text"), ("text", "image")):
        for i in range(ROWS):
            keys, mine = [np.asarray(teacher[key][i], np.float64)], []
            for part, own in ((teacher, True), (queue, False)):
                for j in range(len(part["valid"])):
                    same = any(part[n][j] == teacher[n][i] for n in ("image_id", "text_id"))
                    if part["valid"][j] and not same and not (own and i == j):
                        keys.append(np.asarray(part[key][j], np.float64))
            mine = scale * np.array([k @ student[query][i] for k in keys])
            theirs = scale * np.array([k @ np.asarray(teacher[query][i]) for k in keys])
            target = alpha * np.exp(theirs) / np.exp(theirs).sum()
            target[0] += 1 - alpha
            found[i] += np.sum(target * (np.log(np.exp(mine).sum()) - mine)) / 2
    return found


@pytest.mark.parametrize("chunk_size", [0, 4, 13])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_losses_are_those_of_loops(alpha, chunk_size):
    student, teacher, queue = case()
    got, metrics = momentum_contrast(
        student, teacher, queue, jnp.float32(7.0), alpha, chunk_size=chunk_size
    )
    want = slow(student, teacher, queue, 7.0, alpha)
    kept = np.asarray(teacher["valid"])
    np.testing.assert_allclose(got[kept], want[kept], rtol=1e-5, atol=1e-5)
    assert set(metrics) == {"image_to_text_accuracy", "text_to_image_accuracy"}


def test_without_a_queue_a_teacher_and_ids_it_is_clip_s_loss():
    from mmjax.losses.contrastive import contrastive_loss

    student, _, queue = case()
    teacher = batch_keys(**student)
    want, accuracy = contrastive_loss(student["image"], student["text"], jnp.float32(9.0))
    empty = empty_queue(4, DIM)
    for given in (None, empty):
        got, metrics = momentum_contrast(student, teacher, given, jnp.float32(9.0), 0.0)
        np.testing.assert_allclose(got, want, rtol=1e-5)
        for name, values in metrics.items():
            np.testing.assert_array_equal(values, accuracy[name])


def gradients(student, teacher, queue, chunk_size):
    def mean(student, scale, teacher):
        losses, _ = momentum_contrast(student, teacher, queue, scale, 0.4, chunk_size)
        return losses.mean(where=teacher["valid"])

    floats = {k: teacher[k] for k in ("image", "text")}
    wrt = lambda s, scale, f: mean(s, scale, {**teacher, **f})  # noqa: E731
    return jax.jit(jax.grad(wrt, (0, 1, 2)))(student, jnp.float32(7.0), floats)


def test_gradients_of_chunks_and_of_eight_devices_are_the_dense_ones():
    student, teacher, queue = case()
    dense = gradients(student, teacher, queue, 0)
    by_student, by_scale, by_teacher = dense
    assert not any(np.any(x) for x in by_teacher.values()) and np.isfinite(by_scale)

    # The closed form: scale * (softmax - target) times the keys, here by finite differences.
    for name, place in (("image", (2, 1)), ("text", (6, 4))):
        shift = np.zeros_like(student[name])
        shift[place] = 1e-2
        pair = [
            slow({**student, name: student[name] + s * shift}, teacher, queue, 7.0, 0.4)
            for s in (1, -1)
        ]
        kept = np.asarray(teacher["valid"])
        slope = (pair[0][kept].mean() - pair[1][kept].mean()) / 2e-2
        np.testing.assert_allclose(by_student[name][place], slope, rtol=2e-3, atol=1e-4)

    mesh = sharding.make_mesh()
    rows = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        split = jax.device_put((student, teacher), rows)
        for chunk_size in (0, 4):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                gradients(*split, queue, chunk_size),
                dense,
            )
    alone = gradients(student, teacher, queue, 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone, dense)


def test_a_queue_keeps_the_newest():
    queue = empty_queue(5, 2)
    for start in (0, 3, 6):
        new = np.repeat(np.arange(start, start + 3, dtype=np.float32)[:, None], 2, 1)
        queue = push(queue, batch_keys(jnp.asarray(new), jnp.asarray(new)))
    np.testing.assert_array_equal(queue["text"][:, 0], [6, 7, 8, 3, 4])
    assert queue["valid"].all()
    many = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.testing.assert_array_equal(push(queue, batch_keys(many, many))["image"], many[:5])
