"""A config as objects: what of it is compiled into the step, and what is given to it as numbers."""

import jax
import numpy as np
import pytest
import toy

from mmjax.system import seed_data


def programs(**settings):
    """The step and the initialization as text, before the compiler."""
    run = toy.build(toy.config("clip", **settings))
    batch = toy.put(run, toy.batch(run.config))
    with jax.set_mesh(run.mesh):
        step = run.train_step.lower(run.state, batch, run.numbers(0)).as_text()
        return step, jax.jit(run.make_state).lower(seed_data(run.config.seed)).as_text()


OPTIM = {"learning_rate": 1e-3, "schedule": "cosine", "weight_decay": 0.1, "warmup_steps": 2}
SETTINGS = {"optim": OPTIM, "ema": {"decay": 0.9, "teacher": False, "evaluate": True}}


def test_another_seed_rate_schedule_weight_or_length_compiles_nothing_again():
    first = programs(**SETTINGS)
    other = {
        "seed": 12345,
        "total_steps": 77,
        "loss_weights": {"contrastive": ((0, 0.5), (10, 2.0))},
        "ema": {"decay": ((0, 0.5), (9, 0.99)), "teacher": False, "evaluate": True},
        "optim": OPTIM | {"learning_rate": 0.5, "schedule": "linear", "weight_decay": 0.3},
    }
    assert programs(**SETTINGS | other) == first
    assert programs(**SETTINGS | {"optim": OPTIM | {"b1": 0.5}})[0] != first[0]  # still a constant


def test_the_numbers_of_a_step_follow_their_schedules():
    run = toy.build(
        toy.config(
            "clip",
            total_steps=100,
            loss_weights={"contrastive": ((0, 0.0), (10, 2.0))},
            ema={"decay": ((0, 0.5), (10, 0.9)), "teacher": False, "evaluate": True},
            optim={**OPTIM, "learning_rate": 0.4, "schedule": "linear", "warmup_steps": 0},
        )
    )
    found = run.numbers(5)
    assert found.learning_rate == np.float32(0.4 * 0.95)
    assert found.weight_decay == np.float32(0.1)
    assert found.ema_decay == pytest.approx(0.7)
    assert found.loss_weights == {"contrastive": np.float32(1.0)}
    np.testing.assert_array_equal(found.seed, jax.random.key_data(jax.random.key(0)))
    assert all(np.asarray(x).dtype == np.float32 for x in jax.tree.leaves(found[1:]))
