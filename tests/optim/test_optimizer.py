"""Optimizers against closed forms in float64, schedules at known points, rules by path."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.optim import optimizer as optim
from mmjax.optim import update_rules

RNG = np.random.default_rng(0)
SHAPES = {
    "image": {
        "block": {"up": {"kernel": (3, 8, 4), "bias": (3, 4)}, "norm": {"scale": (3, 8)}},
        "position": (5, 8),
        "class_token": (1, 8),
        "pool": {"probe": (1, 8)},
    },
    "text": {"token": {"embedding": (11, 8)}, "out": {"kernel": (8, 4)}},
    "logit_scale": (),
    "logit_bias": (),
}


def tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s).astype(np.float32)),
        SHAPES,
        is_leaf=lambda s: isinstance(s, tuple),
    )


RATES = {"learning_rate": np.float32(0.01), "weight_decay": np.float32(0)}  # those of `config`


def config(**fields):
    return ml_collections.ConfigDict({"learning_rate": 0.01, "schedule": "constant", **fields})


def run(cfg, steps=5, params=None, total=10):
    """Parameters after steps, with gradients `tree(1)`, `tree(2)`, ...; and the last state."""
    params = tree(0) if params is None else params
    tx, schedule = optim.make_optimizer(cfg, jax.eval_shape(lambda: params), total)
    state, update = tx.init(params), jax.jit(tx.update)
    for i in range(steps):
        rates = {
            "learning_rate": np.float32(schedule(i)),
            "weight_decay": np.float32(cfg.get("weight_decay", 0.0)),
        }
        updates, state = update(tree(i + 1), state, params, **rates)
        params = optax.apply_updates(params, updates)
    return params, state


def flat(t):
    leaves, _ = jax.tree_util.tree_flatten_with_path(t)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in leaves}


def reference(
    rule, decay=0.0, steps=5, lr=0.01, decayed=("image/block/up/kernel", "text/out/kernel")
):
    """Plain loops in float64. rule(g, memory, t) -> direction."""
    params = {k: v.astype(np.float64) for k, v in flat(tree(0)).items()}
    memory = {k: {"m": np.zeros(v.shape), "v": np.zeros(v.shape)} for k, v in params.items()}
    for t in range(1, steps + 1):
        for k, g in flat(tree(t)).items():
            direction = rule(g.astype(np.float64), memory[k], t)
            if k in decayed:
                direction = direction + decay * params[k]
            params[k] = params[k] - lr * direction
    return params


def adam(g, s, t, b1=0.9, b2=0.98, eps=1e-6):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def lion(g, s, t, b1=0.9, b2=0.99):
    direction = np.sign(b1 * s["m"] + (1 - b1) * g)
    s["m"] = b2 * s["m"] + (1 - b2) * g
    return direction


def sgd(g, s, t, momentum=0.9):
    s["m"] = momentum * s["m"] + g
    return s["m"]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"name": "adamw", "b2": 0.98, "eps": 1e-6}, adam),
        ({"name": "lion"}, lion),
        ({"name": "sgd"}, sgd),
        ({"name": "sgd", "momentum": 0.0}, lambda g, s, t: g),
    ],
)
def test_update_is_the_closed_form(fields, rule):
    got, _ = run(config(weight_decay=0.2, **fields))
    want = reference(rule, decay=0.2)
    for path, value in flat(got).items():
        np.testing.assert_allclose(value, want[path], rtol=2e-6, atol=2e-6, err_msg=path)


def test_adamw_equals_optax():
    params = tree(0)
    with jax.numpy_dtype_promotion("standard"):
        mask = {"image": True, "text": True, "logit_scale": False, "logit_bias": False}
        tx = optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.adamw(0.01, 0.9, 0.98, 1e-6, weight_decay=0.2, mask=mask),
        )
        state, want, update = tx.init(params), params, jax.jit(tx.update)
        for i in range(5):
            updates, state = update(tree(i + 1), state, want)
            want = optax.apply_updates(want, updates)
    got, _ = run(
        config(
            name="adamw",
            b2=0.98,
            eps=1e-6,
            weight_decay=0.2,
            grad_clip_norm=0.5,
            weight_decay_include=("image/.*", "text/.*"),
        )
    )
    for path, value in flat(got).items():
        np.testing.assert_allclose(value, flat(want)[path], rtol=0, atol=1e-6, err_msg=path)


def test_adafactor_first_step_is_the_factored_closed_form():
    """Shazeer & Stern 2018, algorithm 4; at step 1 the second moment is the square alone."""
    params = {"a": {"kernel": jnp.zeros((128, 130), jnp.float32)}}
    g = RNG.normal(size=(128, 130)).astype(np.float32)
    tx, _ = optim.make_optimizer(config(name="adafactor", b1=0.0), params, 10)
    updates, state = tx.update({"a": {"kernel": jnp.asarray(g)}}, tx.init(params), params, **RATES)
    square = g.astype(np.float64) ** 2
    rows, columns = square.mean(1, keepdims=True), square.mean(0, keepdims=True)
    want = g / np.sqrt(rows * columns / square.mean())
    want = want / max(1.0, np.sqrt((want**2).mean()))
    np.testing.assert_allclose(updates["a"]["kernel"], -0.01 * want, rtol=1e-4, atol=1e-7)
    assert sum(x.size for x in jax.tree.leaves(state)) < 300  # rows and columns, no matrix


def test_adafactor_momentum_averages_the_direction():
    params = {"kernel": jnp.zeros((2, 2), jnp.float32)}
    g = {"kernel": jnp.ones((2, 2), jnp.float32)}  # its direction is 1 at every step
    tx, _ = optim.make_optimizer(config(name="adafactor", b1=0.75), params, 10)
    state = tx.init(params)
    for want in (0.25, 0.4375):
        updates, state = tx.update(g, state, params, **RATES)
        np.testing.assert_allclose(updates["kernel"], np.full((2, 2), -0.01 * want), rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "adafactor"])
def test_bfloat16_first_moment_stays_near_float32(name):
    half, state = run(config(name=name, moment_dtype="bfloat16"))
    full, _ = run(config(name=name))
    moments = [x for x in jax.tree.leaves(state) if x.dtype == jnp.bfloat16]
    assert {x.shape for x in moments} == {x.shape for x in jax.tree.leaves(half)}
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(full)):
        assert a.dtype == jnp.float32
        if name != "lion":  # a sign may flip
            np.testing.assert_allclose(a, b, atol=2e-3)


def test_a_bfloat16_moment_decays_by_b1_and_not_by_what_bfloat16_has_for_it():
    """0.9 is 0.8984 there: here each step's product is rounded, and not its factor."""
    params = {"kernel": jnp.zeros((64, 64), jnp.float32)}
    for name in ("adamw", "sgd"):
        tx, _ = optim.make_optimizer(config(name=name, moment_dtype="bfloat16"), params, 10)
        state = jax.tree.map(
            lambda x: jnp.ones_like(x) if x.dtype == jnp.bfloat16 else x, tx.init(params)
        )
        for _ in range(8):
            zeros = {"kernel": jnp.zeros((64, 64), jnp.float32)}
            _, state = tx.update(zeros, state, params, **RATES)
        (moment,) = [x for x in jax.tree.leaves(state) if x.dtype == jnp.bfloat16]
        want = 1.0
        for _ in range(8):
            want = float(jnp.asarray(0.9 * want, jnp.float32).astype(jnp.bfloat16))
        np.testing.assert_array_equal(moment.astype(jnp.float32), np.float32(want))


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_the_state_s_paths_are_those_of_the_checkpoints(name):
    """A checkpoint finds its moments by them."""
    tx, _ = optim.make_optimizer(config(name=name, grad_clip_norm=1.0), tree(0), 10)
    found = set(flat(tx.init(tree(0))))
    moments = {"adamw": ("mu", "nu"), "lion": ("mu",), "sgd": ("trace",)}[name]
    want = {f"1/{moment}/{path}" for moment in moments for path in flat(tree(0))} | {"2/count"}
    assert found == want | (set() if name == "sgd" else {"1/count"})


