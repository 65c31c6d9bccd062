"""State, teacher, corruption and memory, each on a small system against NumPy or a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_systems as small
import toy

from mmjax import config as configs
from mmjax.data.source import Source
from mmjax.run import experiment
from mmjax.run.evaluation import Runner
from mmjax.system import seed_data, training_keys
from mmjax.workdir.checkpoint import Checkpoints
from mmjax.workdir.saved import restore_memory

EIGHT = toy.MESHES["data=8"]


def batches(count, rows=8, seed=0, **shapes):
    rng = np.random.default_rng(seed)
    return [
        {k: rng.normal(size=(rows, *s)).astype(np.float32) for k, s in shapes.items()}
        for _ in range(count)
    ]


# ---------------------------------------------------------------- teacher and queue

QUEUE = {"queue": 12, "width": 4, "dim": 5}
DECAY = ((0, 0.5), (10, 0.9))


def queue_in_numpy(params, queue, data):
    """20 steps of the queue system in float64: parameters, average and queue at the end."""
    params = {k: np.asarray(v, np.float64) for k, v in params.items()}
    average = {k: v.copy() for k, v in params.items()}
    queue = {k: np.asarray(v, np.float64) for k, v in queue.items()}
    losses = []
    for step, batch in enumerate(data):
        raw = {k: batch[k] @ params[f"{k}_kernel"] for k in "xy"}
        length = {k: np.linalg.norm(u, axis=1, keepdims=True) for k, u in raw.items()}
        teacher = {k: batch[k] @ average[f"{k}_kernel"] for k in "xy"}
        teacher = {k: u / np.linalg.norm(u, axis=1, keepdims=True) for k, u in teacher.items()}
        loss, grads = 0.0, {}
        for own, other in (("x", "y"), ("y", "x")):
            unit = raw[own] / length[own]
            near = (unit * teacher[other]).sum(1, keepdims=True)
            logits = np.concatenate([near, unit @ queue[other].T], 1) / small.TEMPERATURE
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            loss += -np.log(p[:, 0]).mean() / 2
            by_unit = p[:, :1] * teacher[other] - teacher[other] + p[:, 1:] @ queue[other]
            by_unit /= 2 * small.TEMPERATURE * len(unit)
            by_raw = (by_unit - unit * (unit * by_unit).sum(1, keepdims=True)) / length[own]
            grads[f"{own}_kernel"] = batch[own].T @ by_raw
        losses.append(loss)
        params = {k: v - 0.1 * grads[k] for k, v in params.items()}
        decay = np.interp(step, *zip(*DECAY))
        average = {k: decay * v + (1 - decay) * params[k] for k, v in average.items()}
        queue = {k: np.concatenate([teacher[k], q])[: len(q)] for k, q in queue.items()}
    return losses, params, average, queue


@pytest.mark.parametrize(("mesh", "microbatches"), [(toy.ONE, 1), (EIGHT, 1), (toy.ONE, 4)])
def test_teacher_and_queue_follow_numpy_over_20_steps_resumed_in_the_middle(
    tmp_path, mesh, microbatches
):
    ema = {"decay": DECAY, "teacher": True, "evaluate": True}
    with small.listed("queued", small.make_queue_system):
        config = small.config("queued", QUEUE, ema=ema, microbatches=microbatches)
        run, data = toy.build(config, mesh), batches(20, x=(5,), y=(5,))
        state = run.init()
        before = jax.device_get((state.params, state.memory["queue"]))
        state, first = toy.take_steps(run, state, data[:10])
        saves = Checkpoints(tmp_path)
        saves.save(10, state, {"config": configs.to_json(config)})
        saves.wait()
        config = small.config("queued", QUEUE, ema=ema)  # a part of 8 rows has one per device
        other = toy.build(config, EIGHT if mesh == toy.ONE else toy.ONE)
        state = saves.restore(10, other.state)
        state, second = toy.take_steps(other, state, data[10:])
    losses, params, average, queue = queue_in_numpy(*before, data)
    found = [h["loss"] for h in first + second]
    np.testing.assert_allclose(found, losses, rtol=2e-5)
    for got, want in ((state.params, params), (state.average, average)):
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5)
    for name in "xy":
        np.testing.assert_allclose(state.memory["queue"][name], queue[name], rtol=1e-4, atol=1e-5)


def test_a_resume_gives_the_bits_of_a_run_without_a_stop(tmp_path):
    ema = {"decay": 0.9, "teacher": True, "evaluate": True}
    with small.listed("queued", small.make_queue_system):
        config = small.config("queued", QUEUE, ema=ema)
        run, data = toy.build(config), batches(6, x=(5,), y=(5,))
        whole, _ = toy.take_steps(run, run.init(), data)
        state, _ = toy.take_steps(run, run.init(), data[:3])
        saves = Checkpoints(tmp_path)
        saves.save(3, state, {"config": configs.to_json(config)})
        saves.wait()
        state, _ = toy.take_steps(run, saves.restore(3, run.state), data[3:])
        memory = restore_memory(saves, 3, run.state.memory)
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    assert memory["queue"]["x"].shape == (12, 4)


def test_the_memory_stays_as_it_is_where_a_step_is_not_finite():
    ema = {"decay": 0.9, "teacher": True, "evaluate": True}
    with small.listed("queued", small.make_queue_system):
        run = toy.build(small.config("queued", QUEUE, ema=ema))
        state, _ = toy.take_steps(run, run.init(), batches(1, x=(5,), y=(5,)))
        kept = jax.device_get(state.memory)
        bad = batches(1, x=(5,), y=(5,))[0]
        bad["x"][3] = np.nan
        state, _ = toy.take_steps(run, state, [bad])
    assert not state.finite and int(state.step) == 1
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.memory), kept)


def test_what_is_wrong_with_a_teacher_or_a_queue_is_said():
    with small.listed("queued", small.make_queue_system):
        config = small.config(
            "queued", QUEUE, ema={"decay": 0.0, "teacher": True, "evaluate": True}
        )
        with pytest.raises(ValueError, match="config.ema.teacher needs the moving average"):
            toy.build(config)
        ema = {"decay": ((0, 0.9), (0, 1.0)), "teacher": True, "evaluate": True}
        with pytest.raises(ValueError, match="steps of config.ema.decay do not increase"):
            toy.build(small.config("queued", QUEUE, ema=ema))
        run = toy.build(small.config("queued", QUEUE))
        with pytest.raises(ValueError, match="queue is 12 and config.data.train has 11 examples"):
            run.system.check_source(range(11))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda queue: {"queue": queue["queue"], "extra": {"n": jnp.zeros(())}}, "'extra/n'"),
        (lambda queue: {"queue": {**queue["queue"], "x": jnp.zeros((3, 4))}}, "'queue/x'"),
    ],
)
def test_a_memory_that_changes_its_form_is_refused(change, match):
    def make(config):
        system = small.make_queue_system(config)
        return small.System(**{**vars(system), "remember": lambda memory, *rest: change(memory)})

    with small.listed("queued", make):
        ema = {"decay": 0.9, "teacher": True, "evaluate": True}
        run = toy.build(small.config("queued", QUEUE, ema=ema))
        with pytest.raises(ValueError, match=match):
            toy.take_steps(run, run.init(), batches(1, x=(5,), y=(5,)))


# ---------------------------------------------------------------- denoiser


def draws(seed, step, rows, dim):
    """Time and noise as `corrupt` draws them in a step of training."""
    _, keys = training_keys(seed_data(seed), jnp.asarray(step), rows)
    pairs = [jax.random.split(key) for key in keys]
    time = np.array([jax.random.uniform(t) for t, _ in pairs])
    return time, np.stack([jax.random.normal(n, (dim,)) for _, n in pairs])


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_denoiser_s_loss_and_gradient_are_the_closed_form(microbatches):
    with small.listed("denoiser", small.make_denoiser):
        config = small.config("denoiser", {"dim": 3}, seed=5, microbatches=microbatches)
        run, (batch,) = toy.build(config), batches(1, x=(3,))
        state, (scalars,) = toy.take_steps(run, run.init(), [batch])
    time, noise = draws(5, 0, 8, 3)
    # The model starts at zero: its loss is the mean square of the noise.
    np.testing.assert_allclose(scalars["loss"], np.square(noise).mean(), rtol=1e-6)
    noisy = batch["x"] + time[:, None] * noise
    gradient = noisy.T @ (-2 * noise) / noise.size
    np.testing.assert_allclose(state.params["kernel"], -0.1 * gradient, rtol=1e-5, atol=1e-7)


class Vectors(Source):
    """A source of 11 known vectors."""

    class_names, name = None, "vectors"

    def __len__(self):
        return 11

    def __getitem__(self, i):
        return {"x": np.random.default_rng(i).normal(size=3).astype(np.float32)}


def runner_of(run, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment.sources, "open_source", lambda *a, **k: Vectors())
    return Runner(run, tmp_path, lambda *a: None)


def test_validation_repeats_to_the_bit_whatever_the_batch_size(tmp_path, monkeypatch):
    from mmjax.evals.evaluators import make_evaluators

    found = []
    for size in (4, 4, 8):
        with small.listed("denoiser", small.make_denoiser):
            run = toy.build(small.config("denoiser", {"dim": 3}, batch_size=size))
        runner = runner_of(run, tmp_path, monkeypatch)
        preset = {"kind": "loss", "source": {"kind": "any"}, "transform": ""}
        evaluator = make_evaluators({"held": preset}, runner)["held"]
        found.append(dict(evaluator.run(run.eval_variables(run.init()))))
    assert found[0] == found[1]
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(11)]
    noise = np.stack([jax.random.normal(jax.random.split(k)[1], (3,)) for k in keys])
    for values in found:  # the padding of the last batch does not count
        np.testing.assert_allclose(values["loss"], np.square(noise).mean(), rtol=1e-6)


# ---------------------------------------------------------------- codebook


@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_codebook_follows_numpy(microbatches):
    model = {"codes": 6, "length": 3, "dim": 4}
    with small.listed("vq", small.make_vq_system):
        config = small.config("vq", model, microbatches=microbatches)
        run, data = toy.build(config), batches(8, x=(3, 4))
        state = run.init()
        kernel = np.asarray(state.params["kernel"], np.float64)
        book = {k: np.asarray(v, np.float64) for k, v in state.memory["codebook"].items()}
        state, history = toy.take_steps(run, state, data)
    for batch, scalars in zip(data, history, strict=True):
        x = batch["x"].astype(np.float64)
        latents = x @ kernel
        distance = np.square(latents[:, :, None] - book["codes"]).sum(-1)
        nearest = distance.argmin(-1)
        chosen = book["codes"][nearest]
        loss = np.square(chosen - x).mean() + 0.25 * np.square(latents - chosen).mean()
        np.testing.assert_allclose(scalars["loss"], loss, rtol=1e-5)
        by_latents = 2 * (chosen - x) / x.size + 0.25 * 2 * (latents - chosen) / x.size
        kernel = kernel - 0.1 * x.reshape(-1, 4).T @ by_latents.reshape(-1, 4)
        hot = np.eye(6)[nearest.reshape(-1)]
        book["count"] = small.KEEP * book["count"] + (1 - small.KEEP) * hot.sum(0)
        new = hot.T @ latents.reshape(-1, 4)
        book["sum"] = small.KEEP * book["sum"] + (1 - small.KEEP) * new
        book["codes"] = book["sum"] / (book["count"][:, None] + small.SMALL)
    np.testing.assert_allclose(state.params["kernel"], kernel, rtol=1e-5, atol=1e-6)
    for name, want in book.items():
        np.testing.assert_allclose(state.memory["codebook"][name], want, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- batch norm


def test_batch_norm_trains_by_the_batch_and_evaluates_by_the_running_statistics():
    with small.listed("normed", small.make_batch_norm):
        run = toy.build(small.config("normed", {"dim": 2}, rate=0.0))
        data = batches(5, x=(2,), target=())
        state, history = toy.take_steps(run, run.init(), data)
        given = run.eval_variables(state)
        batch = data[-1]
        score = run.model.apply(jax.device_get(given), batch)["score"]
    mean, var = np.zeros(2), np.ones(2)
    for batch, scalars in zip(data, history, strict=True):
        x = batch["x"]
        normed = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        loss = np.square(normed.sum(1) - batch["target"]).mean()
        np.testing.assert_allclose(scalars["loss"], loss, rtol=1e-4)
        mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0)
    np.testing.assert_allclose(state.memory["batch_stats"]["norm"]["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(state.memory["batch_stats"]["norm"]["var"], var, rtol=1e-5)
    want = ((data[-1]["x"] - mean) / np.sqrt(var + 1e-5)).sum(1)
    np.testing.assert_allclose(score, want, rtol=1e-4, atol=1e-5)


def test_batch_norm_refuses_microbatches_with_its_reason():
    wrong = pytest.raises(ValueError, match="mixes the rows.*batch norm uses the mean")
    with small.listed("normed", small.make_batch_norm), wrong:
        toy.build(small.config("normed", {"dim": 2}, microbatches=2))


# ---------------------------------------------------------------- microbatches: outputs


@pytest.mark.parametrize("extra", ["", "bool", "int", "scalar"])
def test_outputs_that_can_be_put_together_are(extra):
    batch = batches(1, x=(3,))[0]
    found = []
    with small.listed("outputs", small.make_outputs):
        for microbatches in (1, 2, 4):
            config = small.config("outputs", {"extra": extra, "dim": 3}, microbatches=microbatches)
            run = toy.build(config)
            state, (scalars,) = toy.take_steps(run, run.init(), [batch])
            found.append((scalars["loss"], jax.device_get(state.params)))
    for loss, params in found[1:]:
        np.testing.assert_allclose(loss, found[0][0], rtol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, found[0][1])


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ("batch_mean", "scalar output 'batch_mean' would differ"),
        ("looped", "scalar output 'looped' would differ"),
        ("table", "output 'table' .* cannot be reassembled"),
        ("vector", "output 'vector' .* cannot be reassembled"),
        ("similarity", "output 'similarity' .* cannot be reassembled"),
    ],
)
def test_outputs_that_cannot_be_put_together_are_refused_by_name(extra, match):
    # [3] and [4, 4] have as many rows as a part of 8 in 2 has: a shape alone does not tell.
    batch = batches(1, x=(4,))[0]
    with small.listed("outputs", small.make_outputs):
        model = {"extra": extra, "dim": 4}
        run = toy.build(small.config("outputs", model, microbatches=2))
        with pytest.raises(ValueError, match=match):
            toy.take_steps(run, run.init(), [batch])
        run = toy.build(small.config("outputs", model))
        toy.take_steps(run, run.init(), [batch])  # whole, it is nobody's business


def test_an_unknown_hook_names_the_nearest():
    with pytest.raises(ValueError, match="no hook 'remembr'. Did you mean 'remember'?"):
        small.System(model=None, spec={}, loss=None, remembr=lambda *a: {})


def test_a_memory_that_becomes_nan_is_not_kept():
    def make(config):
        system = small.make_queue_system(config)
        remember = lambda memory, *rest: jax.tree.map(lambda x: x * jnp.nan, memory)  # noqa: E731
        return small.System(**{**vars(system), "remember": remember})

    with small.listed("queued", make):
        run = toy.build(
            small.config("queued", QUEUE, ema={"decay": 0.9, "teacher": True, "evaluate": True})
        )
        kept = jax.device_get(run.init().memory)
        state, _ = toy.take_steps(run, run.init(), batches(1, x=(5,), y=(5,)))
    assert not state.finite
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.memory), kept)
