"""CLIP's whole training step on TPUs, by the compiler: ours against plain Linen and optax.

    python experiments/benchmarks/linen_step.py --topologies v5e:16x16   # needs the extra tpu-plan
    python experiments/benchmarks/linen_step.py --toy --topologies gpu:h100x2   # all, in seconds

"linen" is built from Linen's and optax's own parts: nn.Conv and nn.Embed, pre-LN towers out of
nn.MultiHeadDotProductAttention and nn.Dense with nn.remat in nn.scan (`tpu_step.linen`), all logits
at once, optax.adamw with clipping; the batch is sharded over the chips, parameters are replicated.
"ours" is the config's own step, as `mmjax.plan` compiles it (--config.KEY=VALUE as in train). Both
have the sizes, the batch and the dtypes of the config. Nothing is run.
"""

import argparse
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import tpu_step  # noqa: E402
from topologies import cases_of, markdown  # noqa: E402

from mmjax.plan import chips  # noqa: E402

FORMS = ("linen", "ours")


def linen_clip(config):
    """The config's CLIP (class token, end token, no dropout) from Linen's own layers."""
    import flax.linen as nn
    import jax.numpy as jnp

    from mmjax.models.systems import make_system

    model = make_system(config).model
    image, text = model.image_tower(parent=None), model.text_tower(parent=None)
    half = jnp.bfloat16

    class CLIP(nn.Module):
        @nn.compact
        def __call__(self, pixels, tokens, mask):
            size, normal = image.sizes, nn.initializers.normal(0.02)
            width, patch = size["width"], (size["patch_size"],) * 2
            x = (pixels / 255.0 - jnp.array(image.image_mean)) / jnp.array(image.image_std)
            x = nn.Conv(width, patch, strides=patch, use_bias=False, dtype=half)(x.astype(half))
            x = x.reshape(x.shape[0], -1, width)
            first = self.param("class_token", normal, (1, 1, width)).astype(half)
            x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, width)), x], axis=1)
            x = x + self.param("image_position", normal, (1, *x.shape[1:])).astype(half)
            x = nn.LayerNorm(1e-5, dtype=half)(x)
            x = tpu_step.linen(size["depth"], width, size["heads"], False)(x, True)
            x = nn.LayerNorm(1e-5, dtype=half)(x[:, 0])
            x = nn.Dense(config.model.embed_dim, use_bias=False)(x.astype(jnp.float32))

            size = text.sizes
            width = size["width"]
            y = nn.Embed(text.vocab_size, width, dtype=half)(tokens)
            y = y + self.param("text_position", normal, (1, *y.shape[1:])).astype(half)
            y = tpu_step.linen(size["depth"], width, size["heads"], True)(y, True)
            y = nn.LayerNorm(1e-5, dtype=half)(y[jnp.arange(len(y)), mask.sum(1) - 1])
            y = nn.Dense(config.model.embed_dim, use_bias=False)(y.astype(jnp.float32))

            scale = self.param("logit_scale", nn.initializers.constant(2.659), ())
            unit = lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
            return jnp.exp(jnp.minimum(scale, 4.605)) * unit(x) @ unit(y).T

    return CLIP()