def test_clipping_and_adam_make_no_copy_of_the_gradients():
    """In a branch, as in the step; optax's own clipping makes one."""
    params = {f"l{i}": {"kernel": jnp.zeros((256, 512), jnp.float32)} for i in range(4)}

    def temporary(tx):
        """Bytes of temporary memory, a byte of the parameters."""

        def step(params, state, grads):
            norm = optax.tree.norm(grads)

            def update(both):
                updates, state = tx.update(grads, both[1], both[0], **RATES)
                return optax.apply_updates(both[0], updates), state

            return jax.lax.cond(jnp.isfinite(norm), update, lambda x: x, (params, state)), norm

        state = jax.eval_shape(tx.init, params)
        done = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
        return done.memory_analysis().temp_size_in_bytes / 4 / (4 * 256 * 512)

    ours, _ = optim.make_optimizer(config(grad_clip_norm=1.0, weight_decay=0.1), params, 10)
    assert temporary(ours) < 0.1
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
        assert temporary(optax.with_extra_args_support(theirs)) > 0.9


def test_only_kernels_decay_by_default():
    parts = optim.match_parts(config(weight_decay=0.1), tree(0))
    assert [p for p, part in parts.items() if part.decay] == [
        "image/block/up/kernel",
        "text/out/kernel",
    ]


