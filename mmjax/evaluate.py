"""Run a config's evaluators on any checkpoint, and write the results and the report.

python -m mmjax.evaluate --workdir=runs/clip_emoji
python -m mmjax.evaluate --workdir=runs/clip_emoji --step=500 --config.evals.seen.k=10
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        command.WORKDIR,
        *command.PROCESSES,
        ("--step", {"type": int, "help": "which checkpoint; the newest if not given"}),
    )

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mmjax import config as configs
from mmjax.data.text.tokenizer import Tokenizer, load_tokenizer
from mmjax.evals import evaluators as evaluator_kinds
from mmjax.evals.evaluators import Evaluator
from mmjax.process import distributed
from mmjax.report import gather
from mmjax.run import experiment
from mmjax.run.evaluation import Runner
from mmjax.system import Variables, variables
from mmjax.workdir import checkpoint, metrics
from mmjax.workdir import lock as workdir_lock


def make_evaluators(run: experiment.Experiment, workdir: Path) -> dict[str, Evaluator]:
    """The evaluators of `config.evals`, bound to this run."""
    runner = Runner(run, workdir, _progress)
    for field in ("validation", "evals_at_start"):
        for name in run.config.get(field, ()):
            if name not in run.config.evals:
                raise ValueError(
                    f"config.{field} names '{name}'; config.evals has {sorted(run.config.evals)}."
                )
    return evaluator_kinds.make_evaluators(run.config.evals, runner)


def check_evaluators(evaluators: Mapping[str, Evaluator]) -> None:
    """Raise ValueError for what they would stumble on at the end of a long training."""
    for name, evaluator in evaluators.items():
        with evaluator_kinds.said_of(name):
            evaluator.check()


def run_evaluators(
    evaluators: Mapping[str, Evaluator], variables: Variables, names: Iterable[str]
) -> dict[str, float]:
    """Results of the evaluators named: "evaluation/metric" -> value."""
    return {
        f"{name}/{metric}": float(value)
        for name in names
        for metric, value in evaluators[name].run(variables)
    }


def before_training(
    run: experiment.Experiment,
    evaluators: Mapping[str, Evaluator],
    variables: Variables,
    workdir: Path,
    writer: metrics.MetricWriter,
) -> None:
    """Run the evaluators of `config.evals_at_start` and record what they say in run.json."""
    names = run.config.evals_at_start
    if not names:
        return
    results = run_evaluators(evaluators, variables, names)
    writer.write(0, {f"eval/{name}": value for name, value in results.items()})
    if distributed.is_main():
        presets = {name: evaluators[name].fingerprint() for name in names}
        metrics.write_manifest(workdir, start={"evaluators": presets, "values": results})


def _at_start(evaluators: Mapping[str, Evaluator], workdir: Path) -> dict[str, float]:
    """What `before_training` recorded, as far as the evaluators are still the same."""
    start = read_manifest(workdir).get("start", {"evaluators": {}, "values": {}})
    same = {n for n, e in evaluators.items() if start["evaluators"].get(n) == e.fingerprint()}
    return {k: v for k, v in start["values"].items() if k.split("/", 1)[0] in same}


def finish(
    run: experiment.Experiment,
    evaluators: Mapping[str, Evaluator],
    variables: Variables,
    step: int,
    workdir: Path,
    writer: metrics.MetricWriter,
) -> dict[str, float]:
    """Evaluate, record, report and print; what was already evaluated so is only printed."""
    if not evaluators:
        print(f"{workdir} is done: step {step}; config.evals is empty, so there are no results")
        return {}
    presets = {name: evaluator.fingerprint() for name, evaluator in evaluators.items()}
    before = read_manifest(workdir).get("results", {})
    report = workdir / "report.html"
    done = before.get("step") == step and before.get("evaluators") == presets and report.exists()
    distributed.check_same("what run.json says is evaluated", str(done))
    if done:
        print(f"{workdir} is done: step {step} is trained and evaluated")
        results = before["values"]
    else:
        results = run_evaluators(evaluators, variables, evaluators)
        writer.write(step, {f"eval/{name}": value for name, value in results.items()})
        if distributed.is_main():
            start = _at_start(evaluators, workdir)
            change = {k: results[k] - v for k, v in start.items() if k in results}
            metrics.write_manifest(
                workdir,
                results={"step": step, "evaluators": presets, "values": results}
                | ({"change": change} if change else {}),
            )
        write_report(run, evaluators, variables, step, results, workdir)
    writer.close()
    print_results(results)
    print_change(_at_start(evaluators, workdir), results)
    print(f"report: {report}")
    return results


def write_report(
    run: experiment.Experiment,
    evaluators: Mapping[str, Evaluator],
    variables: Variables,
    step: int,
    results: Mapping[str, float],
    workdir: Path,
) -> None:
    """Write `<workdir>/report.html`; the evaluators of `config.validation` get figures alone.

    All processes gather what it shows, process 0 writes it.
    """
    config, git = run.config, metrics.git_revision()
    shown = {n: e for n, e in evaluators.items() if n not in config.validation}
    baselines = _read_baselines(config.baselines)
    runner = next(iter(evaluators.values())).runner
    data = gather.gather_report(runner, variables, shown, seed=config.seed)
    if not distributed.is_main():
        return
    from mmjax.report import page  # not sooner: matplotlib takes a second before the first step

    sizes = {k: sum(x.size for x in jax.tree.leaves(tree)) for k, tree in run.params.items()}
    towers = ", ".join(f"{k} {n:,}" for k, n in sizes.items() if n > 1000)
    page.write_report(
        workdir,
        title=config.name,
        facts={
            "Parameters": f"{sum(sizes.values()):,} ({towers})",
            "Trained for": f"{step:,} steps of {config.batch_size:,} examples",
            "Devices": f"{len(jax.devices())} × {jax.devices()[0].device_kind}",
            "Revision": git["revision"][:12] + " (changed)" * git["dirty"] if git else "unknown",
        },
        results=_nested(results),
        data=data,
        config=config.to_dict(),
        baselines=baselines,
        before=_nested(_at_start(evaluators, workdir)),
        fingerprints={name: e.fingerprint() for name, e in evaluators.items()},
    )


def _nested(results: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """evaluation -> metric -> value."""
    nested: dict[str, dict[str, float]] = {}
    for key, value in results.items():
        name, metric = key.split("/", 1)
        nested.setdefault(name, {})[metric] = value
    return nested


def _read_baselines(path: str) -> dict[str, Any]:
    if not path:
        return {}
    if not Path(path).exists():
        raise ValueError(f"config.baselines is '{path}': there is no such file.")
    return json.loads(Path(path).read_text())["results"]


def read_manifest(workdir: Path) -> dict[str, Any]:
    """What run.json holds; empty where there is none."""
    path = workdir / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def print_results(results: Mapping[str, float]) -> None:
    """Print a table for each set of metrics: a row an evaluation, a column a metric."""
    for table in metrics.by_columns(results):
        print()
        metrics.print_table([{"evaluation": name, **row} for name, row in table.items()])
    print()


def print_change(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Print the figures of before training beside those of now; nothing where there are none."""
    rows = [
        {"figure": name, "before": value, "after": after[name], "change": after[name] - value}
        for name, value in before.items()
        if name in after
    ]
    if rows:
        metrics.print_table(rows, title="before and after training")
        print()


