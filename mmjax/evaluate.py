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

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mmjax import config as configs
from mmjax import storage
from mmjax.data import text_file
from mmjax.data.source import Source
from mmjax.evals import evaluators as evaluator_kinds
from mmjax.evals.evaluators import Evaluator
from mmjax.process import distributed
from mmjax.process.progress import Stages
from mmjax.run import experiment
from mmjax.run.evaluation import Runner
from mmjax.run.hold_out import evals_of
from mmjax.run.open_run import open_run
from mmjax.storage import mirror
from mmjax.system import Variables
from mmjax.workdir import lock as workdir_lock
from mmjax.workdir import results as results_file
from mmjax.workdir import tables
from mmjax.workdir.manifest import read_manifest, write_manifest
from mmjax.workdir.metrics import MetricWriter
from mmjax.workdir.trackers import Tracker


def make_evaluators(run: experiment.Experiment, workdir: Path) -> dict[str, Evaluator]:
    """The evaluators of `config.evals`, bound to this run."""
    runner, evals = Runner(run, workdir, Stages()), evals_of(run.config, run.system)
    for field in ("validation", "evals_at_start"):
        for name in run.config.get(field, ()):
            if name not in evals:
                raise ValueError(
                    f"config.{field} names '{name}'; config.evals has {sorted(evals)}."
                )
    _read_baselines(run.config.baselines)  # a wrong file is reported before training
    return evaluator_kinds.make_evaluators(evals, runner)


def make_writer(config: ConfigDict, workdir: Path) -> MetricWriter:
    """The run's metrics, in the workdir and, in process 0, at the tracker of `config.track`."""
    tracker = None
    if config.track.kind:
        tracker = Tracker(config.track, workdir, json.loads(configs.to_json(config)))
    return MetricWriter(workdir, process_index=jax.process_index(), tracker=tracker)


def check_evaluators(evaluators: Mapping[str, Evaluator]) -> dict[str, Source]:
    """The opened sources, by their place in config.evals.

    Raises:
      ValueError: problems that would otherwise show only at the end of training.
    """
    opened = {}
    for name, evaluator in evaluators.items():
        with evaluator_kinds.naming(name):
            opened |= {f"{name}.{key}": source for key, source in evaluator.check().items()}
    return opened


def run_evaluators(
    evaluators: Mapping[str, Evaluator], variables: Variables, names: Iterable[str], step: int = 0
) -> dict[str, float]:
    """Results of the named evaluators: "evaluation/metric" -> value.

    Args:
      step: see `Runner`.
    """
    if not evaluators:
        return {}
    with _runner(evaluators).kept.during(variables):
        return {
            f"{name}/{metric}": value
            for name in names
            for metric, value in run_evaluator(evaluators[name], variables, step).items()
        }


def _runner(evaluators: Mapping[str, Evaluator]) -> Runner:
    """The one that they all have."""
    return next(iter(evaluators.values())).runner


def run_evaluator(evaluator: Evaluator, variables: Variables, step: int) -> dict[str, float]:
    """The results of one evaluator: metric -> value."""
    evaluator.runner.step = step
    return {metric: float(value) for metric, value in evaluator.run(variables)}


def before_training(
    run: experiment.Experiment,
    evaluators: Mapping[str, Evaluator],
    variables: Variables,
    workdir: Path,
    writer: MetricWriter,
) -> dict[str, float]:
    """Run the evaluators of `config.evals_at_start`, and the one that may stop the run early, and
    record their results in run.json."""
    early = run.config.early_stopping.metric.split("/")[0]
    names = dict.fromkeys([*run.config.evals_at_start, *([early] if early else [])])
    if not names:
        return {}
    results = run_evaluators(evaluators, variables, names)
    writer.write(0, {f"eval/{name}": value for name, value in results.items()})
    if distributed.is_main():
        fingerprints = {name: evaluators[name].fingerprint() for name in names}
        write_manifest(workdir, start={"evaluators": fingerprints, "values": results})
    return results


def _at_start(evaluators: Mapping[str, Evaluator], workdir: Path) -> dict[str, float]:
    """The results of `before_training`, for the evaluators that have not changed since."""
    start = read_manifest(workdir).get("start", {"evaluators": {}, "values": {}})
    same = {n for n, e in evaluators.items() if start["evaluators"].get(n) == e.fingerprint()}
    return {k: v for k, v in start["values"].items() if k.split("/", 1)[0] in same}


def finish(
    run: experiment.Experiment,
    evaluators: Mapping[str, Evaluator],
    variables: Variables,
    step: int,
    workdir: Path,
    writer: MetricWriter,
) -> dict[str, float]:
    """Evaluate, record, report and print; an evaluator whose results are there does not run again.

    The run's own results, of its last step and the evaluators of its config, are in run.json,
    metrics.jsonl and report.html. Those of an earlier step or of other settings are in
    results.jsonl and a report of their own in reports/.
    """
    shown = mirror.shown(workdir)
    if not evaluators:
        print(f"{shown} is done: step {step}; config.evals is empty, so there are no results")
        return {}
    with distributed.main_first("the results so far"):
        mirror.sync(workdir)
    fingerprints = {name: evaluator.fingerprint() for name, evaluator in evaluators.items()}
    report = workdir / "report.html"
    own = _is_own(run.config, step, workdir)
    if not own:
        digest = hashlib.sha256(json.dumps(fingerprints, sort_keys=True).encode()).hexdigest()
        report = workdir / "reports" / f"step-{step}-{digest[:6]}.html"
    known = results_file.read_results(workdir)
    missing = [name for name in evaluators if (step, name, fingerprints[name]) not in known]
    done = not missing and report.exists()
    distributed.check_same("the results that are missing", f"{own} {done} {missing}")
    with _runner(evaluators).kept.during(variables):  # the report shows what was evaluated
        for name in missing:
            values = run_evaluator(evaluators[name], variables, step)
            if distributed.is_main():
                results_file.append_results(workdir, step, name, fingerprints[name], values)
            known[step, name, fingerprints[name]] = values
        results = {
            f"{name}/{metric}": value
            for name in evaluators
            for metric, value in known[step, name, fingerprints[name]].items()
        }
        if done:
            print(f"{shown} is done: step {step} is trained and evaluated")
        else:
            if own:
                _record(evaluators, fingerprints, step, results, workdir, writer)
            write_report(run, evaluators, variables, step, results, workdir, report)
    writer.close()
    print_results(results)
    print_change(_at_start(evaluators, workdir), results)
    print(f"report: {mirror.shown(report)}")
    model = run.config.model
    if model.name == "clip" and model.image.get("kind") != "frames":
        search = command.line_of("python -m mmjax.search index FOLDER", [f"--model={shown}"])
        print(f"search images with it: {search}")
    return results


