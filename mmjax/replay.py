"""Inspect the batch of one training step: its exact examples, each with its loss.

    python -m mmjax.replay --workdir=runs/clip_emoji --step=120

Steps count as in metrics.jsonl. The batch is rebuilt from the workdir alone, on any machine, and
compared with the checksums in batches.jsonl. WORKDIR/replay/STEP gets examples.html (largest loss
first) and batch.npz. If the data are in another place: --config.data.train.root=DIR.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        command.WORKDIR,
        ("--step", {"type": int, "required": True, "help": "as in metrics.jsonl: the first is 1"}),
        (
            "--params",
            {"type": int, "help": "the checkpoint whose parameters give the losses; 0: the start"},
        ),
    )

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mmjax import batch as batches
from mmjax import config as configs
from mmjax.data import mixture
from mmjax.data.source import Source
from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.data.transforms.patch_steps import as_image
from mmjax.optim import lora
from mmjax.report.examples import Example, worst_first, write_examples
from mmjax.run import experiment, labels
from mmjax.schedule import schedule
from mmjax.storage import mirror
from mmjax.system import (
    Context,
    Variables,
    Weighted,
    memory_of,
    seed_data,
    training_keys,
    variables,
)
from mmjax.workdir import batch_log, checkpoint
from mmjax.workdir.manifest import read_manifest
from mmjax.workdir.saved import restore_memory, restore_params
from mmjax.workdir.tables import print_table

ROWS = 64  # per forward pass: a pod's batch does not fit on a laptop
PRINTED = 10


def replay(
    workdir: Path, at: int, overrides: Iterable[str] = (), params: int | None = None
) -> list[Example]:
    """Rebuild a step's batch, verify it, write and print its examples.

    Args:
      workdir: a run's folder; the run may still be going.
      at: the step, as in metrics.jsonl.
      overrides: settings that differ on this machine, such as the data's root.
      params: the step of the checkpoint whose parameters are used, 0 for the start of the run;
        None: the newest from before this step, or else the closest.

    Returns:
      the examples, largest loss first.

    Raises:
      ValueError: no run there, no such step or checkpoint, or data that cannot be read.
    """
    if not (workdir / "run.json").is_file():
        raise ValueError(f"There is no run in '{workdir}': it has no run.json.")
    if at < 1:
        raise ValueError(f"--step is {at}: the first step is 1, as in metrics.jsonl.")
    saves = None
    if (workdir / "checkpoints").is_dir():
        saves = checkpoint.Checkpoints(workdir, read_only=True)
    steps = sorted(saves.steps()) if saves else []

    after = [s for s in steps if s >= at]
    config = _config_of(workdir, at, saves, after[0] if after else None)
    if params is not None and params not in (0, *steps):
        raise ValueError(
            f"--params is {params}: the checkpoints in {workdir} are of the steps "
            f"{', '.join(map(str, steps)) or '(none)'}, and 0 is the start of the run."
        )
    config = configs.override(config, overrides)
    with config.unlocked():  # this machine's devices, whatever the run had
        config.mesh, config.microbatches = {"data": -1, "fsdp": 1, "tensor": 1}, 1

    # ---- source, tokenizer, model, and the batch
    source = mixture.open_training(config.data, workdir=workdir)
    tokenizer = load_tokenizer(workdir / "tokenizer") if config.tokenizer else None
    run = experiment.build(config, tokenizer)
    known = after[0] if after else max(steps, default=None)
    saved = None if known is None else saves.run(known)
    source = labels.by_name(run, source, saved, allow=("data.train",))
    if saved is not None:  # mixture weights may have changed on a resume
        begins = known + 1 if after else known
        source = mixture.continued(source, saved.get("mixture_weights"), begins)
    line = batch_log.line_of(workdir, at)
    batch = make_batch(run, source, tokenizer, at)
    batches.check(batch, run.spec)
    verdict = compare(line, batch)

    # ---- the parameters, the losses, the page
    given, where = _variables_of(run, saves, steps, at, params)
    losses = example_losses(run, given, batch, at - 1)
    examples = _examples(batch, losses, source, tokenizer)
    folder = workdir / "replay" / str(at)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "batch.npz", **batch)
    title = f"{config.name}: the batch of step {at}"
    about = {"Examples": f"{len(examples)}", "Mean loss": f"{losses.mean():.4g}"}
    write_examples(
        folder / "examples.html", title, about | {"Parameters": where, "Batch": verdict}, examples
    )
    print(f"{title}: {verdict}")
    print(f"losses with the parameters of {where}; no dropout; mean {losses.mean():.4g}")
    _print_worst(examples[:PRINTED])
    print(f"page: {mirror.shown(folder / 'examples.html')}")
    return examples


def _config_of(
    workdir: Path, at: int, saves: checkpoint.Checkpoints | None, following: int | None
) -> ConfigDict:
    """The config of a step: of the checkpoint that follows it, or else of the newest start."""
    if following is not None:
        config = configs.from_json(saves.run(following)["config"])
    else:
        config = configs.from_json(json.dumps(read_manifest(workdir)["config"]))
    if at > config.total_steps:
        raise ValueError(f"--step is {at}: the last step of this run is {config.total_steps}.")
    return config


def make_batch(
    run: experiment.Experiment, source: Source, tokenizer: Any, at: int
) -> dict[str, np.ndarray]:
    """The whole batch of a step, equal to what all processes together put on the devices."""
    rows = experiment.training_batches(run.config, run.system, source, tokenizer, at - 1)
    with contextlib.closing(rows):
        return batches.to_device_dtypes(next(rows))


def compare(line: Mapping[str, Any] | None, batch: batches.Batch) -> str:
    """Whether a batch is the one that was trained on, in words."""
    if line is None:
        return f"made from (seed, step); {batch_log.NAME} has no line of this step to compare"
    wrong = batch_log.differing(line, batch)
    if not wrong:
        return "the exact batch that was trained on (all checksums agree)"
    if "example_id" in wrong:
        why = "other examples: the source has another length now, or the config another seed"
    else:
        why = "the same examples, but the data, the transform or a library has changed"
    return f"NOT the batch that was trained on: {', '.join(wrong)} differ ({why})"


def _variables_of(
    run: experiment.Experiment,
    saves: checkpoint.Checkpoints | None,
    steps: Sequence[int],
    at: int,
    chosen: int | None,
) -> tuple[Variables, str]:
    """The variables of a checkpoint, and their origin; None: those closest to what the step began
    with."""
    asked = chosen is not None
    if not asked:
        before = [s for s in steps if s < at]
        chosen = before[-1] if before else min([0, *steps], key=lambda s: abs(s - (at - 1)))
    if chosen == 0:  # not saved, but given by the seed
        state = experiment.init_from(run, run.init())
        with jax.set_mesh(run.mesh):
            params = lora.merge(state.params, run.config.lora.alpha)
        given, where = variables(params, state.memory), "the start of the run"
    else:
        with jax.set_mesh(run.mesh):
            params = restore_params(saves, chosen, run.params, average=False)
            given = variables(params, restore_memory(saves, chosen, run.state.memory))
        where = f"checkpoint {chosen}"
    if chosen == at - 1:
        return given, f"{where}, those that the step began with"
    if asked:
        return given, where
    return given, f"{where}, the closest{' before it' * (chosen < at)} that are saved"


def example_losses(
    run: experiment.Experiment, given: Variables, batch: Mapping[str, np.ndarray], step: int
) -> np.ndarray:
    """The loss of each example, `[B]`: the system's terms times `config.loss_weights`.

    Noise and masks are those of the step; dropout is off, and the model is its own teacher. A row
    without a term has 0 for it; scalar terms are left out.
    """
    system, size = run.system, len(next(iter(batch.values())))
    memory = memory_of(given)
    _, rng = training_keys(seed_data(run.config.seed), step, size)
    context = Context(jnp.asarray(step, jnp.int32), rng, None, memory)
    if system.corrupt is not None:
        batch = jax.device_get(jax.jit(system.corrupt)(batch, context))
    whole = NamedSharding(run.mesh, PartitionSpec())
    forward, rows = jax.jit(run.model.apply, out_shardings=whole), []
    with jax.set_mesh(run.mesh):
        for start in range(0, size, ROWS):
            part = {k: rows_of[start : start + ROWS] for k, rows_of in batch.items()}
            rows.append(jax.device_get(forward(given, part)))
    outputs = {
        name: np.concatenate([r[name] for r in rows]) if np.ndim(first) else first
        for name, first in rows[0].items()
    }
    if run.config.ema.teacher:
        context = context._replace(teacher=outputs)
    terms = jax.jit(system.loss)(outputs, batch, context)
    total = np.zeros(size, np.float32)
    for name, weight in run.config.loss_weights.items():
        term = terms[name]
        if isinstance(term, Weighted):
            has = np.asarray(term.weight).astype(bool)
            term = np.where(has, np.asarray(term.value, np.float32), np.float32(0))
        if term.ndim:
            total += schedule(weight, step) * np.asarray(term)
    return total


def _examples(
    batch: Mapping[str, np.ndarray], losses: np.ndarray, source: Source, tokenizer: Any
) -> list[Example]:
    def caption(row: int) -> str:
        if "text" in batch:
            ids = batch["text"][row][batch["text_mask"][row]]
            texts = np.split(ids, np.flatnonzero(ids == tokenizer.eos_id) + 1)
            return " | ".join(filter(None, map(tokenizer.decode, texts)))
        if "label_probs" in batch:
            probs = batch["label_probs"][row]
            return ", ".join(f"{_class(source, c)} {probs[c]:.0%}" for c in np.flatnonzero(probs))
        return _class(source, int(batch["label"][row])) if "label" in batch else ""

    return worst_first(
        [
            Example(
                row=row,
                example_id=int(example_id),
                key=str(source.meta(int(example_id)).get("key", example_id)),
                caption=caption(row),
                loss=float(losses[row]),
                image=_image(batch, row) if "image" in batch else None,
            )
            for row, example_id in enumerate(batches.example_ids(batch["example_id"]))
        ]
    )


def _image(batch: Mapping[str, np.ndarray], row: int) -> np.ndarray:
    """A row's image, or its images side by side."""
    image = as_image({k: batch[k][row] for k in ("image", "image_grid") if k in batch})
    if "image_mask" in batch:
        image = np.concatenate(image[batch["image_mask"][row]], axis=1)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)  # Mixup's pixels are fractional


def _class(source: Source, label: int) -> str:
    return source.class_names[label] if source.class_names else str(label)


def _print_worst(examples: Sequence[Example]) -> None:
    print()
    print_table(
        [
            {"loss": e.loss, "row": e.row, "id": e.example_id, "key": e.key, "caption": e.caption}
            for e in examples
        ]
    )
    print()


def main() -> None:
    """The command."""
    with mirror.opened(ARGS.workdir, write=True) as workdir:
        replay(workdir, ARGS.step, ARGS.overrides, ARGS.params)


if __name__ == "__main__":
    command.run(main)
