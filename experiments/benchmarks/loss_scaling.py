"""Memory and traffic of the contrastive loss on each chip as the batch grows, read off programs.

    python experiments/benchmarks/loss_scaling.py --topologies v5e:4x4 v5e:16x16

Compiles the loss alone, forward and backward (gradients by both embeddings, scale and bias, fp32,
D = 512), for global batches from 4,096 to 1,048,576 in each form, with the real TPU compiler where
the topology is one of a TPU, and reads: the bytes that a chip holds (arguments, results, scratch),
and the bytes that leave it in one step. Nothing is run. Needs the extra tpu-plan for TPUs; cpu:8
needs nothing. Writes loss_scaling.png beside this file and prints the tables.
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from topologies import cases_of  # noqa: E402

from mmjax.plan import chips  # noqa: E402

DIM = 512
FORMS = ("dense", "chunked", "ring")
SIZES = tuple(2**k for k in range(12, 21, 2))


def measure(topology: str, kind: str, form: str, n: int) -> dict:
    """One program: bytes a chip holds, and sends by kind; "needs" where it is more than fits."""
    import jax
    import jax.numpy as jnp

    from mmjax import sharding
    from mmjax.layers.platform import compiling_for
    from mmjax.losses.contrastive import contrastive_loss
    from mmjax.plan import compiled
    from mmjax.plan.estimate import compile_or_needs

    parsed = chips.parse(topology)
    mesh = sharding.make_mesh(None, parsed.devices())
    split = sharding.batch_sharding(mesh)
    embed = jax.ShapeDtypeStruct((n, DIM), jnp.float32, sharding=split)
    whole = sharding.named(mesh)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)

    def loss(x, y, scale, bias):
        return contrastive_loss(x, y, scale, bias, kind=kind, implementation=form)[0].mean()

    step = jax.value_and_grad(loss, argnums=(0, 1, 2, 3))
    with jax.set_mesh(mesh), compiling_for(parsed.platform):
        jitted = jax.jit(step, out_shardings=(whole, (split, split, whole, whole)))
        lowered = jitted.lower(embed, embed, scalar, scalar)
    case = {"topology": topology, "kind": kind, "form": form, "n": n, "hbm": parsed.chip.hbm}
    program, needs = compile_or_needs(lowered)
    if program is None:
        return {**case, "needs": needs}
    memory = program.memory_analysis()
    costs = compiled.costs(program.as_text())
    return {
        **case,
        "added": memory.temp_size_in_bytes + memory.output_size_in_bytes,
        "sent": {kind: traffic.sent for kind, traffic in costs.collectives.items()},
        "gather": 4 * (parsed.count - 1) * (n // parsed.count * DIM * 4),
        "ms": 1e3 * costs.cycles / parsed.chip.clock if costs.cycles else None,
    }


def table(cases: list[dict]) -> str:
    """Markdown: one row a batch, the forms beside each other."""
    lines = []
    for topology, kind in dict.fromkeys((c["topology"], c["kind"]) for c in cases):
        mine = [c for c in cases if (c["topology"], c["kind"]) == (topology, kind)]
        here = {(c["n"], c["form"]): c for c in mine}
        head = [f"{form} {what}" for form in FORMS for what in ("MB added", "MB sent", "ms")]
        lines += [f"\n**{topology}, {kind}**\n"]
        lines += ["| N | " + " | ".join(head) + " | gather of both, MB |"]
        lines.append("|---" * (len(head) + 2) + "|")
        for n in dict.fromkeys(n for n, _ in here):
            row = [f"{n:,}"]
            for form in FORMS:
                row += _cells(here.get((n, form)))
            gathers = [c["gather"] for c in mine if c["n"] == n and "gather" in c]
            row.append(f"{gathers[0] / 1e6:,.1f}" if gathers else "–")
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _cells(case: dict | None) -> list[str]:
    if case is None:
        return ["–"] * 3
    if "needs" in case:
        return [f"does not fit ({case['needs'] / 2**30:,.0f} GiB)", "–", "–"]
    ms = "–" if case["ms"] is None else f"{case['ms']:,.2f}"
    return [f"{case['added'] / 1e6:,.1f}", f"{sum(case['sent'].values()) / 1e6:,.1f}", ms]


def draw(cases: list[dict], path: Path) -> None:
    """Bytes a chip against N, one panel a topology and kind, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((c["topology"], c["kind"]) for c in cases))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), sharey=True)
    for axis, panel in zip(axes if len(panels) > 1 else [axes], panels, strict=True):
        here = [c for c in cases if (c["topology"], c["kind"]) == panel]
        for form, marker in zip(FORMS, "so^", strict=True):
            points = [(c["n"], c.get("added", c.get("needs"))) for c in here if c["form"] == form]
            axis.plot(*zip(*points, strict=True), marker=marker, label=form)
        axis.axhline(here[0]["hbm"], color="0.4", linestyle=":", label="memory of a chip")
        axis.set(yscale="log", xlabel="pairs in the global batch", title=", ".join(panel))
        axis.set_xscale("log", base=2)
    figure.axes[0].set_ylabel("bytes that the loss adds on a chip")
    figure.axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Each topology in a process of its own, as libtpu and fake devices are set before jax."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topologies", nargs="+", default=["v5e:4x4", "v5e:16x16"])
    parser.add_argument("--kinds", nargs="+", default=["softmax", "sigmoid"])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        chips.prepare(args.topologies[0])
        for kind in args.kinds:
            for n in args.sizes:
                for form in FORMS:
                    print(json.dumps(measure(args.topologies[0], kind, form, n)), flush=True)
        return
    cases = cases_of(__file__, args.topologies)
    draw(cases, HERE / "loss_scaling.png")
    print(table(cases))


if __name__ == "__main__":
    main()
