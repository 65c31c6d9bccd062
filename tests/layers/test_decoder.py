import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.layers.decoder import Decoder
from mmjax.layers.platform import CPU, compiling_for

B, L, D, S, C, H = 3, 6, 16, 5, 12, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, L, D)).astype(np.float32)
CONTEXT = RNG.normal(size=(B, S, C)).astype(np.float32)
MASK = np.arange(L)[None] < np.asarray([6, 3, 5])[:, None]
CONTEXT_MASK = np.arange(S)[None] < np.asarray([5, 0, 2])[:, None]

LLAMA = {
    "positions": "rope",
    "norm": "rms",
    "gated_mlp": True,
    "activation": "silu",
    "kv_heads": 2,
    "use_bias": False,
}
KINDS = {
    "gpt": {},
    "llama": LLAMA,
    "window": {**LLAMA, "sliding_window": 3, "qkv_bias": True},
    "gemma2": {
        **LLAMA,
        "branch_norm": True,
        "query_dim": 7,
        "attention_cap": 1.5,
        "sliding_window": 3,
        "windowed": (True, False),
    },
    "captioner": {"cross_every": 1},
    "bert": {"cross_every": 1, "embedding_norm": True, "post_norm": True},
    "every second": {"cross_every": 2, "kv_heads": 1, "positions": "none"},
    "flamingo": {"cross_every": 2, "cross_gated": True, **LLAMA},
}


def make(kind, **more):
    """A decoder and parameters none of which is zero."""
    settings = {**KINDS[kind], **more}
    depth = 4 if settings.get("cross_every") == 2 else 2
    model = Decoder(**{"depth": depth, "heads": H, "mlp_dim": 32, "length": 12, **settings})
    shapes = jax.eval_shape(
        lambda: meta.unbox(model.init(jax.random.key(0), X, **inputs(model))["params"])
    )
    rng = np.random.default_rng(1)
    draw = lambda a: 0.3 * rng.normal(size=a.shape).astype(np.float32)  # noqa: E731
    return model, jax.tree.map(draw, shapes)


def inputs(model, mask=CONTEXT_MASK):
    return {"context": CONTEXT, "context_mask": mask} if model.cross_every else {}


# ---- slow and obvious: one example, one token, one head at a time, in float64 --------------------


def norm(x, p, kind):
    if kind == "rms":
        return x / np.sqrt(np.mean(x**2) + 1e-6) * p["scale"]
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * p["scale"] + p["bias"]


def before(m, x, p):
    return x if m.post_norm else norm(x, p, m.norm)


def after(m, x, p):
    return norm(x, p, m.norm) if m.post_norm else x


def dense(x, p, outputs):
    kernel = p["kernel"].reshape(x.size, *outputs)
    return np.tensordot(x.ravel(), kernel, 1) + p.get("bias", np.zeros(outputs))


