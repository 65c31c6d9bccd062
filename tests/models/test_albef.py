"""ALBEF: what it masks and matches, its queue, and the batches that it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mmjax
from mmjax import config as configs
from mmjax.models.systems import make_system
from mmjax.run.evaluation import Runner
from mmjax.system import Context, average, row_keys
from mmjax.workdir.checkpoint import Checkpoints

WORDS = {"vocab_size": 32, "width": 16, "depth": 2, "fusion_depth": 1, "heads": 2, "mlp_dim": 32}
MODEL = {
    "name": "albef",
    "embed_dim": 8,
    "image": {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 32, "patch_size": 4, "image_size": 8},
    "text": {**WORDS, "length": 10, "mask_token": 31},
}
ROWS = 8


def system(loss=None, model=None, **text):
    model = {**MODEL, **(model or {}), "text": {**MODEL["text"], **text}}
    return make_system(
        {"model": model, "loss": {"queue_size": 12, **(loss or {})}, "batch_size": ROWS}
    )


def batch(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(10)[None] < rng.integers(3, 11, rows)[:, None]
    text = np.where(mask, rng.integers(3, 31, mask.shape), 0).astype(np.int32)
    text[:, 0] = 1
    image = rng.integers(0, 256, (rows, 8, 8, 3), np.uint8)
    made = {"image": image, "text": text, "text_mask": mask}
    return jax.tree.map(jnp.asarray, made | {"example_id": np.arange(rows, dtype=np.int32)})


def context(rows=ROWS, seed=1, **more):
    keys = row_keys(jax.random.key(seed), jnp.arange(rows))
    return Context(jnp.int32(0), keys, None, {})._replace(**more)


@pytest.fixture(scope="module")
def trained():
    """A system, its parameters and a jitted function of its outputs."""
    made = system()
    hooks = {k: jax.jit(getattr(made, k)) for k in ("corrupt", "loss", "remember")}
    made = dataclasses.replace(made, **hooks)
    params = jax.device_get(jax.jit(made.model.init)(jax.random.key(0), batch())["params"])
    rng = np.random.default_rng(0)  # larger than at the start, so that logits differ among texts
    noisy = jax.tree.map(
        lambda x: x + np.float32(0.3) * rng.standard_normal(x.shape, x.dtype), params
    )
    params = jax.tree.map(jnp.asarray, {**noisy, "temperature": np.float32(0.1)})
    return made, params, jax.jit(lambda b: made.model.apply({"params": params}, b))


def test_words_are_masked_but_the_first_and_padding(trained):
    many = jax.tree.map(lambda x: jnp.tile(x, (300, *(1,) * (x.ndim - 1))), batch())
    found = trained[0].corrupt(many, context(300 * ROWS))
    masked, changed = found["text_masked"], found["text_corrupted"] != found["text"]
    assert not masked[:, 0].any() and not (masked & ~many["text_mask"]).any()
    assert not (changed & ~masked).any()
    tokens = many["text_mask"][:, 1:].sum()
    # The end token is masked like others.
    last = many["text_mask"].sum(1) - 1
    for share, want in (
        (masked.sum() / tokens, 0.15),
        (jnp.take_along_axis(masked, last[:, None], 1).mean(), 0.15),
        ((found["text_corrupted"] == 31)[masked].mean(), 0.8 + 0.1 / 32),
    ):
        assert abs(float(share) - want) < 0.02
    assert found["negative_draws"].shape == (300 * ROWS, 2)
    assert 0.45 < float(found["negative_draws"].mean()) < 0.55
    alone = trained[0].corrupt(batch(), context())  # a row depends on its own key alone
    few = trained[0].corrupt(
        jax.tree.map(lambda x: x[2:4], batch()), context(4)._replace(rng=context().rng[2:4])
    )
    for name in ("negative_draws", "text_corrupted", "text_masked"):
        np.testing.assert_array_equal(few[name], alone[name][2:4])


def test_fusing_several_texts_with_an_image_at_once_is_fusing_them_one_by_one(trained):
    made, params, run = trained
    given = made.corrupt(batch(), context())
    found = run(given)
    # In a pair the text is the corrupted one: its words do not depend on what else is fused.
    words = run({**batch(), "text_corrupted": given["text_corrupted"]})["word_logits"]
    np.testing.assert_allclose(found["word_logits"], words, atol=1e-5)
    own = run(batch())["match_logits"]
    np.testing.assert_allclose(found["match_logits"], own, atol=1e-5)
    images = {"image_tokens": found["image_tokens"]}
    images |= {name: batch()[name] for name in ("text", "text_mask", "example_id")}
    np.testing.assert_allclose(run(images)["match_logits"], own, atol=1e-5)
    # Each negative is the pair of one of the others.
    rows = jnp.arange(ROWS)
    text, image = (np.asarray(found["mismatch_logits"][:, i]) for i in (0, 1))
    seen = set()
    for shift in range(1, ROWS):
        other = (rows + shift) % ROWS
        pairs = {k: batch()[k][other] for k in ("text", "text_mask")}
        logits = np.asarray(run({**batch(), **pairs})["match_logits"])
        hits = np.abs(text - logits).max(1) < 1e-5
        seen |= {("text", int(i)) for i in np.flatnonzero(hits)}
        logits = np.asarray(run({**batch(), "image": batch()["image"][other]})["match_logits"])
        hits = np.abs(image - logits).max(1) < 1e-5
        seen |= {("image", int(i)) for i in np.flatnonzero(hits)}
    assert seen == {(kind, i) for kind in ("text", "image") for i in range(ROWS)}


def test_terms_where_nothing_is_masked_and_without_a_head_for_words(trained):
    made, params, run = trained
    given = made.corrupt(batch(), context())
    none = {**given, "text_corrupted": given["text"], "text_masked": jnp.zeros((ROWS, 10), bool)}
    memory = jax.tree.map(jnp.asarray, made.memory())
    outputs = run(none)
    terms = made.loss(outputs, none, context(teacher=outputs, memory=memory))
    value, has = average(terms["masked_words"])
    assert value == 0 and not has
    assert set(terms) == {
        *("contrastive", "image_to_text_accuracy", "text_to_image_accuracy", "logit_scale"),
        *("matching", "matching_accuracy", "masked_words"),
    }
    without = system(mask_token=None)
    shapes = jax.eval_shape(without.model.init, jax.random.key(0), batch())["params"]
    assert "word_head" not in shapes["text"] and "text_corrupted" not in without.corrupt(
        batch(), context()
    )


def test_incomplete_pairs_count_in_no_term(trained):
    made, params, run = trained
    present = jnp.arange(ROWS) != 3
    given = made.corrupt({**batch(), "image_present": present}, context())
    memory = jax.tree.map(jnp.asarray, made.memory())
    outputs = run(given)
    terms = made.loss(outputs, given, context(teacher=outputs, memory=memory))
    for name in ("contrastive", "matching", "masked_words"):
        assert not terms[name].weight[3] and terms[name].weight[4]
    kept = made.remember(memory, outputs, given, context(teacher=outputs, memory=memory))
    valid = kept["queue"]["keys"]["valid"]
    assert valid[:8].tolist() == present.tolist() and not valid[8:].any()


def test_alpha_rises_with_the_step(trained):
    made, _, run = trained
    given = made.corrupt(batch(), context())
    loss = jax.jit(system({"alpha": ((0, 0.0), (100, 0.4))}).loss)
    memory = jax.tree.map(jnp.asarray, made.memory())
    outputs = run(given)
    flat = {k: jnp.zeros_like(x) if k == "word_logits" else x for k, x in outputs.items()}
    found = []
    for step in (0, 50, 400):
        now = context(teacher=flat, memory=memory, step=jnp.int32(step))
        found.append(float(average(loss(outputs, given, now)["masked_words"])[0]))
    # Linear in alpha: 0, 0.2 and 0.4.
    np.testing.assert_allclose(found[1], (found[0] + found[2]) / 2, rtol=1e-5)
    assert abs(found[2] - found[0]) > 1e-3


def test_negatives_without_mining_are_uniform(trained):
    _, params, _ = trained
    model = system(model={"hard_negatives": False}).model
    rng = np.random.default_rng(0)

    @jax.jit
    def logits(draws):
        return model.apply({"params": params}, {**batch(), "negative_draws": draws})[
            "mismatch_logits"
        ]

    counts = {}
    for _ in range(60):
        text = np.asarray(logits(jnp.asarray(rng.random((ROWS, 2)), jnp.float32)))[0, 0, 1]
        counts[round(float(text), 3)] = counts.get(round(float(text), 3), 0) + 1
    assert len(counts) == ROWS - 1 and max(counts.values()) < 22  # 8.6 expected


def test_batches_without_negatives_are_refused_in_a_sentence():
    made = system()
    rows = jax.tree.map(np.asarray, batch())
    made.check_batch(rows)
    with pytest.raises(ValueError, match="one pair has no negatives to match: raise config.batch"):
        made.check_batch(jax.tree.map(lambda x: x[:1], rows))
    equal = {**rows, "text": np.repeat(rows["text"][:1], ROWS, 0)}
    with pytest.raises(ValueError, match="All 8 texts of the batch are equal, so none is a negat"):
        made.check_batch(equal)
    with pytest.raises(ValueError, match="groups of 3 rows and the batch has 8"):
        system(model={"negative_group": 3})
    for settings, message in (
        ({"loss": {"mask_rate": 1.5}}, "mask_rate is 1.5: use"),
        ({"loss": {"queue_size": -1}}, "queue_size -1 and chunk_size 0: use 0 or"),
        ({"loss": {"chunk_size": -4}}, "chunk_size -4: use 0 or more"),
        ({"loss": {"alpha": 1.5}}, "config.loss.alpha has the value 1.5"),
        ({"loss": {"alfa": 0.4}}, "config.loss.alfa is not .* Did you mean 'alpha'"),
        ({"model": {"image": {**MODEL["image"], "pool": "cls"}}}, "remove pool and class_token"),
        ({"fusion_depth": 2}, "fusion_depth is 2 of 2 layers"),
        ({"mask_token": 32}, "mask_token is 32 and the vocabulary 32"),
    ):
        with pytest.raises(ValueError, match=message):
            system(**settings)


def test_no_teacher_is_refused_by_name():
    config = toy.shrink(configs.load("configs/albef_emoji.py", ("ema.teacher=False",)))
    with pytest.raises(ValueError, match="momentum teacher: set config.ema.teacher, and config"):
        toy.build(config)


def test_a_run_says_where_a_pair_is_matched(tmp_path):
    config = toy.shrink(configs.load("configs/albef_emoji.py", ()))
    run = toy.build(config, toy.MESHES["data=8"])
    params = jax.tree.map(lambda p: np.full(p.shape, 0.1, np.float32), run.params)
    params["match_head"]["kernel"] = (
        np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    )
    found = Runner(run, tmp_path, print).match_gradients({"params": params}, toy.batch(config))
    assert found["probability"].shape == (8,) and found["weights"].shape == (1, 8, 2, 8, 5)
    np.testing.assert_allclose(found["weights"].sum(-1), 1, rtol=1e-5)
    assert found["gradients"].shape == (1, 8, 2, 8, 5)


@pytest.mark.parametrize("size", [0, 6])
def test_a_run_is_loaded_whatever_its_queue(tmp_path, size):
    config = toy.shrink(configs.load("configs/albef_emoji.py", ()))
    with config.unlocked():
        config.loss.queue_size = size
    run = toy.build(config.lock())
    saves = Checkpoints(tmp_path)
    saves.save(1, toy.init(run), {"config": configs.to_json(run.config), "tokenizer": {}})
    saves.close()
    loaded = mmjax.load(tmp_path)
    assert "temperature" in loaded.params
    assert [len(x) for x in jax.tree.leaves(loaded.memory)] == [size] * (5 if size else 0)


def test_it_learns_a_batch_by_heart():
    config = toy.shrink(configs.load("configs/albef_emoji.py", ()))
    with config.unlocked(), config.ignore_type():
        config.loss.update(queue_size=0, alpha=0.4)
        config.ema.decay, config.model.image.patch_dropout = 0.5, 0.0
        config.optim.update(learning_rate=3e-3, schedule="constant", weight_decay=0.0)
        config.model.text.dropout = 0.0
    run = toy.build(config.lock())
    _, history = toy.take_steps(run, run.init(), [toy.batch(config)] * 100)
    first, last = history[0], history[-1]
    assert last["image_to_text_accuracy"] == last["text_to_image_accuracy"] == 1
    assert last["contrastive"] < 0.1 * first["contrastive"]
    assert last["masked_words"] < 0.8 * first["masked_words"]
    assert last["matching"] < first["matching"]


def test_the_queue_takes_any_batch_and_drops_the_oldest(trained):
    made, params, run = trained
    memory = jax.tree.map(jnp.asarray, made.memory())
    keys = memory["queue"]["keys"]
    assert keys["image"].shape == (12, 8) and not keys["valid"].any()
    newest = []
    for seed in range(3):
        given = batch(seed=seed) | {"example_id": jnp.arange(ROWS, dtype=jnp.int32) + 10 * seed}
        outputs = run(given)
        memory = made.remember(memory, outputs, given, context(teacher=outputs))
        newest.append(np.asarray(outputs["image_embed"]))
    keys = memory["queue"]["keys"]
    want = np.concatenate([newest[2], newest[1]])[:12]
    np.testing.assert_array_equal(keys["image"], want)
    assert keys["image_id"].tolist() == [*range(20, 28), *range(10, 14)] and keys["valid"].all()
