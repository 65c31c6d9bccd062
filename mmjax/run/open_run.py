"""A checkpoint of a workdir as an experiment with its parameters."""

from collections.abc import Iterable
from pathlib import Path

import jax

from mmjax.run import experiment
from mmjax.system import Variables, variables
from mmjax.workdir.saved import open_checkpoint, restore_memory, restore_params


def open_run(
    workdir: Path, at_step: int | None = None, overrides: Iterable[str] = ()
) -> tuple[experiment.Experiment, Variables, int]:
    """The experiment, the variables and the step of a checkpoint of a workdir.

    Raises:
      ValueError: no such checkpoint, or settings that do not fit it.
    """
    saved = open_checkpoint(workdir, at_step, overrides)
    run = experiment.build(saved.config, saved.tokenizer, class_names=saved.class_names)
    saves, average = saved.checkpoints, run.config.ema.evaluate
    with jax.set_mesh(run.mesh):
        params = restore_params(saves, saved.step, run.params, average=average)
        memory = restore_memory(saves, saved.step, run.state.memory)
    saves.close()
    return run, variables(params, memory), saved.step