def turn(x, position):
    half = len(x) // 2
    y = np.zeros_like(x)
    for i in range(half):
        angle = position * 10_000.0 ** (-i / half)
        y[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
        y[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
    return y


def look(query, keys, values, dim=None, cap=None):
    if not keys:
        return np.zeros_like(query)
    logits = np.asarray([query @ k / np.sqrt(dim or len(query)) for k in keys])
    logits = cap * np.tanh(logits / cap) if cap else logits
    e = np.exp(logits - logits.max())
    return sum(w * v for w, v in zip(e / e.sum(), values))


def mlp(x, p, m):
    h = dense(x, p["up"], (32,))
    if m.gated_mlp:
        g = dense(x, p["gate"], (32,))
        h = g / (1 + np.exp(-g)) * h
    else:
        h = np.asarray(jax.nn.gelu(jnp.asarray(h, jnp.float32), approximate=False), np.float64)
    return dense(h, p["down"], (D,))


def cross_attention(m, p, x, context, seen):
    query = dense(x, p["query"], (H, D // H))
    kv = [dense(c, p["key_value"], (2, H, D // H)) for c, s in zip(context, seen) if s]
    y = [look(query[h], [a[0, h] for a in kv], [a[1, h] for a in kv]) for h in range(H)]
    return dense(np.asarray(y), p["out"], (D,))


def slow(m, params, x, mask, context, context_seen):
    """[B, L, D]; context_seen [B, L, S]."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    kv_heads, hd = m.kv_heads or H, D // H
    group = H // kv_heads
    out = np.zeros((B, L, D))
    for b in range(B):
        places = [t for t in range(L) if mask[b, t]]
        xs = {t: x[b, t].astype(np.float64) for t in places}
        if m.positions == "learned":
            xs = {t: v + params["position"]["table"][i] for i, (t, v) in enumerate(xs.items())}
        if m.embedding_norm:
            xs = {t: norm(v, params["norm_embedding"], m.norm) for t, v in xs.items()}
        for i in range(m.depth):
            p = jax.tree.map(lambda a, i=i: a[i], params["stack"]["layers"])
            crosses = m.cross_every and (i + 1) % m.cross_every == 0
            if crosses:
                c = jax.tree.map(lambda a, i=i: a[i // m.cross_every], params["stack"]["cross"])
            for t in places if crosses and m.cross_gated else ():
                if not context_seen[b, t].any():
                    continue
                look_at = (context[b], context_seen[b, t])
                y = norm(xs[t], c["norm_attention"], m.norm)
                y = cross_attention(m, c["attention"], y, *look_at)
                xs[t] = xs[t] + np.tanh(c["gate_attention"]) * y
                y = mlp(norm(xs[t], c["norm_mlp"], m.norm), c["mlp"], m)
                xs[t] = xs[t] + np.tanh(c["gate_mlp"]) * y
            qkv = {}
            for position, t in enumerate(places):
                y = before(m, xs[t], p["norm_attention"])
                qkv[t] = dense(y, p["attention"]["qkv"], (group + 2, kv_heads, hd))
                if m.positions == "rope":
                    for g, k in np.ndindex(group + 1, kv_heads):
                        qkv[t][g, k] = turn(qkv[t][g, k], position)
            for t in places:
                window = m.sliding_window if not m.windowed or m.windowed[i] else None
                past = [qkv[s] for s in places if s <= t][-(window or L) :]
                heads = [
                    look(
                        qkv[t][g, k],
                        [a[group, k] for a in past],
                        [a[group + 1, k] for a in past],
                        m.query_dim,
                        m.attention_cap,
                    )
                    for k in range(kv_heads)
                    for g in range(group)
                ]
                y = dense(np.asarray(heads), p["attention"]["out"], (D,))
                if m.branch_norm:
                    y = norm(y, p["norm_attention_out"], m.norm)
                y = xs[t] + y
                xs[t] = after(m, y, p["norm_attention"])
                if crosses and not m.cross_gated:
                    y = before(m, xs[t], c["norm_attention"])
                    y = cross_attention(m, c["attention"], y, context[b], context_seen[b, t])
                    xs[t] = after(m, xs[t] + y, c["norm_attention"])
                y = mlp(before(m, xs[t], p["norm_mlp"]), p["mlp"], m)
                if m.branch_norm:
                    y = norm(y, p["norm_mlp_out"], m.norm)
                xs[t] = after(m, xs[t] + y, p["norm_mlp"])
        for t in places:
            out[b, t] = xs[t] if m.post_norm else norm(xs[t], params["norm"], m.norm)
    return out


def close(found, expected, mask=MASK):
    np.testing.assert_allclose(np.asarray(found)[mask], expected[mask], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_stack_is_that_of_the_loops(kind):
    model, params = make(kind)
    found = jax.jit(lambda p: model.apply({"params": p}, X, MASK, **inputs(model)))(params)
    seen = np.broadcast_to(CONTEXT_MASK[:, None], (B, L, S))
    close(found, slow(model, params, X, MASK, CONTEXT, seen))


def test_every_token_may_see_its_own_part_of_the_context():
    model, params = make("flamingo")
    seen = RNG.random((B, L, S)) < 0.4
    found = jax.jit(lambda p: model.apply({"params": p}, X, MASK, **inputs(model, seen)))(params)
    close(found, slow(model, params, X, MASK, CONTEXT, seen))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "captioner", "bert", "flamingo"])
def test_a_cache_changes_nothing(kind):
    """Prompts of other lengths, padded left or right; then token by token, and two at once."""
    model, params = make(kind)
    whole = jax.jit(lambda p, x, m: model.apply({"params": p}, x, m, **inputs(model)))
    start = jax.jit(
        lambda p, x, m: model.apply(
            {"params": p}, x, m, **inputs(model), cache_length=9, mutable=["cache"]
        )
    )
    go_on = jax.jit(
        lambda p, c, x, m: model.apply({"params": p, "cache": c}, x, m, mutable=["cache"])
    )
    second = {k: a[1:2] for k, a in inputs(model).items()}
    alone = jax.jit(functools.partial(model.apply, **second))
    for prompt in ([[1, 1, 1], [1, 0, 0], [1, 1, 0]], [[1, 1, 1], [0, 0, 1], [0, 1, 1]]):
        mask = np.concatenate([np.asarray(prompt, bool), np.ones((B, 3), bool)], 1)
        expected = np.asarray(whole(params, X, mask))
        y, v = start(params, X[:, :3], mask[:, :3])
        parts = [y]
        for at, to in ((3, 4), (4, 6)):
            y, v = go_on(params, v["cache"], X[:, at:to], mask[:, at:to])
            parts.append(y)
        close(np.concatenate(parts, 1), expected, mask)
        np.testing.assert_array_equal(v["cache"]["count"], mask.sum(1))
        # each row alone, without its padding
        row = alone({"params": params}, X[1][mask[1]][None])
        np.testing.assert_allclose(row[0], expected[1][mask[1]], rtol=2e-4, atol=2e-4)


def test_a_decoding_step_sees_what_the_prompts_last_token_sees():
    model, params = make("flamingo")
    seen = np.zeros((B, L, S), bool)
    seen[:, :3, 0] = seen[:, 3:, 1] = True  # rows of 3 tokens end with the first image
    seen = inputs(model, seen)
    start = functools.partial(model.apply, **seen, cache_length=8, mutable=["cache"])
    _, v = jax.jit(start)({"params": params}, X, MASK)
    np.testing.assert_array_equal(v["cache"]["cross_seen"].argmax(1), [1, 0, 1])


@pytest.fixture(params=[True, False])
def unrolled(request):
    with compiling_for(dataclasses.replace(CPU, unrolled_layers=request.param)):
        yield


@pytest.mark.usefixtures("unrolled")
def test_closed_gates_leave_the_decoder_exactly_as_it_is():
    model, params = make("flamingo")
    params["stack"]["cross"]["gate_attention"] = np.zeros(2, np.float32)
    params["stack"]["cross"]["gate_mlp"] = np.zeros(2, np.float32)
    plain, like = make("llama", depth=4)
    without = {**params, "stack": {"layers": params["stack"]["layers"]}}
    assert jax.tree.map(np.shape, without) == jax.tree.map(np.shape, like)
    found = jax.jit(lambda p: model.apply({"params": p}, X, MASK, **inputs(model)))(params)
    expected = jax.jit(lambda p: plain.apply({"params": p}, X, MASK))(without)
    np.testing.assert_array_equal(found, expected)


def test_loop_unrolled_and_remat_have_equal_gradients():
    def grads(unrolled, remat):
        model, params = make("flamingo", remat=remat)

        def f(p):
            return jnp.sum(jnp.sin(model.apply({"params": p}, X, MASK, **inputs(model))))

        with compiling_for(dataclasses.replace(CPU, unrolled_layers=unrolled)):
            return jax.jit(jax.grad(f))(params)

    expected = grads(True, "none")
    for found in (grads(False, "none"), grads(True, "full")):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found, expected)


def test_parameters_lie_along_layers_with_names_and_the_gates_are_closed():
    model = Decoder(4, H, 32, 12, **KINDS["flamingo"])
    init = jax.jit(lambda: model.init(jax.random.key(0), X, **inputs(model)))
    boxed = init()["params"]["stack"]
    assert not boxed["cross"]["gate_attention"].value.any()
    assert not boxed["cross"]["gate_mlp"].value.any()
    is_box = lambda x: isinstance(x, meta.AxisMetadata)  # noqa: E731
    for part, count in (("layers", 4), ("cross", 2)):
        for box in jax.tree.leaves(boxed[part], is_leaf=is_box):
            assert box.names[0] == "layers" and box.value.shape[0] == count
            assert len(box.names) == box.value.ndim
    kernel = meta.unbox(boxed["layers"])["mlp"]["up"]["kernel"]
    assert all(np.abs(kernel[0] - k).max() > 0.1 for k in kernel[1:])


def test_cross_attention_weights_are_sown():
    model, params = make("captioner")
    _, sown = model.apply({"params": params}, X, MASK, **inputs(model), mutable=["intermediates"])
    weights = sown["intermediates"]["stack"]["layer0"]["cross"]["attention"]["attention_weights"][0]
    assert weights.shape == (2, B, H, L, S)


@pytest.mark.parametrize(
    ("settings", "call", "message"),
    [
        ({"positions": "sine"}, {}, "'learned', 'rope' or 'none'"),
        ({"kv_heads": 3}, {}, "heads 4 is not a multiple of kv_heads 3"),
        ({"cross_every": 3}, {"context": CONTEXT}, "depth 4 is not a multiple of cross_every 3"),
        ({"cross_every": 1}, {}, "needs a context"),
        ({}, {"context": CONTEXT}, "set cross_every"),
        ({"length": 5}, {}, "text of 6 tokens is longer than the model's 5"),
        ({"norm": "batch"}, {}, "Unknown norm 'batch'"),
        ({"sliding_window": 0}, {}, "sliding_window of a decoder is 0"),
        ({"windowed": (True,), "sliding_window": 3}, {}, "windowed .* has 1 values and depth is 4"),
        ({"windowed": (True,) * 4}, {}, "has windowed and no sliding_window"),
        ({"post_norm": True, "branch_norm": True}, {}, "has post_norm and branch_norm"),
        ({"rope_scaling": {"rope_type": "linear"}}, {}, "needs positions 'rope', not 'learned'"),
    ],
)
def test_bad_settings_are_refused(settings, call, message):
    model = Decoder(**{"depth": 4, "heads": H, "mlp_dim": 32, "length": 12, **settings})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), X, **call))


def test_a_prompt_longer_than_the_cache_is_refused():
    model, params = make("gpt")
    with pytest.raises(ValueError, match="6 tokens and the cache 4 slots"):
        model.apply({"params": params}, X, MASK, cache_length=4, mutable=["cache"])
