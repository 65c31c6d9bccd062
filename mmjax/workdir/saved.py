"""A finished or running run, read back: its config, tokenizer and parameters."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mmjax import config as configs
from mmjax.data.text.tokenizer import Tokenizer, load_tokenizer
from mmjax.optim import lora
from mmjax.process import distributed
from mmjax.storage import mirror
from mmjax.workdir.checkpoint import Checkpoints


class Saved(NamedTuple):
    """An opened checkpoint of a workdir; its arrays are not read yet."""

    checkpoints: Checkpoints
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
    saves = Checkpoints(workdir, read_only=True)
    steps = saves.steps()
    if not steps or (at_step is not None and at_step not in steps):
        which = "" if at_step is None else f"of step {at_step}"
        raise ValueError(f"'{mirror.shown(workdir)}' has no checkpoint {which}; there are {steps}.")
    at = steps[0] if at_step is None else at_step
    saved = saves.run(at)
    config = configs.override(configs.from_json(saved["config"]), overrides)
    with distributed.main_first("reading the tokenizer"):
        if saved["tokenizer"]:
            write_tokenizer(workdir, saved["tokenizer"])
        tokenizer = load_tokenizer(workdir / "tokenizer") if saved["tokenizer"] else None
    return Saved(saves, at, config, tokenizer, saved.get("class_names"))


def restore_params(saves: Checkpoints, step: int, target: Any, average: bool = True) -> Any:
    """The model's parameters alone, sharded as `target` says; LoRA's additions are merged.

    Args:
      target: ShapeDtypeStructs with shardings, perhaps of a part of the model's tree; all of
        them must be in the checkpoint.
      average: take the moving average if there is one.

    Raises:
      TreeMismatchError: a parameter of `target` is missing or has another shape.
      DamagedError: files that cannot be read, or whose values are not those that were saved.
    """
    saved = saves.shapes(step)
    averaged = average and any(k.startswith("average/") for k in saved)
    part = "average" if averaged else "params"
    shapes = {k.removeprefix(f"{part}/"): s for k, s in saved.items() if k.startswith(f"{part}/")}
    params = saves.restore_part(step, part, lora.with_additions(target, shapes))
    if lora.NAME not in params:
        return params
    alpha = configs.from_json(saves.run(step)["config"]).lora.alpha
    shardings = jax.tree.map(lambda x: x.sharding, target)
    return jax.jit(functools.partial(lora.merge, alpha=alpha), out_shardings=shardings)(params)


def restore_memory(saves: Checkpoints, step: int, target: Any) -> Any:
    """The memory alone, sharded as `target` says; {} if the system has none.

    Raises:
      TreeMismatchError, DamagedError: as `restore_params`.
    """
    return saves.restore_part(step, "memory", target, whole=True) if target else {}


def tokenizer_files(workdir: Path) -> dict[str, str]:
    """The files of the workdir's tokenizer, name -> text, as a checkpoint keeps them."""
    return {f.name: f.read_text() for f in sorted((workdir / "tokenizer").glob("*.json"))}


def write_tokenizer(workdir: Path, files: Mapping[str, str]) -> None:
    """Write a checkpoint's tokenizer into the workdir if it is missing there.

    Raises:
      ValueError: the workdir has another tokenizer.
    """
    present = tokenizer_files(workdir)
    if present and present != files:
        raise ValueError(
            f"The tokenizer in {mirror.shown(workdir / 'tokenizer')} is not the one that this "
            "run's checkpoint was trained with: delete that folder to restore it from the "
            "checkpoint."
        )
    if present:
        return
    (workdir / "tokenizer").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (workdir / "tokenizer" / name).write_text(text)
