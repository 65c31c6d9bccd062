"""Train a config, evaluate it and write its report.

    python -m mmjax.train --config=configs/clip_emoji.py --workdir=runs/clip_emoji

Run it again with the same workdir to resume. Any setting of the config can be overridden by
--config.KEY=VALUE, for instance --config.optim.learning_rate=3e-4.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--config", {"required": True, "help": "a file of configs/"}),
        command.WORKDIR,
        *command.PROCESSES,
        (
            "--allow_change",
            {
                "default": "",
                "metavar": "KEYS",
                "help": "comma-separated config keys that may differ from the run being resumed",
            },
        ),
        ("--print_config", {"action": "store_true", "help": "print the resolved config and end"}),
    )

import contextlib
import dataclasses
import datetime
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from mmjax import batch as batches
from mmjax import config as configs
from mmjax import evaluate, sharding, step
from mmjax.data import file_list, mixture
from mmjax.data.prefetch import prefetch_to_device, to_device
from mmjax.data.source import Source
from mmjax.evals.evaluator import Evaluator
from mmjax.finite import NonFiniteError
from mmjax.layers import platform
from mmjax.optim import optimizer as optim
from mmjax.plan import chips, flops, profile
from mmjax.process import distributed, runtime
from mmjax.process.preemption import StopSignals
from mmjax.process.watchdog import Watchdog
from mmjax.run import data_manifest, experiment, goodput, labels
from mmjax.run.early_stopping import EarlyStopping
from mmjax.run.meter import Meter
from mmjax.run.progress import ProgressLine
from mmjax.storage import mirror
from mmjax.workdir import checkpoint, metrics, resume_config, trackers
from mmjax.workdir import lock as workdir_lock
from mmjax.workdir.batch_log import BatchLog
from mmjax.workdir.manifest import git_revision, read_manifest, write_manifest
from mmjax.workdir.results import rewind_results
from mmjax.workdir.saved import tokenizer_files


class Prepared(NamedTuple):
    """What `prepare` makes: the source, with labels of the model, and its own class names; model,
    loss, optimizer and tokenizer; evaluators; early stopping; the manifest of the data."""

    source: Source
    source_classes: Sequence[str] | None
    run: experiment.Experiment
    evaluators: dict[str, Evaluator]
    early: EarlyStopping
    data: data_manifest.Manifest


def prepare(
    config: ConfigDict,
    workdir: Path,
    saved: Mapping[str, Any] | None = None,
    allow_change: Sequence[str] = (),
) -> Prepared:
    """Everything that a run needs before its first step, except its state.

    Args:
      saved: the JSON part of the checkpoint that is resumed.

    Raises:
      ValueError: settings or data that are wrong, or do not fit each other.
    """
    profile.check(config.profile, config.total_steps)
    trackers.check(config.track)
    source = experiment.open_training(config.data, workdir)
    tokenizer = experiment.make_tokenizer(config, workdir, source, saved)
    run = experiment.build(config, tokenizer)
    experiment.check_source(run, source)
    classes = mixture.classes_of(source)
    source = labels.by_name(run, source, saved, allow_change)
    run = dataclasses.replace(run, class_names=source.class_names)
    data = data_manifest.make(source, config, tokenizer)
    if saved:
        changed = data_manifest.changes(workdir, data, saved)
        position = saved["step"] * configs.from_json(saved["config"]).batch_size
        data_manifest.check_examples(source, saved, config, allow_change, changed, position)
    evaluators = evaluate.make_evaluators(run, workdir)
    return Prepared(source, classes, run, evaluators, EarlyStopping.of(config), data)


def train(
    config: ConfigDict,
    workdir: str | Path,
    allow_change: Sequence[str] = (),
    command_line: str = "",
    start_time: float | None = None,
) -> dict[str, float]:
    """Train, resuming from the workdir's newest checkpoint, then evaluate and write the report.

    Args:
      config: locked, from `mmjax.config.load`.
      workdir: the run's folder; one in a bucket is opened by `mmjax.workdir.lock.opened_by_run`.
      allow_change: config keys that may differ from the run being resumed.
      command_line: what started this, for the report.
      start_time: when that was, in seconds since the epoch; now, if not given.

    Returns:
      the results, "evaluation/metric" -> value.

    Raises:
      ValueError: bad input, in one sentence; existing checkpoints are kept.
      SystemExit: after SIGTERM or Ctrl-C, with the state saved and the code 143 or 130.
    """
    workdir = mirror.local(workdir)
    signals, began = StopSignals(), time.monotonic()
    ledger = goodput.Ledger(workdir, start_time or time.time(), distributed.is_main())
    saves = checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep)
    with distributed.main_first("reading the checkpoints"):
        saved = saves.newest_run()
    before = configs.from_json(saved["config"]) if saved else config
    resume_config.check_keys(allow_change, config, before)
    if saved:
        for line in resume_config.check_unchanged(saved["config"], config, allow_change):
            print(f"changed {line}")
    distributed.check_same("the config", configs.to_json(config))
    distributed.check_same("the checkpoint to resume from", str(saved and saved["step"]))

    prepared = prepare(config, workdir, saved, allow_change)
    source, classes, run, evaluators, early, data = prepared
    watch = file_list.Watch(mixture.parts_of(source).values())
    writer = evaluate.make_writer(config, workdir)

    # ---- the state: resumed, or new
    if saved:
        saved, state = saves.restore_newest(run.state)
        early.restore(saved["early_stopping"], before.early_stopping)
    else:
        state = experiment.init_from(run, run.init())
    if distributed.is_main():
        about = mixture.about(source, config.batch_size)
        write_manifest(workdir, config=config, command=command_line, data=about)
        data_manifest.write(workdir, data)
        parameters = optim.describe(run.state.params, config.optim)
        (workdir / "parameters.txt").write_text(parameters + "\n")
    at, total = int(state.step), config.total_steps
    source = mixture.continued(source, saved and saved.get("mixture_weights"), at)
    if at < total:
        opened = evaluate.check_evaluators(evaluators)
        if distributed.is_main():
            data_manifest.add_evaluators(workdir, opened)
    if run.system.notes is not None:
        print("\n".join(run.system.notes(run.mesh)))
    name = mirror.shown(workdir)
    print(f"{'resumed at' if saved else 'starts from'} step {at} of {total}, {name}")
    writer.rewind(at)
    if distributed.is_main():
        rewind_results(workdir, at)
        if at < total:
            now = datetime.datetime.now().isoformat(timespec="seconds")
            starts = read_manifest(workdir).get("starts", [])
            write_manifest(workdir, starts=[*starts, {"step": at, "time": now}])
    with ledger.lost("evaluation", after=state):
        if at == 0:
            given = run.eval_variables(state)
            early.check(evaluate.before_training(run, evaluators, given, workdir, writer))
        elif early.unchecked and at < total:
            early.check(
                evaluate.run_evaluators(evaluators, run.eval_variables(state), early.evaluators)
            )

    seconds_before = saved.get("seconds", 0.0) if saved else 0.0

    def save():
        with ledger.lost("checkpoint", after=state):
            seen.flush()
            _check_finite(run, state, source, saves, workdir)
            if distributed.is_main() and (what := watch.changed()):
                print(f"warning: of the files of the data, {what} since the run was started")
            saves.save(at, state, rest_of_checkpoint())
        ledger.record(at, stream.wait_seconds)

    def rest_of_checkpoint():
        sizes = mixture.sizes_of(source, at * config.batch_size)
        return {
            "step": at,
            "examples": sum(sizes.values()),
            "data": data_manifest.summary(data),
            "parts": sizes,
            "mixture_weights": mixture.history_of(source),
            "class_names": source.class_names,
            "source_classes": classes,
            "config": configs.to_json(config),
            "tokenizer": tokenizer_files(workdir),
            "git": git_revision(),
            "seconds": seconds_before + time.monotonic() - began,
            "early_stopping": early.state(),
        }

    # ---- the loop
    window = metrics.ScalarWindow()
    chip = chips.chip_of(jax.devices()[0].device_kind)
    rows = mixture.mean_rows(source, config.batch_size)
    meter = Meter(rows, jax.devices(), chip and chip.flops)
    progress = ProgressLine(total, rows, at, distributed.progress_stream(), meter.short)
    share = sharding.batch_share(run.mesh)
    pauses = (config.eval_every, config.checkpoint.every)
    profiler = profile.Profiler(
        config.profile, workdir, at, total, pauses, active=distributed.is_main()
    )
    seen = BatchLog(workdir)
    stream = prefetch_to_device(
        experiment.training_batches(config, run.system, source, run.tokenizer, at, share),
        sharding.batch_sharding(run.mesh),
        busy=progress.busy,
    )
    watchdog = Watchdog(config.step_timeout_seconds)
    waited, first = 0.0, at
    # Fake devices of one CPU share its threads: with many steps in flight their collectives wait
    # for each other until XLA gives up.
    lockstep = platform.current().lockstep and jax.local_device_count() > 1
    signals.enter_loop()
    ledger.enter(at, total)
    with (
        jax.set_mesh(run.mesh),
        watchdog,
        contextlib.closing(stream),
        contextlib.closing(progress),
        contextlib.closing(profiler),
    ):
        while at < total and not early.stopped and not signals.agreed(run.mesh):
            watchdog.step(at)
            with watch.explaining():
                batch = next(stream)
            batches.check(batch, run.spec)
            if profiler.starts_at(at + 1):
                with ledger.lost("other", after=state):
                    profiler.start(state, stream.wait_seconds)
            compiles = at > first and meter.is_new(batch)
            with ledger.lost("compile", after=state) if compiles else contextlib.nullcontext():
                meter.add(batch, functools.partial(_flops, run, state, batch, at))
                profiler.add(batch, functools.partial(_traced, run, state, batch, at))
                state, scalars = run.train_step(state, batch, run.numbers(at))
            if lockstep:
                jax.block_until_ready(scalars)
            if at == first:
                runtime.release_freed_memory()  # the compiler's, about half a gigabyte
                ledger.compiled(stream.wait_seconds)
            at += 1
            seen.add(at, batch)
            window.add(scalars)
            progress.update(at, scalars, stream.wait_seconds - waited)
            waited = stream.wait_seconds
            if compiles:
                progress.restart()

            if at % config.log_every == 0 or at == total:
                seen.flush()
                _check_finite(run, state, source, saves, workdir)
                log = {f"train/{name}": value for name, value in window.mean().items()}
                log |= optim.learning_rates(config.optim, run.schedule, at - 1)
                log |= meter.read(progress.examples_per_second)
                ledger.record(at, stream.wait_seconds)
                log["goodput"] = goodput.fraction(ledger.seconds)
                log["data_wait_share"] = progress.data_wait_share
                if run.tokenizer is not None and not config.data.num_workers:
                    log["truncation_rate"] = run.tokenizer.truncation_rate
                    run.tokenizer.reset_truncation_rate()
                writer.write(at, log)

            watchdog.rest()
            if profiler.ends_at(at):
                with ledger.lost("other", after=state):
                    profiler.finish(stream.wait_seconds)
                progress.restart()

            if config.eval_every and at % config.eval_every == 0 and at < total:
                with ledger.lost("evaluation", after=state):
                    results = evaluate.run_evaluators(
                        evaluators, run.eval_variables(state), config.validation, at
                    )
                writer.write(at, {f"eval/{name}": value for name, value in results.items()})
                early.update(results)
                progress.restart()

            if at % config.checkpoint.every == 0 and at < total:
                save()
                progress.restart()
    save()
    with ledger.lost("checkpoint"):
        saves.close()
    if distributed.is_main() and at > first:
        numbers = meter.read(progress.examples_per_second)
        numbers["goodput"] = goodput.fraction(ledger.seconds)
        numbers["seconds"] = seconds_before + time.monotonic() - began
        write_manifest(workdir, training=numbers, data=mixture.about(source, config.batch_size))
    signals.leave_loop()
    if signals.stopping:
        writer.close()
        signals.exit(f"saved step {at} in {name}; the same command resumes from there")
    if early.stopped:
        print(f"stopped early at step {at}: {early.metric} did not improve on {early.best}")

    # ---- evaluators and report
    with ledger.lost("evaluation"):
        results = evaluate.finish(run, evaluators, run.eval_variables(state), at, workdir, writer)
    writer.close()
    if ledger.active:
        ledger.end(at)
        print(f"goodput: {goodput.sentence(ledger.seconds)}")
    return results


def _traced(run, state, batch, at) -> jax.stages.Traced:
    """A step on this batch."""
    return run.train_step.trace(state, batch, run.numbers(at))


def _flops(run, state, batch, at) -> float:
    """Of a step on this batch."""
    return flops.count(_traced(run, state, batch, at).jaxpr).flops


def _check_finite(run, state, source, saves, workdir) -> None:
    """Raise if an update was not finite; repeats that step to name the first non-finite tensor."""
    if state.finite:
        return
    at = int(state.step)
    share = sharding.batch_share(run.mesh)
    batch = next(
        experiment.training_batches(run.config, run.system, source, run.tokenizer, at, share)
    )
    batch = to_device(batch, sharding.batch_sharding(run.mesh))
    found = step.diagnose(run.gradients, state, batch, run.numbers(at))
    kept = saves.steps()
    raise NonFiniteError(
        at + 1, found, mirror.shown(workdir), mirror.shown(saves.path(kept[0])) if kept else None
    )


def main() -> None:
    """The command."""
    config = configs.load(ARGS.config, ARGS.overrides)
    if ARGS.print_config:
        print(configs.to_json(config))
        return
    distributed.initialize(ARGS)
    command_line = command.line_of("mmjax train", sys.argv[1:])
    with workdir_lock.opened_by_run(ARGS.workdir) as workdir:
        train(
            config,
            workdir,
            [key for key in ARGS.allow_change.split(",") if key],
            command_line,
            runtime.began(),
        )


if __name__ == "__main__":
    command.run(main)
