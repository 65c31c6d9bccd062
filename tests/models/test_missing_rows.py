"""Rows without a modality do not count in the batch norms of its tower."""

import drawn as draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import TEXT

from mmjax.layers.batch_norm import BatchNorm
from mmjax.models.systems import make_system
from mmjax.system import STATISTICS, average
from mmjax.variables import abstract_variables

ONE = (1, 1, 1, 1)
WORDS = {k: x for k, x in TEXT.items() if k != "remat"} | {"depth": 1}
HTSAT = {"frames": 30, "mels": 8, "image_size": 16, "width": 8, "depths": (1, 1), "heads": (1, 2)}
RESNEXT = {"samples": 700, "fft": 64, "window": 50, "hop": 20, "width": 4, "layers": ONE}
RESNET = {"layers": ONE, "width": 4, "heads": 2, "features": 16, "image_size": 32}
MODELS = {
    "clap": {"audio": {**HTSAT, "window": 2, "fusion": True}, "text": WORDS},
    "audioclip": {
        "audio": {**RESNEXT, "features": 16, "groups": 2, "group_width": 32},
        "image": RESNET,
        "text": WORDS,
    },
}


def made(name):
    """A system, its variables, and four rows."""
    system = make_system({"model": {"name": name, "embed_dim": 16, **MODELS[name]}, "loss": {}})
    given = draws.drawn(abstract_variables(system.model, system.spec))
    given[STATISTICS] = jax.tree.map(lambda x: 1 + np.abs(x), given[STATISTICS])
    rng, rows = np.random.default_rng(0), {}
    for key, x in system.spec.items():
        shape = (4, *x.shape[1:])
        if x.dtype == jnp.float32:
            rows[key] = rng.normal(size=shape).astype(np.float32)
        else:
            rows[key] = rng.integers(1, 2 if x.dtype == bool else 60, shape).astype(x.dtype)
    return system, given, rows


@pytest.mark.parametrize("name", MODELS)
def test_what_a_missing_row_holds_changes_no_other_row(name):
    system, given, rows = made(name)
    towers = [m for m in ("audio", "image") if m in MODELS[name]]

    @jax.jit
    def run(batch):
        outputs, written = system.model.apply(given, batch, train=True, mutable=[STATISTICS])
        terms = {k: average(x)[0] for k, x in system.loss(outputs, batch, None).items()}
        return {m: outputs[f"{m}_embed"] for m in towers}, written[STATISTICS], terms

    def with_row(value, present):
        changed = {k: x.copy() for k, x in rows.items()}
        for key in changed.keys() - {"text", "text_mask"}:
            changed[key][1] = value
        return changed | {f"{m}_present": np.asarray(present) for m in towers}

    found, want = (run(with_row(x, [True, False, True, True])) for x in (0, 1))
    for embeds in (found[0], want[0]):
        embeds |= {m: np.asarray(x)[[0, 2, 3]] for m, x in embeds.items()}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, want)

    _, kept, terms = run(with_row(0, [False] * 4))
    jax.tree.map(np.testing.assert_array_equal, kept, given[STATISTICS])
    assert all(terms[k] == 0 for k in ("contrastive", "audio_image", "audio_text") if k in terms)


def test_statistics_of_some_rows_or_none():
    x = np.random.default_rng(0).normal(2, 3, (4, 5, 3)).astype(np.float32)
    given = jax.tree.map(jnp.asarray, BatchNorm().init(jax.random.key(0), x))

    def total(x, valid):
        y, written = BatchNorm().apply(given, x, train=True, valid=valid, mutable=[STATISTICS])
        return jnp.square(y[:2]).sum(), written[STATISTICS]

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, kept), _ = run(x, np.array([True, True, False, False]))
    some = x[:2].reshape(-1, 3)
    np.testing.assert_allclose(kept["mean"], 0.1 * some.mean(0), rtol=1e-5)
    np.testing.assert_allclose(kept["variance"], 0.9 + 0.1 * some.var(0, ddof=1), rtol=1e-5)
    (value, kept), gradient = run(x, np.zeros(4, bool))
    np.testing.assert_allclose(value, np.square(x[:2]).sum(), rtol=1e-4)
    np.testing.assert_allclose(gradient[:2], 2 * x[:2], rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, kept, given[STATISTICS])


def test_a_batch_without_any_pair_is_refused():
    system, _, rows = made("audioclip")
    none, every = np.zeros(4, bool), np.ones(4, bool)
    alone = rows | {"audio_present": none, "image_present": every, "text_present": none}
    with pytest.raises(ValueError, match="both its image and its text, or its audio and its image"):
        system.check_batch(alone)
    system.check_batch(alone | {"text_present": every})
    system.check_batch(rows)