def _is_own(config: ConfigDict, step: int, workdir: Path) -> bool:
    """Whether these are the results of the run itself: of its last step, without overrides."""
    manifest = read_manifest(workdir)
    if step < manifest.get("results", {}).get("step", 0):
        return False
    recorded = manifest.get("config", {}).get("evals")
    return recorded in (None, json.loads(configs.to_json(config))["evals"])


def _record(
    evaluators: Mapping[str, Evaluator],
    fingerprints: Mapping[str, str],
    step: int,
    results: Mapping[str, float],
    workdir: Path,
    writer: MetricWriter,
) -> None:
    """Write the run's own results into run.json and metrics.jsonl."""
    before = read_manifest(workdir).get("results", {})
    if (before.get("step"), before.get("evaluators")) == (step, fingerprints):
        return
    writer.write(step, {f"eval/{name}": value for name, value in results.items()})
    if not distributed.is_main():
        return
    start = _at_start(evaluators, workdir)
    change = {k: results[k] - v for k, v in start.items() if k in results}
    found = {"step": step, "evaluators": fingerprints, "values": results}
    write_manifest(workdir, results=found | ({"change": change} if change else {}))


def write_report(
    run: experiment.Experiment,
    evaluators: Mapping[str, Evaluator],
    variables: Variables,
    step: int,
    results: Mapping[str, float],
    workdir: Path,
    path: Path,
) -> None:
    """Write the report to `path`; of evaluators that `_shown` leaves out only the metrics.

    All processes gather the data; process 0 writes the file.
    """
    from mmjax.report import facts, gather, page  # imported late: matplotlib takes a second

    config = run.config
    shown = _shown(evaluators, config.validation)
    data = gather.gather_report(_runner(evaluators), variables, shown, seed=config.seed)
    if not distributed.is_main():
        return
    page.write_report(
        path,
        workdir,
        title=config.name,
        facts=facts.first_facts(run, step, workdir),
        results=_nested(results),
        data=data,
        config=config.to_dict(),
        details=facts.details(run, workdir),
        baselines=_read_baselines(config.baselines),
        before=_nested(_at_start(evaluators, workdir)),
        fingerprints={name: e.fingerprint() for name, e in evaluators.items()},
    )


def _shown(evaluators: Mapping[str, Evaluator], validation: Iterable[str]) -> dict[str, Evaluator]:
    """The evaluators that are not validation; of a kind that has no others, all."""
    final = {e.kind for name, e in evaluators.items() if name not in validation}
    return {n: e for n, e in evaluators.items() if n not in validation or e.kind not in final}


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
    try:
        found = text_file.parse_json(Path(path).read_bytes())["results"]
        values = [v for baseline in found.values() for e in baseline.values() for v in e.values()]
        if not all(isinstance(v, int | float) for v in values):
            raise ValueError("a value is no number")
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ValueError(
            f"config.baselines is '{path}', which is no JSON of the form {{'results': {{baseline: "
            f"{{evaluation: {{metric: number}}}}}}}}: {text_file.what_is_wrong(error)}."
        ) from None
    return found


def print_results(results: Mapping[str, float]) -> None:
    """Print a table for each set of metrics: a row per evaluation, a column per metric."""
    for table in tables.by_columns(results):
        print()
        tables.print_table([{"evaluation": name, **row} for name, row in table.items()])
    print()


def print_change(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Print the metrics from before training beside the current ones, if there are any."""
    rows = [
        {"metric": name, "before": value, "after": after[name], "change": after[name] - value}
        for name, value in before.items()
        if name in after
    ]
    if rows:
        tables.print_table(rows, title="before and after training")
        print()


def evaluate(
    workdir: Path, at_step: int | None = None, overrides: Iterable[str] = ()
) -> dict[str, float]:
    """Evaluate a checkpoint of a workdir with the evaluators of its config; see `open_run`.

    Nothing that was evaluated before is replaced; see `finish`.
    """
    run, given, at = open_run(workdir, at_step, overrides)
    writer = make_writer(run.config, workdir)
    return finish(run, make_evaluators(run, workdir), given, at, workdir, writer)


def main() -> None:
    """The command."""
    if not storage.exists(storage.join(ARGS.workdir, "checkpoints")):
        raise ValueError(f"There is no run in '{ARGS.workdir}': it has no folder checkpoints.")
    distributed.initialize(ARGS)
    with workdir_lock.opened_by_run(ARGS.workdir) as workdir:
        evaluate(workdir, ARGS.step, ARGS.overrides)


if __name__ == "__main__":
    command.run(main)
