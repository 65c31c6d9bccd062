"""What holds for every fusion, and slow references for the gated one and the bottleneck."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from scipy.special import erf

from mmjax.layers.fusion import FUSIONS, Stream, make_fusion
from mmjax.layers.fusion.alone import fall_back
from mmjax.layers.fusion.reconstruction import Decoders
from mmjax.layers.fusion.streams import drop_modalities

NAMES = ("image", "text", "audio")
LENGTHS = {"image": 3, "text": 4, "audio": 2}
WIDTH = 8
RNG = np.random.default_rng(0)
SIZES = {"depth": 1, "heads": 2, "mlp_dim": 12}
# Kinds whose result does not depend on the order of the modalities at all.
ORDERLESS = ("early", "late", "bidirectional", "bottleneck")


def streams(seed=0, present=None):
    """4 examples: all there, one missing, two missing, and none there at all."""
    rng = np.random.default_rng(seed)
    if present is None:
        present = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    out = {}
    for i, m in enumerate(NAMES):
        tokens = rng.normal(size=(len(present), LENGTHS[m], WIDTH)).astype(np.float32)
        mask = np.arange(LENGTHS[m])[None] < np.asarray([[LENGTHS[m]], [2], [2], [1]])
        out[m] = Stream(tokens, mask, present[:, i])
    return out


def make(kind, **fields):
    return make_fusion({"kind": kind, "modalities": NAMES, **SIZES, **fields}, "fusion")


@functools.cache
def shapes(fusion):
    return meta.unbox(jax.eval_shape(fusion.init, jax.random.key(0), streams())["params"])


def random_params(fusion, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: 0.5 * rng.normal(size=p.shape).astype(np.float32), shapes(fusion))


@functools.cache
def jitted(fusion):
    """(params, streams) -> features and tokens, and the gradient of all of them for the streams."""

    def apply(params, streams):
        return fusion.apply({"params": params}, streams)

    def scalar(tokens, params, streams):
        given = {m: s.replace(tokens=tokens[m]) for m, s in streams.items()}
        fused = apply(params, given)
        return jnp.square(fused.features).sum() + sum(
            jnp.sin(t).sum() for t in fused.tokens.values()
        )

    return jax.jit(
        lambda p, s: (apply(p, s), jax.grad(scalar)({m: x.tokens for m, x in s.items()}, p, s))
    )


def features(fusion, params, streams):
    """The features alone."""
    return jax.jit(lambda p, s: fusion.apply({"params": p}, s).features)(params, streams)


def same(found, want):
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.parametrize("kind", FUSIONS)
def test_what_an_absent_modality_holds_changes_nothing_and_gets_no_gradient(kind):
    fusion = make(kind)
    params, some = random_params(fusion), streams()
    other = {
        m: s.replace(tokens=np.where(s.present[:, None, None], s.tokens, 7.0).astype(np.float32))
        for m, s in some.items()
    }
    fused, grads = jitted(fusion)(params, some)
    again, _ = jitted(fusion)(params, other)
    assert fused.features.shape == (4, WIDTH)
    for a, b in zip(jax.tree.leaves(fused), jax.tree.leaves(again)):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    for m, s in some.items():
        gradient = np.asarray(grads[m])
        assert fused.tokens[m].shape == s.tokens.shape
        assert np.isfinite(gradient).all() and not gradient[~s.present].any()
        assert gradient[s.present & s.mask.any(1)].any()
    # What is there does count, in every example that has anything.
    moved, _ = jitted(fusion)(params, streams(seed=1))
    differs = np.abs(np.asarray(moved.features) - fused.features).max(1) > 1e-4
    np.testing.assert_array_equal(differs, [True, True, True, False])


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_modality_that_the_batch_lacks_is_absent_from_every_example(kind):
    fusion = make(kind)
    params = random_params(fusion)
    present = np.asarray([[1, 0, 1]] * 4, bool)
    some = streams(present=present)
    lacking = {m: s for m, s in some.items() if m != "text"}
    same(features(fusion, params, lacking), jitted(fusion)(params, some)[0].features)


@pytest.mark.parametrize("kind", ORDERLESS)
def test_the_order_of_the_modalities_does_not_matter(kind):
    there, back = make(kind), make(kind, modalities=NAMES[::-1])
    params, some = random_params(there), streams()
    same(features(back, params, some), jitted(there)(params, some)[0].features)


@pytest.mark.parametrize("kind", FUSIONS)
def test_padding_changes_nothing(kind):
    fusion = make(kind)
    params, some = random_params(fusion), streams()
    noisy = {
        m: s.replace(tokens=np.where(s.mask[:, :, None], s.tokens, 5.0).astype(np.float32))
        for m, s in some.items()
    }
    np.testing.assert_allclose(
        jitted(fusion)(params, noisy)[0].features,
        jitted(fusion)(params, some)[0].features,
        atol=1e-5,
    )


# ---- weights


def test_late_weights_by_hand():
    present = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    alone = []  # what each modality says where it alone is there
    params = random_params(make("late"))
    for i in range(3):
        only = np.zeros_like(present)
        only[:, i] = True
        alone.append(np.asarray(jitted(make("late"))(params, streams(present=only))[0].features))
    scalars = {f"{m}_weight": np.float32(w) for m, w in zip(NAMES, (0.3, -1.0, 2.0))}
    for weights, numbers in (
        ("average", [1, 1, 1]),
        ({"image": 1.0, "text": 2.0, "audio": 3.0}, [1, 2, 3]),
        ("learned", np.exp([0.3, -1.0, 2.0])),
    ):
        extra = scalars if weights == "learned" else {}
        fused = features(make("late", weights=weights), {**params, **extra}, streams())
        for row in range(3):
            w = np.where(present[row], numbers, 0)
            want = sum(w[i] / w.sum() * alone[i][row] for i in range(3))
            np.testing.assert_allclose(fused[row], want, atol=1e-5)


def test_modality_dropout_takes_each_at_the_rate_and_never_the_last():
    present = np.tile(np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool), (4000, 1))
    kept = np.asarray(drop_modalities(jnp.asarray(present), 0.5, jax.random.key(1)))
    assert not (kept & ~present).any()
    np.testing.assert_array_equal(kept.any(1), present.any(1))
    shares = kept.reshape(4000, 4, 3).mean(0)
    # P(kept) = 1/2 + P(all to go) / count: 1/2 + 1/24, 1/2 + 1/8, 1. Four standard errors.
    want = [[13 / 24] * 3, [5 / 8, 0, 5 / 8], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(shares, want, atol=4 * 0.5 / 4000**0.5)


def test_modality_dropout_is_for_training_alone():
    fusion = make("late", modality_dropout=0.9)
    params, some = random_params(fusion), streams()
    plain = jitted(make("late"))(params, some)[0].features
    np.testing.assert_allclose(features(fusion, params, some), plain, atol=1e-6)
    rngs = {"dropout": jax.random.key(0)}
    train = jax.jit(lambda p, some: fusion.apply({"params": p}, some, train=True, rngs=rngs))
    trained = train(params, some)
    assert np.abs(np.asarray(trained.features)[0] - plain[0]).max() > 1e-3


def test_uncertainty_weighs_by_inverse_variance_and_absent_modalities_by_0():
    fusion, some = make("late", weights="uncertainty"), streams()
    params = random_params(fusion)
    run = jax.jit(lambda p: fusion.apply({"params": p}, some, mutable=["intermediates"]))
    _, sown = run(params)
    (weights,) = sown["intermediates"]["weights"]
    present = np.stack([some[m].present for m in NAMES], axis=1)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert not np.asarray(weights)[:3][~present[:3]].any()
    # The bias of a log-variance divides that modality's weight: precisions of 1, e^1, e^-2.
    biases = dict(zip(NAMES, (0.0, -1.0, 2.0)))
    fixed = {
        f"{m}_log_variance": {"kernel": np.zeros((WIDTH, 1), np.float32), "bias": np.float32([b])}
        for m, b in biases.items()
    }
    fused, sown = run({**params, **fixed})
    precision = np.where(present, np.exp([[0.0, 1.0, -2.0]]), 0.0)
    precision[3] = 1  # none is there: all have the same weight
    want = precision / precision.sum(1, keepdims=True)
    np.testing.assert_allclose(sown["intermediates"]["weights"][0], want, atol=1e-6)
    rest = {k: v for k, v in params.items() if "log_variance" not in k}
    numbers = {m: float(np.exp(-b)) for m, b in biases.items()}
    same(fused.features, features(make("late", weights=numbers), rest, some))


# ---- reconstruction


def decode(params, pooled, i, given):
    """The features of modality i of one example, by NumPy; params of `Decoders`."""
    others = [j for j in range(len(NAMES)) if j != i]
    inputs = np.stack([np.append(pooled[j] * given[j], given[j]) for j in others])
    up, down = params[f"{NAMES[i]}_up"], params[NAMES[i]]
    h = np.einsum("md,mdh->h", inputs, up["kernel"]) + up["bias"]
    h = 0.5 * h * (1 + erf(h / np.sqrt(2)))
    return h @ down["kernel"] + down["bias"]


def test_reconstruction_takes_the_place_of_what_is_missing():
    fusion, some = make("late", reconstruction=5), streams()
    params = random_params(fusion)
    fused = jitted(fusion)(params, some)[0]
    made = fused.reconstruction
    present = np.stack([some[m].present for m in NAMES], axis=1)
    pooled = np.stack(
        [(s.tokens * s.mask[..., None]).sum(1) / s.mask.sum(1)[:, None] for s in some.values()], 1
    )
    for row in range(4):
        for i in range(3):
            want = decode(params["decoders"], pooled[row], i, present[row])
            np.testing.assert_allclose(made.values[row, i], want, atol=1e-5)
    np.testing.assert_array_equal(made.made, [[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(made.known, made.made & present)
    same(made.target, np.where(present[..., None], pooled, 0))
    # A fusion without decoders, given the decoded features as the tokens that are missing.
    filled = {}
    for i, (m, s) in enumerate(some.items()):
        there = s.present[:, None]
        first = np.arange(LENGTHS[m])[None] == 0
        values = np.asarray(made.values)[:, i, None]
        filled[m] = Stream(
            np.where(there[..., None], s.tokens, values),
            np.where(there, s.mask, first),
            s.present | np.asarray(made.made)[:, i],
        )
    rest = {k: v for k, v in params.items() if k != "decoders"}
    same(fused.features, features(make("late"), rest, filled))
    lacking = {m: s for m, s in some.items() if m != "text"}  # absent from every example
    absent = some | {"text": some["text"].replace(present=np.zeros(4, bool))}
    same(features(fusion, params, lacking), features(fusion, params, absent))


def test_decoders_learn_and_what_they_read_and_predict_does_not():
    decoders = Decoders(NAMES, 5)
    rng = np.random.default_rng(3)
    pooled = rng.normal(size=(4, 3, WIDTH)).astype(np.float32)
    present = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    params = decoders.init(jax.random.key(0), pooled, present, present)["params"]

    def loss(params, pooled):
        found = decoders.apply({"params": params}, pooled, present, present)
        return jnp.square(found.values - found.target).sum()

    of_params, of_pooled = jax.jit(jax.grad(loss, (0, 1)))(meta.unbox(params), pooled)
    assert not np.asarray(of_pooled).any()
    assert all(np.asarray(g).any() for g in jax.tree.leaves(of_params))


def test_with_dropout_the_dropped_modality_is_decoded_and_still_the_target():
    fusion = make("late", reconstruction=5, modality_dropout=0.9)
    params, some = random_params(fusion), streams(present=np.ones((4, 3), bool))
    rngs = {"dropout": jax.random.key(1)}
    made = jax.jit(
        lambda p: fusion.apply({"params": p}, some, train=True, rngs=rngs).reconstruction
    )(params)
    # With one modality kept, the others are decoded from it, and it is not, from nothing.
    assert (np.asarray(made.made).sum(1) == 2).any()
    np.testing.assert_array_equal(made.known, made.made)
    assert np.asarray(made.target).any(-1).all()


def test_the_own_classifiers_answer_exactly_where_a_modality_is_missing():
    rng = np.random.default_rng(4)
    fused, alone = rng.normal(size=(4, 2)), rng.normal(size=(4, 3, 2))
    present = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    found = fall_back(*(jnp.asarray(x, jnp.float32) for x in (fused, alone)), jnp.asarray(present))
    same(found, [fused[0], (alone[1, 0] + alone[1, 2]) / 2, alone[2, 1], fused[3]])


# ---- slow references, one example at a time


def norm(x, p):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def block(x, p):
    """One pre-LN block over x [L, D], all of which may be seen."""
    y = norm(x, p["norm_attention"])
    q, k, v = (
        np.einsum("ld,dchk->clhk", y, p["attention"]["qkv"]["kernel"])
        + (p["attention"]["qkv"]["bias"][:, None])
    )
    e = np.exp(np.einsum("qhk,lhk->hql", q, k) / np.sqrt(q.shape[-1]))
    y = np.einsum("hql,lhk->qhk", e / e.sum(-1, keepdims=True), v)
    out = p["attention"]["out"]
    x = x + np.einsum("qhk,hkd->qd", y, out["kernel"]) + out["bias"]
    h = norm(x, p["norm_mlp"]) @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"]
    h = 0.5 * h * (1 + erf(h / np.sqrt(2)))
    return x + h @ p["mlp"]["down"]["kernel"] + p["mlp"]["down"]["bias"]


def layer(p, i):
    return jax.tree.map(lambda x: np.asarray(x, np.float64)[i], p)


def example(some, row, params):
    """Each modality's tokens of a row without padding, or its placeholder; and who is there."""
    tokens = {
        m: s.tokens[row][s.mask[row]] if s.present[row] else params[f"{m}_placeholder"][None]
        for m, s in some.items()
    }
    return tokens, [m for m in NAMES if some[m].present[row]] or list(NAMES)


