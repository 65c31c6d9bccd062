r"""Interpolate between a fine-tuned model and its base, and evaluate each mixture (WiSE-FT).

    python -m mmjax.interpolate --tuned=runs/mine --out=runs/mine_curve \
        --target=held_out/text_to_image/recall@1 --retained=old/text_to_image/recall@1

The parameters (1 − α) · base + α · tuned are evaluated for each α, by those evaluators of the tuned
run's config that --target and --retained name; curve.md, curve.json and curve.svg in OUT are
rewritten after each α. --save=0.5 also saves that mixture.
Source: Wortsman et al. 2022 (arXiv 2109.01903), section 2.
"""

# ruff: noqa: E402
from mmjax.process import command

ALPHAS = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--tuned", {"required": True, "help": "the workdir of the fine-tuned run"}),
        ("--base", {"help": "a workdir or a published folder; the tuned run's init_from.path"}),
        ("--out", {"required": True, "help": "the folder to write"}),
        ("--target", {"default": "", "help": "a metric of the new task: evaluation/metric"}),
        ("--retained", {"default": "", "help": "metrics to retain, separated by commas"}),
        ("--alphas", {"default": ALPHAS, "help": "each from 0 to 1, separated by commas"}),
        ("--save", {"metavar": "ALPHA", "help": "save this mixture as OUT/alpha_ALPHA"}),
        (
            "--save_as",
            {
                "choices": ("workdir", "pretrained"),
                "default": "workdir",
                "help": "an mmjax checkpoint, or a folder in the published layout",
            },
        ),
    )

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmjax import config as configs
from mmjax import evaluate, pretrained, storage
from mmjax.evals.evaluator import Evaluator
from mmjax.run import experiment, initial
from mmjax.run.open_run import open_run
from mmjax.system import Memory, Variables, memory_of, variables
from mmjax.workdir import checkpoint
from mmjax.workdir.manifest import git_revision
from mmjax.workdir.saved import tokenizer_files


def mix(base: Any, tuned: Any, alpha: float) -> Any:
    """(1 − α) · base + α · tuned for every parameter; exactly one of them at α 0 and 1.

    Raises:
      ValueError: an α outside [0, 1].
    """
    _check(alpha)

    def one(a, b):
        weight = jnp.asarray(alpha, a.dtype)
        return (1 - weight) * a + weight * b

    return jax.tree.map(one, base, tuned)


def _check(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: use one from 0 (the base) to 1 (the tuned model).")


def curve(
    base: Any,
    tuned: Any,
    evaluators: Mapping[str, Evaluator],
    metrics: Sequence[str],
    alphas: Sequence[float],
    memory: Memory,
) -> Iterator[dict[str, float]]:
    """For each α the mixture's metrics: {"alpha": α, "evaluation/metric": value, ...}.

    Args:
      evaluators: by name; those that the metrics need are run.
      memory: state beside the parameters, of the tuned model.

    Raises:
      ValueError: an α outside [0, 1], or a metric that no evaluator gives.
    """
    for alpha in alphas:
        _check(alpha)
    names = list(dict.fromkeys(metric.split("/", 1)[0] for metric in metrics))
    for name in names:
        if name not in evaluators:
            raise ValueError(
                f"The tuned run's config has no evaluation '{name}'; it has "
                f"{', '.join(evaluators)}.{configs.nearest(name, evaluators)}"
            )
    for alpha in alphas:
        mixed = variables(mix(base, tuned, alpha), memory)
        results = evaluate.run_evaluators(evaluators, mixed, names)
        for metric in metrics:
            if metric not in results:
                raise ValueError(
                    f"No evaluation gives the metric '{metric}'; there are {', '.join(results)}."
                    + configs.nearest(metric, results)
                )
        yield {"alpha": alpha} | {metric: results[metric] for metric in metrics}


def write_curve(out: Path, rows: Sequence[Mapping[str, float]], about: Mapping[str, Any]) -> None:
    """Write curve.json, curve.md and curve.svg: a row per α, the target, the retained metrics."""
    from mmjax.report import figures  # imported late: matplotlib takes a second

    storage.write(out / "curve.json", json.dumps({**about, "rows": list(rows)}, indent=2) + "\n")
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(f'{row[c]:.4g}' for c in columns)} |" for row in rows]
    storage.write(out / "curve.md", "\n".join(lines) + "\n")
    plot = figures.trade_off(rows, columns[1], columns[2:])
    storage.write(out / "curve.svg", plot.decode())


