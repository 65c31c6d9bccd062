"""LoRA against slow references, on one device and on a mesh; through checkpoints and back."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax.optim import lora
from mmjax.optim import optimizer as optim
from mmjax.plan import flops
from mmjax.workdir import checkpoint
from mmjax.workdir.saved import restore_params

TARGETS = (".*/attention/.*/kernel", "text/.*/up/kernel", "image/stem/.*")
LORA = {"rank": 3, "alpha": 6.0, "targets": TARGETS}


def build(system="clip", mesh=None, **fields):
    return toy.build(toy.config(system, lora=LORA | fields.pop("lora", {}), **fields), mesh)


def flat(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def assert_same(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def slow_sum(kernel, a, b, alpha, layers, inputs):
    """W + alpha / r Σ_k a[..., k] b[k, ...], an element after the other."""
    out = np.array(kernel, np.float64)
    for index in itertools.product(*map(range, kernel.shape)):
        outer, into, onto = index[:layers], index[layers:inputs], index[inputs:]
        for k in range(a.shape[-1]):
            out[index] += alpha / a.shape[-1] * a[(*outer, *into, k)] * b[(*outer, k, *onto)]
    return out


@pytest.mark.parametrize(
    ("shape", "layers", "inputs"),
    [((5, 4), 0, 1), ((2, 4, 3, 2, 2), 1, 2), ((2, 2, 3, 4), 1, 3), ((3, 3, 2, 4), 0, 3)],
)
def test_a_sum_equals_the_loop(shape, layers, inputs):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=shape).astype(np.float32)
    a = rng.normal(size=(*shape[:inputs], 3)).astype(np.float32)
    b = rng.normal(size=(*shape[:layers], 3, *shape[inputs:])).astype(np.float32)
    got = lora.merged_kernel(jnp.asarray(kernel), jnp.asarray(a), jnp.asarray(b), 1.5)
    want = slow_sum(kernel, a, b, 1.5, layers, inputs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_start_is_that_without_lora():
    run = build("vit", lora={"targets": (".*/attention/qkv/kernel", "head/kernel")})
    params = toy.init(run).params
    assert_same(lora.without(params), toy.init(toy.build(toy.config("vit"))).params)
    added = flat(params["lora"])
    assert any(np.any(x) for name, x in added.items() if name.endswith("/a"))
    assert not any(np.any(x) for name, x in added.items() if name.endswith("/b"))


@pytest.mark.parametrize("system", ["clip", "vit"])
def test_with_b_zero_as_at_the_start_it_is_the_model_itself(system):
    targets = TARGETS if system == "clip" else (".*/attention/qkv/kernel", "head/kernel")
    run = build(system, lora={"targets": targets})
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if "lora" in str(path[0]) and path[-1].key == "b" else x,
        toy.drawn(run).params,
    )
    plain = toy.build(toy.config(system))
    batch = toy.batch(run.config)
    outputs = [
        jax.jit(lambda p, model=model: model.apply({"params": p}, batch))(p)
        for model, p in ((run.learner, params), (plain.model, lora.without(params)))
    ]
    assert_same(*outputs)
    assert any(np.any(x) for name, x in flat(params["lora"]).items() if name.endswith("/a"))


def test_the_sizes_are_those_of_each_kernel_and_layer():
    run = build()
    shapes = {k: v.shape for k, v in flat(run.state.params["lora"]).items()}
    inside = "image/transformer/layers/attention"
    assert shapes[f"{inside}/qkv/kernel/a"] == (2, 16, 3)
    assert shapes[f"{inside}/qkv/kernel/b"] == (2, 3, 3, 2, 8)
    assert shapes[f"{inside}/out/kernel/a"] == (2, 2, 8, 3)
    assert shapes[f"{inside}/out/kernel/b"] == (2, 3, 16)
    assert len(shapes) == 2 * (2 + 2 + 1 + 1)


def reference(run, start, batches):
    """A and B after an SGD step a batch, by jax.grad of the loss of the merged parameters."""
    base, added = lora.without(start), start["lora"]

    def total(added, batch):
        params = flat_sum(base, added)
        outputs = run.model.apply({"params": params}, batch, train=True)
        return toy.means(run.system.loss, outputs, batch)["contrastive"]

    gradient = jax.jit(jax.grad(total))
    for batch in batches:
        grads = gradient(added, batch)
        added = jax.tree.map(lambda p, g: p - 0.1 * g, added, grads)
    return added


def flat_sum(base, added):
    """The merged parameters by matrices, a layer after the other."""
    out = jax.tree.map(lambda x: x, base)
    pairs = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(added)[0]:
        keys = tuple(k.key for k in path)
        pairs.setdefault(keys[:-1], {})[keys[-1]] = leaf
    for keys, pair in pairs.items():
        owner = out
        for key in keys[:-1]:
            owner = owner[key]
        kernel, a, b = owner[keys[-1]], pair["a"], pair["b"]
        if "layers" not in keys:
            kernel, a, b = kernel[None], a[None], b[None]
        rank = a.shape[-1]
        summed = [
            k + 6.0 / 3 * (x.reshape(-1, rank) @ y.reshape(rank, -1)).reshape(k.shape)
            for k, x, y in zip(kernel, a, b)
        ]
        owner[keys[-1]] = jnp.stack(summed) if "layers" in keys else summed[0]
    return out


SGD = {"name": "sgd", "momentum": 0.0, "learning_rate": 0.1, "warmup_steps": 0}


@pytest.fixture(scope="module")
def with_sgd():
    """A config, the start and the batches of a run, and where the reference says that it ends."""
    fields = {"lora": LORA, "loss": {"implementation": "dense"}, "ema": {"decay": 0.9}}
    config = toy.config("clip", depth=1, **fields)
    with config.unlocked():
        config.optim = SGD | {"schedule": "constant"}
    run = toy.build(config)
    start = toy.drawn(run).params
    batches = [toy.batch(config, seed) for seed in range(3)]
    return config, jax.tree.map(np.asarray, start), batches, reference(run, start, batches)


@pytest.mark.parametrize("mesh", [None, toy.MESHES["data=2,fsdp=2,tensor=2"]], ids=["one", "mesh"])
def test_training_equals_the_reference_and_leaves_the_base(with_sgd, mesh):
    config, start, batches, want = with_sgd
    run = toy.build(config, mesh)
    state, history = toy.take_steps(run, toy.drawn(run), batches)
    assert_same(lora.without(state.params), lora.without(start))
    assert_same(lora.without(state.average), lora.without(start))
    got = flat(state.params["lora"])
    for name, value in flat(want).items():
        np.testing.assert_allclose(got[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
        assert np.any(value != flat(start["lora"])[name]), name
    assert all(np.isfinite(h["loss"]) for h in history)


def test_the_optimizer_owns_state_for_the_additions_alone():
    run = build(optim={"name": "adamw"})
    added = flat(run.state.params["lora"])
    arrays = [x for x in jax.tree.leaves(run.state.opt_state) if x.shape]
    assert len(arrays) == 2 * len(added)
    assert sum(x.size for x in arrays) == 2 * sum(x.size for x in added.values())
    described = optim.describe(run.state.params, run.config.optim)
    assert f"{sum(x.size for x in added.values()):,} trained" in described


def test_through_a_checkpoint_and_on(tmp_path):
    """Merged equals unmerged; what is read for evaluation is merged; a resume goes on exactly."""
    run = build(depth=1, ema={"decay": 0.5})
    batches = [toy.batch(run.config, seed) for seed in range(4)]
    start = toy.drawn(run)
    half, _ = toy.take_steps(run, jax.tree.map(jnp.copy, start), batches[:2])
    merged = run.eval_variables(half)["params"]
    batch = toy.put(run, batches[3])
    with jax.set_mesh(run.mesh):
        embed = jax.jit(lambda params: run.learner.apply({"params": params}, batch)["image_embed"])
        whole, plain = embed(half.average), embed(merged)
        bare = embed(lora.without(half.average))
    np.testing.assert_allclose(whole, plain, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(plain) - bare).max() > 1e-3

    saves = checkpoint.Checkpoints(tmp_path)
    saves.save(2, half, {"step": 2, "config": configs.to_json(run.config)})
    saves.wait()
    assert_same(restore_params(saves, 2, run.params), merged)
    part = {"text": run.params["text"]}
    assert_same(restore_params(saves, 2, part), {"text": merged["text"]})
    rest, _ = toy.take_steps(run, saves.restore(2, run.state), batches[2:])
    saves.close()
    assert_same(rest, toy.take_steps(run, start, batches)[0])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"config.lora.targets has 'imag/.*', .*kernel's.*image/"):
        build(lora={"targets": ("imag/.*",)})
    with pytest.raises(ValueError, match="rank 0 and alpha 6.0: use a rank"):
        build(lora={"rank": 0})
    with pytest.raises(ValueError, match="adds to text/.*freeze does not freeze: leave freeze emp"):
        build(optim={"freeze": ("image/.*",)})
    some = build(optim={"freeze": ("(?!lora/|logit_scale).*",)})
    mask = flat(optim.frozen_mask(some.config.optim, some.state.params))
    assert not mask["logit_scale"]
    assert mask["text/embedding"]


def test_gradients_of_the_base_are_spared():
    def products(run):
        state, batch = run.state, toy.batch(run.config)
        with jax.set_mesh(run.mesh):
            return flops.count(jax.make_jaxpr(run.train_step)(state, batch, run.numbers(0))).flops

    few = products(build(lora={"targets": ("image/.*/layers/attention/qkv/kernel",)}))
    assert few < 0.8 * products(toy.build(toy.config("clip")))
