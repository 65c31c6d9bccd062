"""Check everything that a run needs before it starts; run it like the training command.

    python -m mmjax.preflight --config=configs/clip_emoji.py --workdir=runs/clip_emoji

Prints a line per check. Exits with 0 if all pass, with 2 and one sentence at the first failure.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--config", {"required": True, "help": "a file of configs/"}),
        command.WORKDIR,
        *command.PROCESSES,
    )

import contextlib
import os
import shutil
import socket
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mmjax import batch as batches
from mmjax import config as configs
from mmjax import evaluate, sharding, train
from mmjax.data.open_source import sources_of
from mmjax.data.prefetch import to_device
from mmjax.microbatch_check import check_rows
from mmjax.process import distributed
from mmjax.process.printable import printable
from mmjax.run import experiment, initial
from mmjax.storage import mirror
from mmjax.system import evaluation_context, variables
from mmjax.workdir import checkpoint
from mmjax.workdir import lock as workdir_lock


def preflight(config: ConfigDict, workdir: Path) -> None:
    """Check, cheapest first; the workdir's lock is held by the caller.

    Raises:
      ValueError: the first check that fails.
    """
    distributed.check_same("the config", configs.to_json(config))
    _ok("config", f"{config.name}, the same in all processes")

    kinds = distributed.exchange("devices", f"{jax.local_device_count()} {_kind()}")
    if len(set(kinds)) > 1:
        raise ValueError(f"The processes have different devices: {', '.join(kinds)}.")
    _ok("devices", f"{jax.process_count()} × {kinds[0]}")

    saves = checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep)
    saved = saves.newest_run()
    saves.close()
    for name, settings in sources_of(config).items():
        training = name.startswith("data.train")
        source = experiment.open_source(settings, workdir, check_media=not training)
        examples = [source[0], source[source.ready - 1]]
        several = f"{source.ready:,}" + ("" if source.total else " and more")
        _ok(name, f"{several} examples of {source.name}, such as '{examples[0].get('key')}'")
    source, _, run, evaluators, _, data = train.prepare(config, workdir, saved)
    files = [f"{one['files']:,} files, {one['bytes']:,} bytes" for one in data["sources"].values()]
    _ok("data", f"{'; '.join(files)}")
    for name in ("path", "language_model"):
        start = config.init_from[name]
        if start and not saved and (takes := initial.reading_takes(start, run.mesh)):
            _ok(f"init_from.{name}", takes)
    share = sharding.batch_share(run.mesh)
    parameters = sum(x.size for x in jax.tree.leaves(run.state.params))
    _ok("model", f"{parameters:,} parameters on the mesh {dict(run.mesh.shape)}")
    _ok("batch", f"{config.batch_size}, {config.batch_size // share[1]} rows per reader")

    url = mirror.url_of(workdir)
    room = "" if url else f"; {_check_disk(workdir, run) / 1e9:.0f} GB free"
    _ok("workdir", f"{url or workdir}, written and seen by all{room}")  # a URL's lock shows it

    _ok("checkpoints", f"resumes from step {saved['step']}" if saved else "none: a new run")
    if config.data.train.get("kind") == "mixture":  # whose parts were opened one by one
        _, weights = source.history[0]
        _ok("data.train", f"{len(source):,} examples of {source.name}, weights {weights}")

    at = saved["step"] if saved else 0
    stream = experiment.training_batches(config, run.system, source, run.tokenizer, at, share)
    with contextlib.closing(stream):
        batch = next(stream)
    batch = to_device(batch, sharding.batch_sharding(run.mesh))
    batches.check(batch, run.spec)
    _ok("first batch", ", ".join(f"{k} {list(x.shape)}" for k, x in batch.items()))
    with jax.set_mesh(run.mesh):
        _, scalars = jax.eval_shape(run.train_step, run.state, batch, run.numbers(at))
    _ok("step", f"gives {', '.join(scalars)}")
    if config.microbatches > 1:
        _check_rows(run, batch)
        _ok("microbatches", f"{config.microbatches}: no row depends on the others of its batch")
    for name, evaluator in evaluators.items():
        evaluate.check_evaluators({name: evaluator})
        _ok(f"evals.{name}", f"{evaluator.kind}, fits the model")
    distributed.exchange("the end of the checks")
    _ok("all", "is ready")


def _check_rows(run: experiment.Experiment, batch: dict[str, jax.Array]) -> None:
    """Compare the outputs of a few rows alone and with others; see `microbatch_check`."""
    system, state = run.system, run.state
    rows = run.mesh.shape["data"] * run.mesh.shape["fsdp"]  # a row for each part of the mesh

    def outputs_of(variables, batch):
        return run.model.apply(variables, batch)

    def some(batch, memory):
        if system.corrupt is not None:
            ids = jnp.arange(len(next(iter(batch.values()))), dtype=jnp.int32)
            batch = system.corrupt(batch, evaluation_context({"example_id": ids}, 0, memory))
        return {k: x[:rows] for k, x in batch.items()}

    with jax.set_mesh(run.mesh):
        memory = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state.memory)
        given = jax.jit(some)(batch, memory)
        tolerance = 5e-2 if run.config.model.get("dtype") == "bfloat16" else 1e-3
        check_rows(outputs_of, variables(run.params, state.memory), given, tolerance)


def _check_disk(workdir: Path, run: experiment.Experiment) -> int:
    """Bytes that are free, of a disk that all processes share."""
    _check_writable(workdir)
    free, keep = shutil.disk_usage(workdir).free, run.config.checkpoint.keep
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(run.state))
    need = state * (keep + 1)  # a new one is complete before an old one goes
    if free < need:
        raise ValueError(
            f"The workdir's disk has {free / 1e9:.1f} GB free and {keep + 1} "
            f"checkpoints take {need / 1e9:.1f} GB: make room, or lower config.checkpoint.keep."
        )
    return free


def _check_writable(workdir: Path) -> None:
    """Every process writes a file that process 0 must see."""
    mine = workdir / f".preflight-{jax.process_index()}-{socket.gethostname()}-{os.getpid()}"
    try:
        mine.write_text("written by mmjax.preflight")
    except OSError as error:
        raise ValueError(
            f"{socket.gethostname()} cannot write in the workdir {workdir} "
            f"({error.strerror or error}): give it the right to, or use another --workdir."
        ) from error
    try:
        written = distributed.exchange("writing in the workdir", mine.name)
        until = time.monotonic() + 10  # a network disk may show it after a moment
        while missing := [n for n in written if not (workdir / n).exists()]:
            if time.monotonic() > until:
                raise ValueError(
                    f"{socket.gethostname()} does not see in the workdir {workdir} what other "
                    f"hosts wrote there ({', '.join(missing)}): put it on a disk that all share."
                )
            time.sleep(0.2)
        distributed.exchange("reading in the workdir")
    finally:
        mine.unlink(missing_ok=True)


def _kind() -> str:
    return jax.local_devices()[0].device_kind


def _ok(what: str, detail: str) -> None:
    print(f"ok  {what}: {printable(detail)}", flush=True)


def main() -> None:
    """The command."""
    config = configs.load(ARGS.config, ARGS.overrides)
    distributed.initialize(ARGS)
    with workdir_lock.opened_by_run(ARGS.workdir) as workdir:
        preflight(config, workdir)


if __name__ == "__main__":
    command.run(main)