def save_workdir(
    run: experiment.Experiment, given: Variables, step: int, workdir: Path, about: Mapping[str, Any]
) -> None:
    """Save variables as a checkpoint that can be evaluated, loaded and started from.

    Raises:
      ValueError: the workdir has a run already, or the disk is full.
    """
    saves = checkpoint.Checkpoints(workdir)
    if saves.steps():
        raise ValueError(f"'{workdir}' holds a run already: give another --out.")
    if run.tokenizer is not None:
        run.tokenizer.save(workdir / "tokenizer")
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.lora = configs.defaults().lora  # the additions are merged
    saves.save(
        step,
        {"params": given["params"], "memory": memory_of(given)},
        {
            "step": step,
            "class_names": run.class_names,
            "config": configs.to_json(config),
            "tokenizer": tokenizer_files(workdir),
            "git": git_revision(),
            "interpolation": dict(about),
        },
    )
    saves.close()


def _base_params(run: experiment.Experiment, path: str) -> Any:
    if not path:
        raise ValueError(
            "The tuned run did not start from another model (config.init_from.path is empty): name "
            "the base by --base."
        )
    with jax.set_mesh(run.mesh):
        return initial.parameters_from(path, run.params)[0]


def _save(
    run: experiment.Experiment, tuned: Path, given: Variables, step: int, about: Mapping[str, Any]
) -> None:
    folder = Path(ARGS.out) / f"alpha_{about['alpha']:g}"
    if ARGS.save_as == "workdir":
        save_workdir(run, given, step, folder, about)
    else:
        mixture = dataclasses.replace(
            pretrained.describe(tuned), params=given["params"], memory=memory_of(given)
        )
        pretrained.save_pretrained(mixture, folder)
    print(f"saved: {folder}")


def main() -> None:
    """The command."""
    try:
        alphas = [float(a) for a in ARGS.alphas.split(",") if a.strip()]
        saved = None if ARGS.save is None else float(ARGS.save)
    except ValueError:
        raise ValueError(f"--alphas={ARGS.alphas} --save={ARGS.save}: write numbers.") from None
    for alpha in [*alphas, *([] if saved is None else [saved])]:
        _check(alpha)
    metrics = [m for m in [ARGS.target, *ARGS.retained.split(",")] if m]
    if len(metrics) < 2 and (metrics or saved is None):
        raise ValueError("Name both --target and --retained, for a curve, or a mixture to --save.")
    tuned, out = Path(ARGS.tuned), Path(ARGS.out)
    run, given, step = open_run(tuned, overrides=ARGS.overrides)
    tuned_params, memory = given["params"], memory_of(given)
    base = ARGS.base or run.config.init_from.path
    base_params = _base_params(run, base)
    about = {"base": str(base), "tuned": str(tuned), "step": step}
    if metrics:
        rows = []
        evaluators = evaluate.make_evaluators(run, tuned)
        for row in curve(base_params, tuned_params, evaluators, metrics, alphas, memory):
            rows.append(row)
            print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
            write_curve(out, rows, about)
        print(f"written: {out / 'curve.md'}")
    if saved is not None:
        mixed = variables(mix(base_params, tuned_params, saved), memory)
        _save(run, tuned, mixed, step, about | {"alpha": saved})


if __name__ == "__main__":
    command.run(main)
