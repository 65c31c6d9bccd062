"""A tower's forward and backward pass on TPUs, by the compiler: ours against plain Linen.

    python experiments/benchmarks/tpu_step.py --topologies v5e:1x1 v5e:4x4

Compiles a stack of transformer blocks (ViT-B by default) with its gradients, data parallel, and
prints what the TPU compiler says: cycles per chip, MFU, memory, collectives. "linen" is the same
stack out of nn.MultiHeadDotProductAttention, nn.Dense and nn.LayerNorm with nn.remat in nn.scan.
"ours, none" keeps everything and is unrolled; "ours, dots" is a loop that keeps the products.
Nothing is run. --toy --topologies cpu:8 goes through all of it in seconds, without libtpu.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from topologies import cases_of, markdown  # noqa: E402

from mmjax.plan import chips  # noqa: E402

FORMS = ("linen", "ours, dots", "ours, none")


def linen(depth: int, width: int, heads: int, causal: bool):
    """A pre-LN transformer as Linen's own layers make it: bf16, remat of the products, scan."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            y = nn.LayerNorm(1e-5, dtype=jnp.bfloat16)(x)
            attention = nn.MultiHeadDotProductAttention(
                heads, dtype=jnp.bfloat16, force_fp32_for_softmax=True
            )
            x = x + attention(y, y, mask=mask)
            y = nn.LayerNorm(1e-5, dtype=jnp.bfloat16)(x)
            y = nn.gelu(nn.Dense(4 * width, dtype=jnp.bfloat16)(y), approximate=False)
            return x + nn.Dense(width, dtype=jnp.bfloat16)(y), None

    class Tower(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            mask = nn.make_causal_mask(x[:1, :, 0]) if causal else None
            policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            layers = nn.scan(
                nn.remat(Block, policy=policy, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=depth,
            )
            return layers(name="layers")(x, mask)[0]

    return Tower()


def measure(topology: str, form: str, args: argparse.Namespace) -> dict:
    """One program: its costs per chip."""
    import jax
    import jax.numpy as jnp
    from flax.core import meta

    from mmjax import sharding
    from mmjax.layers.platform import compiling_for
    from mmjax.layers.precision import activation_dtype
    from mmjax.layers.transformer import Transformer
    from mmjax.plan import compiled

    parsed = chips.parse(topology)
    chip, mesh = parsed.chip, sharding.make_mesh(None, parsed.devices())
    depth, width, heads, length = args.depth, args.width, args.heads, args.length
    if form == "linen":
        tower = linen(depth, width, heads, args.causal)
    else:
        tower = Transformer(
            *(depth, heads, 4 * width, args.causal),
            epsilon=1e-5,
            dtype="bfloat16",
            remat=form.removeprefix("ours, "),
        )
    batch, split = args.batch * parsed.count, sharding.batch_sharding(mesh)

    def step(params, x, dy):
        y, vjp = jax.vjp(lambda p, x: tower.apply({"params": p}, x, train=True), params, x)
        return y, vjp(dy)

    with jax.set_mesh(mesh), compiling_for(parsed.platform):
        dtype = jnp.bfloat16 if form == "linen" else activation_dtype("bfloat16")
        x = jax.ShapeDtypeStruct((batch, length, width), dtype, sharding=split)

        def init():
            one = jnp.zeros((1, length, width), dtype)
            return meta.unbox(tower.init(jax.random.key(0), one, train=False)["params"])

        params = jax.eval_shape(init)
        whole = jax.tree.map(lambda _: sharding.named(mesh), params)
        params = jax.tree.map(
            lambda p, lies: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=lies), params, whole
        )
        lowered = jax.jit(step, out_shardings=(split, (whole, split))).lower(params, x, x)
    chips.take_schedules()
    started = time.perf_counter(), time.process_time()
    program = lowered.compile()
    seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    bundles = compiled.schedule(chips.take_schedules())
    costs = compiled.costs(program.as_text(), bundles, chip.cores)
    memory = program.memory_analysis()
    flops = 3 * depth * (24 * width**2 + 4 * length * width) * args.batch * length
    return {
        "topology": topology,
        "form": form,
        "cycles": costs.cycles,
        "kernels": costs.kernel_cycles,
        "unknown": [*costs.unknown_loops, *costs.unknown_kernels],
        "mfu": flops / chip.flops * chip.clock / costs.cycles if costs.cycles else None,
        "network": costs.sent / chip.link if chip.link else None,
        "clock": chip.clock,
        "temporaries": memory.temp_size_in_bytes,
        "seconds": seconds,
    }


def table(cases: list[dict], depth: int) -> str:
    """Markdown: a row per program."""
    head = ["topology", "form", "M cycles a layer", "of it kernels", "MFU", "collectives, ms"]
    return markdown([*head, "temporaries, GB"], cases, lambda case: _cells(case, depth))


def _cells(case: dict, depth: int) -> list[str]:
    cells = [case["topology"], case["form"], "–", "–", "–", "–"]
    if case["cycles"]:
        cells[2:4] = [f"{case[k] / depth / 1e6:.2f}" for k in ("cycles", "kernels")]
        cells[4] = f"{case['mfu']:.1%}"
    if case["network"] is not None and math.isfinite(case["network"]):
        cells[5] = f"{1e3 * case['network']:.2f}"
    return [*cells, f"{case['temporaries'] / 1e9:.2f}"]


def main() -> None:
    """Each topology in a process of its own, as libtpu and fake devices are set before jax."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topologies", nargs="+", default=["v5e:1x1"])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--batch", type=int, default=128, help="per chip")
    for name, value in {"depth": 4, "width": 768, "heads": 12, "length": 197}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--toy", action="store_true", help="tiny sizes")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.toy:
        args.batch, args.depth, args.width, args.heads, args.length = 2, 2, 128, 2, 9
    if args.one:
        chips.prepare(args.topologies[0])
        for form in args.forms:
            print(json.dumps(measure(args.topologies[0], form, args)), flush=True)
        return
    print(table(cases_of(__file__, args.topologies), args.depth))


if __name__ == "__main__":
    main()
