r"""Weak scaling: the estimated time of a step as chips are added at a fixed batch per chip.

    python experiments/benchmarks/weak_scaling.py                  # needs the extra tpu-plan
    python experiments/benchmarks/weak_scaling.py --config tests/helpers/tiny_clip.py --batch 4 \
        --topologies gpu:h100x2 gpu:h100x4                         # all of it, in seconds

Compiles the real step of a config for each topology, as `mmjax.plan` does, with --batch examples
per chip, and prints what it reads from the program. Settings as in train (--config.KEY=VALUE).
Nothing is run. For TPUs it also writes weak_scaling.png beside this file.
"""

import argparse
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from topologies import cases_of, markdown  # noqa: E402

from mmjax.plan import chips  # noqa: E402


def measure(args: argparse.Namespace, overrides: list[str]) -> dict:
    """One topology: seconds per step, bytes sent per chip, and peak memory."""
    from mmjax import config as configs
    from mmjax.plan.estimate import estimate

    topology = chips.parse(args.topologies[0])
    batch = args.batch * topology.count
    config = configs.load(args.config, [f"--config.batch_size={batch}", *overrides])
    started = time.process_time()
    found = estimate(config, topology)
    return {
        "topology": topology.name,
        "chips": topology.chips,
        "batch": batch,
        "compute": found.compute_seconds,
        "network": found.network_seconds,
        "step": found.step_seconds,
        "mfu": found.mfu,
        "sent": {kind: traffic.sent for kind, traffic in found.collectives.items()},
        "peak": found.memory["peak"],
        "unknown": [*found.unknown_loops, *found.unknown_kernels],
        "seconds": (found.compile_seconds, time.process_time() - started),
    }


def table(cases: list[dict]) -> str:
    """Markdown: a row per topology, each step relative to the first's."""
    head = ["topology", "batch", "computation, ms", "MB sent by a chip", "collectives, ms"]
    head += ["step, ms", "of the first", "MFU", "peak, GiB"]
    return markdown(head, cases, lambda case: _cells(case, cases[0]))


def _cells(case: dict, first: dict) -> list[str]:
    times = ["–"] * 5
    if case["step"] is not None:
        times = [f"{1e3 * case[k]:,.1f}" for k in ("compute", "network", "step")]
        times += [f"{case['step'] / first['step']:.3f}", f"{case['mfu']:.1%}"]
    compute, network, *rest = times
    sent = f"{sum(case['sent'].values()) / 1e6:,.0f}"
    cells = [case["topology"], f"{case['batch']:,}", compute, sent, network, *rest]
    return [*cells, f"{case['peak'] / chips.GIB:.1f}"]


def draw(cases: list[dict], path: Path) -> None:
    """The step's parts against the number of chips, and 10 % around the first."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(4.6, 3.4))
    count, first = [c["chips"] for c in cases], 1e3 * cases[0]["step"]
    axis.fill_between(count, 0.9 * first, 1.1 * first, color="0.9", label="10 % around the first")
    for key, label, marker in (("step", "step", "o"), ("compute", "computation alone", "s")):
        axis.plot(count, [1e3 * c[key] for c in cases], marker=marker, label=label)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="chips", ylabel="ms, estimated", ylim=(0, 1.25 * first), xticks=count)
    axis.set_xticklabels(count)
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Each topology in a process of its own, as libtpu and fake devices are set before jax."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tpus = ["v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16"]
    parser.add_argument("--topologies", nargs="+", default=tpus, help="smallest first")
    parser.add_argument("--config", default=str(HERE.parents[1] / "configs/clip_b16_laion2b.py"))
    parser.add_argument("--batch", type=int, default=128, help="per chip")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    if args.one:
        chips.prepare(args.topologies[0])
        print(json.dumps(measure(args, overrides)), flush=True)
        return
    cases = cases_of(__file__, args.topologies)
    if all(chips.parse(c["topology"]).platform == "tpu" and c["step"] for c in cases):
        draw(cases, HERE / "weak_scaling.png")
    print(table(cases))


if __name__ == "__main__":
    main()