def linen_step(config, topology):
    """The lowered step of `linen_clip` with optax's AdamW, donated state, data parallel."""
    import jax
    import jax.numpy as jnp
    import optax

    from mmjax import sharding
    from mmjax.layers.platform import compiling_for

    model, optim = linen_clip(config), config.optim
    mesh = sharding.make_mesh(None, topology.devices())
    rate = optax.warmup_cosine_decay_schedule(
        0.0, optim.learning_rate, optim.warmup_steps, config.total_steps
    )
    decays = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    adamw = optax.adamw(rate, optim.b1, optim.b2, optim.eps, weight_decay=0.2, mask=decays)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), adamw)

    def loss(params, batch):
        logits, labels = model.apply({"params": params}, *batch), jnp.arange(config.batch_size)
        both = [
            optax.softmax_cross_entropy_with_integer_labels(one, labels).mean()
            for one in (logits, logits.T)
        ]
        return sum(both) / 2

    def step(params, state, batch):
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    split, whole = sharding.batch_sharding(mesh), sharding.named(mesh)
    height, width = config.model.image.image_size
    shapes = [
        ((height, width, 3), "uint8"),
        *(((config.model.text.length,), d) for d in ("i4", "?")),
    ]

    def batch(size, lies=None):
        return [jax.ShapeDtypeStruct((size, *s), d, sharding=lies) for s, d in shapes]

    def made():
        params = model.init(jax.random.key(0), *(jnp.zeros(x.shape, x.dtype) for x in batch(1)))
        return params["params"], optimizer.init(params["params"])

    with (
        jax.set_mesh(mesh),
        compiling_for(topology.platform),
        jax.numpy_dtype_promotion("standard"),
    ):
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), jax.eval_shape(made)
        )
        jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=(whole, whole, whole))
        return jitted.lower(*state, batch(config.batch_size, split))


def measure(topology: chips.Topology, form: str, config) -> dict:
    """One form: seconds of a step, memory, and the config's FLOPs over them."""
    from mmjax.plan import estimate

    started = time.perf_counter(), time.process_time()
    case = {"topology": topology.name, "form": form}
    if form == "ours":
        found = estimate.estimate(config, topology)
        case |= {"compute": found.compute_seconds, "network": found.network_seconds}
        case |= {"mfu": found.mfu, "memory": found.memory, "kernels": found.kernel_seconds}
        case["unknown"] = [*found.unknown_loops, *found.unknown_kernels]
    else:
        chip = topology.chip
        memory, costs = estimate.compile_for(linen_step(config, topology), topology)
        case |= {"memory": memory, "network": costs.sent / chip.link, "kernels": 0.0}
        case |= {"compute": costs.cycles / chip.clock if costs.cycles else None, "mfu": None}
        case["unknown"] = list(costs.unknown_loops)
        if case["compute"]:
            step = case["compute"] + case["network"]
            peak = chip.flops * topology.count
            case["mfu"] = estimate.model_flops(config, topology) / step / peak
    seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    return {**case, "seconds": seconds}


def table(cases: list[dict]) -> str:
    """Markdown: a row per form."""
    head = ["topology", "form", "computation, ms", "of it kernels", "collectives, ms", "MFU"]
    return markdown([*head, "temporaries, GiB", "peak, GiB"], cases, _cells)


def _cells(case: dict) -> list[str]:
    cells = [case["topology"], case["form"], *["–"] * 4]
    if case["compute"] is not None:
        cells[2:5] = [f"{1e3 * case[k]:,.1f}" for k in ("compute", "kernels", "network")]
    if case["mfu"] is not None:
        cells[5] = f"{case['mfu']:.1%}"
    held = [case["memory"].get(k) for k in ("activations", "peak")]
    return cells + ["–" if n is None else f"{n / chips.GIB:.1f}" for n in held]


def main() -> None:
    """Each topology in a process of its own, as libtpu and fake devices are set before jax."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topologies", nargs="+", default=["v5e:16x16"])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--batch", type=int, default=128, help="per chip")
    parser.add_argument("--config", default=str(HERE.parents[1] / "configs/clip_b16_laion2b.py"))
    parser.add_argument("--toy", action="store_true", help="tiny sizes")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    if args.one:
        chips.prepare(args.topologies[0])
        from mmjax import config as configs

        topology = chips.parse(args.topologies[0])
        batch = 2 if args.toy else args.batch
        config = configs.load(
            args.config, [f"--config.batch_size={batch * topology.count}", *overrides]
        )
        if args.toy:
            small = {"width": 128, "depth": 2, "heads": 2, "mlp_dim": 512}
            with config.unlocked():
                config.model.image.update(small, image_size=(32, 32))
                config.model.text.update(small, vocab_size=64, length=8)
        for form in args.forms:
            print(json.dumps(measure(topology, form, config)), flush=True)
        return
    print(table(cases_of(__file__, args.topologies)))


if __name__ == "__main__":
    main()