def test_a_kernel_of_one_dimension_is_a_scale():
    params = {"a": {"kernel": jnp.ones(4)}, "b": {"qkv_kernel": jnp.ones((4, 4))}}
    decay = {p: part.decay for p, part in optim.match_parts(config(), params).items()}
    assert decay == {"a/kernel": False, "b/qkv_kernel": True}


def test_include_and_exclude_change_the_decay_but_never_the_logit_scale():
    cfg = config(weight_decay_include=(".*",), weight_decay_exclude=("text/.*", ".*/bias"))
    decayed = {p for p, part in optim.match_parts(cfg, tree(0)).items() if part.decay}
    everything = set(flat(tree(0)))
    assert decayed == {p for p in everything if p.startswith("image/") and not p.endswith("/bias")}


def test_multipliers_scale_the_update_and_the_first_match_counts():
    rules = (("image/block/.*", 0.5), ("image/.*", 0.0))
    plain = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.3}
    before = flat(tree(0))
    full, _ = run(config(**plain), steps=1)
    scaled, _ = run(config(**plain, learning_rate_multipliers=rules), steps=1)
    for path, value in flat(scaled).items():
        factor = 0.5 if path.startswith("image/block/") else 0.0 if path.startswith("image/") else 1
        want = before[path] + factor * (flat(full)[path] - before[path])
        np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-7, err_msg=path)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "adafactor"])
def test_frozen_parameters_keep_every_bit_and_own_no_state(name):
    cfg = config(name=name, weight_decay=0.5, grad_clip_norm=1.0, freeze=("image/.*",))
    got, state = run(cfg)
    text_only = {k: v for k, v in tree(0).items() if k != "image"}
    for path, value in flat(got["image"]).items():
        assert value.tobytes() == flat(tree(0)["image"])[path].tobytes(), path
    for path, value in flat({k: v for k, v in got.items() if k != "image"}).items():
        assert np.any(value != flat(text_only)[path]), path
    alone, _ = optim.make_optimizer(config(name=name), text_only, 10)
    sizes = [sum(x.size for x in jax.tree.leaves(s)) for s in (state, alone.init(text_only))]
    assert sizes[0] == sizes[1]