class Saved(NamedTuple):
    """A checkpoint of a workdir, opened: what it was trained as; its arrays are yet to be read."""

    checkpoints: checkpoint.Checkpoints
    step: int
    config: configs.ConfigDict
    tokenizer: Tokenizer | None
    class_names: list[str] | None  # of the training set


def open_checkpoint(
    workdir: Path, at_step: int | None = None, overrides: Iterable[str] = ()
) -> Saved:
    """Open a checkpoint of a workdir for reading.

    Args:
      at_step: which one; None is the newest.

    Raises:
      ValueError: no such checkpoint.
    """
    saves = checkpoint.Checkpoints(workdir, read_only=True)
    steps = saves.steps()
    if not steps or (at_step is not None and at_step not in steps):
        raise ValueError(
            f"'{workdir}' has no checkpoint {'' if at_step is None else f'of step {at_step}'}; "
            f"there are {steps}."
        )
    at = steps[0] if at_step is None else at_step
    saved = saves.run(at)
    config = configs.override(configs.from_json(saved["config"]), overrides)
    with distributed.main_first("reading the tokenizer"):
        if saved["tokenizer"]:
            experiment.write_tokenizer(workdir, saved["tokenizer"])
        tokenizer = load_tokenizer(workdir / "tokenizer") if saved["tokenizer"] else None
    return Saved(saves, at, config, tokenizer, saved.get("class_names"))


def open_run(
    workdir: Path, at_step: int | None = None, overrides: Iterable[str] = ()
) -> tuple[experiment.Experiment, Variables, int]:
    """What a checkpoint of a workdir was trained as, its variables and its step.

    Raises:
      ValueError: no such checkpoint, or settings that do not fit it.
    """
    saved = open_checkpoint(workdir, at_step, overrides)
    run = experiment.build(saved.config, saved.tokenizer)
    saves, average = saved.checkpoints, run.config.ema.evaluate
    with jax.set_mesh(run.mesh):
        params = saves.restore_params(saved.step, run.params, average=average)
        memory = saves.restore_memory(saved.step, run.state.memory)
    saves.close()
    return run, variables(params, memory), saved.step


def evaluate(
    workdir: Path, at_step: int | None = None, overrides: Iterable[str] = ()
) -> dict[str, float]:
    """Evaluate a checkpoint of a workdir with the evaluators of its config; see `open_run`."""
    run, given, at = open_run(workdir, at_step, overrides)
    writer = metrics.MetricWriter(workdir, console=False, process_index=jax.process_index())
    return finish(run, make_evaluators(run, workdir), given, at, workdir, writer)


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\r\033[K" if done >= total else ""
        sys.stderr.write(f"\r  evaluating: {what} {done}/{total}{end}")
        sys.stderr.flush()


def main() -> None:
    """The command."""
    workdir = Path(ARGS.workdir)
    if not (workdir / "checkpoints").is_dir():
        raise ValueError(f"There is no run in '{workdir}': it has no folder checkpoints.")
    distributed.initialize(ARGS)
    with workdir_lock.held_by_run(workdir):
        evaluate(workdir, ARGS.step, ARGS.overrides)


if __name__ == "__main__":
    command.run(main)