def test_bottleneck_by_a_slow_reference():
    fusion = make("bottleneck", depth=2, tokens=3)
    params, some = random_params(fusion), streams()
    fused = jitted(fusion)(params, some)[0]
    for row in range(4):
        x, there = example(some, row, params)
        shared = params["shared"].astype(np.float64)
        for i in range(2):
            both = {
                m: block(np.concatenate([x[m], shared]), layer(params["layers"][m], i))
                for m in NAMES
            }
            x = {m: y[:-3] for m, y in both.items()}
            shared = np.mean([y[-3:] for y in both.values()], axis=0)
        pooled = {m: norm(x[m], params[f"{m}_norm"]).mean(0) for m in NAMES}
        want = np.mean([pooled[m] for m in there], axis=0)
        np.testing.assert_allclose(fused.features[row], want, atol=1e-4)


def test_gated_by_a_slow_reference():
    fusion = make("gated")
    params, some = random_params(fusion), streams()
    fused = jitted(fusion)(params, some)[0]
    for row in range(4):
        tokens, there = example(some, row, params)
        pooled = {
            m: norm(
                block(x, layer(params[f"{m}_transformer"]["layers"], 0)), params[f"{m}_norm"]
            ).mean(0)
            for m, x in tokens.items()
        }
        inputs = np.concatenate([*pooled.values(), [float(some[m].present[row]) for m in NAMES]])
        logits = np.einsum("i,imd->md", inputs, params["gate"]["kernel"]) + params["gate"]["bias"]
        if not any(some[m].present[row] for m in NAMES):
            logits = np.zeros_like(logits)  # nothing to choose by: equal gates
        e = np.exp(logits) * np.asarray([[m in there] for m in NAMES])
        gates = e / e.sum(0)
        want = 0
        for i, m in enumerate(NAMES):
            p = params[f"{m}_hidden"]
            want = want + gates[i] * np.tanh(pooled[m] @ p["kernel"] + p["bias"])
        np.testing.assert_allclose(fused.features[row], want, atol=1e-4)


# ---- bad input


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="fusion.kind is 'botleneck'.*Did you mean 'bottleneck'"):
        make("botleneck")
    with pytest.raises(ValueError, match="fusion.tokens is not a setting of Late"):
        make("late", tokens=3)
    for kind, fields, message in (
        ("late", {"weights": {"image": 1.0}}, "positive number for each of image, text, audio"),
        ("cross_attention", {"query": "video"}, "query of the fusion is 'video'"),
        ("bidirectional", {"modalities": ("image",)}, "needs two modalities"),
        ("late", {"modalities": ("image",), "reconstruction": 4}, "reconstruction needs two"),
    ):
        fusion = make(kind, **fields)
        given = {m: s for m, s in streams().items() if m in fusion.modalities}
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(fusion.init, jax.random.key(0), given)
    for given in ({}, {"video": streams()["image"]}):
        with pytest.raises(ValueError, match="A fusion of image, text, audio was given"):
            jax.eval_shape(make("early").init, jax.random.key(0), given)