def test_frozen_gradients_do_not_count_in_the_clip():
    cfg = config(name="sgd", momentum=0.0, learning_rate=1.0, grad_clip_norm=1.0, freeze=("a",))
    params = {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros(2, jnp.float32)}
    tx, _ = optim.make_optimizer(cfg, params, 10)
    grads = {"a": jnp.full(2, 1e6, jnp.float32), "b": jnp.asarray([0.3, 0.4], jnp.float32)}
    updates, _ = tx.update(
        grads, tx.init(params), params, learning_rate=np.float32(1), weight_decay=0
    )
    np.testing.assert_allclose(updates["b"], [-0.3, -0.4], rtol=1e-6)
    assert optim.frozen_mask(cfg, params) == {"a": True, "b": False}


@settings(max_examples=25)
@given(scale=st.floats(1e-6, 1e6), max_norm=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_clip_bounds_the_norm_and_keeps_the_direction(scale, max_norm, seed):
    grads = jax.tree.map(lambda g: g * jnp.float32(scale), tree(seed))
    clipped, _ = update_rules.clip_by_global_norm(max_norm).update(grads, optax.EmptyState())
    a, b = (
        np.concatenate([v.ravel() for v in flat(t).values()]).astype(np.float64)
        for t in (grads, clipped)
    )
    norm = np.linalg.norm(a)
    assert np.linalg.norm(b) == pytest.approx(min(norm, max_norm), rel=1e-5)
    np.testing.assert_allclose(b / np.linalg.norm(b), a / norm, rtol=1e-5, atol=1e-7)


def test_clip_of_zero_gradients_is_zero():
    zeros = {"a": jnp.zeros(3, jnp.float32)}
    clipped, _ = update_rules.clip_by_global_norm(1.0).update(zeros, optax.EmptyState())
    np.testing.assert_array_equal(clipped["a"], np.zeros(3))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"freeze": ("imag/.*",)}, r"freeze has 'imag/\.\*'.*nearest are image/"),
        ({"freeze": ("image",)}, "matches no parameter's whole path"),
        ({"weight_decay_exclude": (".*/kernels",)}, "weight_decay_exclude .*kernel"),
        ({"weight_decay_include": ("x",)}, "weight_decay_include"),
        ({"learning_rate_multipliers": (("text/oot/kernel", 0.1),)}, "nearest are text/out/kernel"),
        ({"learning_rate_multipliers": (("text/.*", -1.0),)}, "factor -1.0"),
        ({"learning_rate_multipliers": ("text/.*",)}, "is a pair"),
        ({"freeze": ("(",)}, "no regular expression"),
        ({"name": "adam"}, "name is 'adam'"),
        ({"grad_clip_norm": 0.0}, "grad_clip_norm is 0.0"),
    ],
)
def test_bad_rules_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        optim.make_optimizer(config(**fields), tree(0), 10)


def test_learning_rates_and_the_table_show_the_rules():
    cfg = config(
        weight_decay=0.1, freeze=("text/.*",), learning_rate_multipliers=(("image/.*", 0.1),)
    )
    _, schedule = optim.make_optimizer(cfg, tree(0), 10)
    assert optim.learning_rates(cfg, schedule, 3) == pytest.approx(
        {"learning_rate": 0.01, "learning_rate/image/.*": 0.001}
    )
    lines = optim.describe(tree(0), cfg).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    rows = {name: rest for name, *rest in cells}
    assert rows["image/block/up/kernel"] == ["3×8×4", "96", "× 0.1", "yes"]
    assert rows["text/out/kernel"] == ["8×4", "32", "frozen", ""]
    assert rows["logit_scale"] == ["scalar", "1", "× 1", ""]
    total = sum(v.size for v in flat(tree(0)).values())
    assert lines[-1] == f"{total:,} parameters, {total - 88 - 32:,} trained"
