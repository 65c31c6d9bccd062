"""A config turned into objects: system, optimizer, and the sharding of the state over the mesh.

Training and evaluation both start here, so that what is trained is what is evaluated.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmjax import batch as batches
from mmjax import sharding, step
from mmjax.config import check_numbers
from mmjax.data import mixture, pipeline
from mmjax.data import open_source as sources
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import parse as transforms
from mmjax.models.systems import make_system
from mmjax.optim import lora
from mmjax.optim import optimizer as optim
from mmjax.process import distributed
from mmjax.run import given_parts, initial
from mmjax.run import tokenizer as tokenizers
from mmjax.schedule import check_schedule, schedule
from mmjax.storage import mirror
from mmjax.system import Params, System, Variables, seed_data, statistics_of, variables
from mmjax.variables import make_state_function, sharded_state, sharded_variables
from mmjax.workdir.saved import write_tokenizer


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The objects built from a config; immutable during a run."""

    config: ConfigDict
    mesh: Mesh
    tokenizer: Tokenizer | None
    system: System
    learner: Any  # what is trained: the system's model, perhaps with LoRA's additions
    optimizer: optax.GradientTransformation
    schedule: optim.Schedule
    params: Params  # of the model, abstract, with shardings
    state: step.TrainState  # abstract, with shardings
    make_state: Callable[[jax.typing.ArrayLike], step.TrainState]  # of `seed_data(seed)`
    class_names: Sequence[str] | None  # of the training labels

    @property
    def model(self) -> Any:
        """The Linen module."""
        return self.system.model

    @property
    def spec(self) -> batches.Spec:
        """What model and loss read of a batch."""
        return self.system.spec

    def init(self) -> step.TrainState:
        """The state of step 0, sharded over the mesh."""
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        with jax.set_mesh(self.mesh):
            make = jax.jit(self.make_state, out_shardings=shardings)
            return make(self._seed)

    @functools.cached_property
    def _seed(self) -> np.ndarray:
        return seed_data(self.config.seed)

    def numbers(self, at: int) -> step.Numbers:
        """What the update from step `at` takes from the config as numbers."""
        config = self.config
        weights = config.loss_weights.items()
        return step.Numbers(
            seed=self._seed,
            learning_rate=np.float32(self.schedule(at)),
            weight_decay=np.float32(config.optim.get("weight_decay", 0.0)),
            ema_decay=np.float32(schedule(config.ema.decay, at)),
            loss_weights={name: np.float32(schedule(w, at)) for name, w in weights},
        )

    def eval_variables(self, state: step.TrainState) -> Variables:
        """What evaluators use: the average where `config.ema.evaluate` is set and there is one, and
        LoRA's additions merged."""
        use_average = self.config.ema.evaluate and state.average is not None
        params = state.average if use_average else state.params
        if self.learner is not self.model:
            with jax.set_mesh(self.mesh):
                params = lora.merge(params, self.learner.alpha)
        return variables(params, state.memory)

    @functools.cached_property
    def gradients(self):
        """(state, batch, numbers) -> gradients; see `step.make_gradients`."""
        return step.make_gradients(
            self.learner,
            self.system,
            frozen=optim.frozen_mask(self.config.optim, self.state.params),
            microbatches=self.config.microbatches,
            teacher=self.config.ema.teacher,
        )

    @functools.cached_property
    def train_step(self):
        """The jitted update, (state, batch, numbers) -> (state, scalars); donates the state."""
        update = step.make_train_step(self.system, self.gradients, self.optimizer)
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        return jax.jit(update, donate_argnums=0, out_shardings=(shardings, None))


def build(
    config: ConfigDict,
    tokenizer: Tokenizer | None,
    devices: Sequence[jax.Device] | None = None,
    class_names: Sequence[str] | None = None,
) -> Experiment:
    """Build everything that needs no data; allocates nothing on the devices.

    Args:
      devices: those of the mesh; None is all that this process sees.
      class_names: of the training source's labels, by which evaluators match theirs.

    Raises:
      ValueError: settings that are unknown, or do not fit each other, the mesh or the tokenizer.
    """
    check_numbers(config)
    mesh = sharding.make_mesh(config.mesh, devices)
    _check_batch_size(config, mesh)
    system = make_system(config)
    if system.loss is None:
        raise ValueError(
            f"The system '{config.model.name}' has no loss with this config.model: give it a head "
            "that has one, or train it as a part of another system, such as the text tower of a "
            "'clip' (config.model.text.kind='bert')."
        )
    ema = _check_schedules(config)
    if system.needs_teacher and not config.ema.teacher:
        raise ValueError(f"{system.needs_teacher}.")
    learner = lora.adapt(system.model, config.lora)
    reads = config.model.get("text")
    if tokenizer is not None and reads and tokenizer.vocab_size > reads.vocab_size:
        raise ValueError(
            f"The tokenizer has {tokenizer.vocab_size} tokens and config.model.text.vocab_size is "
            f"{config.model.text.vocab_size}: set it to at least that."
        )
    learned = sharded_variables(learner, system.spec, mesh, system.memory)
    params = learned["params"]
    optimizer, rate = optim.make_optimizer(config.optim, params, config.total_steps)
    make = make_state_function(learner, system.spec, optimizer, ema=ema, memory=system.memory)
    run = Experiment(
        config=config,
        mesh=mesh,
        tokenizer=tokenizer,
        system=system,
        learner=learner,
        optimizer=optimizer,
        schedule=rate,
        params=lora.without(params),
        state=sharded_state(learned, optimizer, mesh, ema=ema),
        make_state=make,
        class_names=class_names,
    )
    given_parts.check_frozen(system, optim.frozen_mask(config.optim, run.state.params))
    _ = run.gradients  # refuses microbatches of a system that couples rows
    return run


def _check_schedules(config: ConfigDict) -> bool:
    """Check loss weights and `config.ema`; whether there is a moving average.

    Raises:
      ValueError: an invalid schedule, a decay outside [0, 1], or a teacher without a decay.
    """
    for name, weight in config.loss_weights.items():
        check_schedule(weight, f"config.loss_weights.{name}")
    check_schedule(config.ema.decay, "config.ema.decay", 0.0, 1.0)
    if config.ema.teacher and config.ema.decay == 0:
        raise ValueError(
            "config.ema.teacher needs the moving average of the parameters: set config.ema.decay, "
            "such as 0.995."
        )
    return config.ema.decay != 0


def _check_batch_size(
    config: ConfigDict, mesh: Mesh, rows: int | None = None, where: str = "config"
) -> None:
    """Raise ValueError for `rows`, by default config.batch_size, that the mesh does not divide."""
    rows = config.batch_size if rows is None else rows
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * config.microbatches
    if rows % parts:
        low, high = rows // parts * parts, -(-rows // parts) * parts
        raise ValueError(
            f"{where}.batch_size is {rows}, which the mesh {dict(mesh.shape)} with "
            f"{config.microbatches} microbatches splits in {parts}: use "
            + (f"{low} or {high}." if low else f"{high}.")
        )


def open_source(
    source: Mapping[str, Any], workdir: Path, check_media: bool = True
) -> sources.Source:
    """A source of the config; process 0 builds or checks the data before the others open it."""
    with _opening(source):
        processes = jax.process_count()
        return sources.open_source(
            source, workdir=workdir, check_media=check_media, processes=processes
        )


def open_training(data: Mapping[str, Any], workdir: Path) -> sources.Source:
    """The training source of `config.data`, perhaps a mixture; otherwise as `open_source`."""
    with _opening(data["train"]):
        return mixture.open_training(data, workdir=workdir, processes=jax.process_count())


@contextlib.contextmanager
def _opening(source: Mapping[str, Any]) -> Iterator[None]:
    if jax.process_count() > 1:
        sources.index_part(source, jax.process_index(), jax.process_count())
    with distributed.main_first(f"opening {source.get('kind')} {_named(source)}"):
        yield


def check_source(run: Experiment, source: sources.Source) -> None:
    """Check that the model can be trained on as many examples as the source has.

    Raises:
      ValueError: fewer than a batch, or a number that the system refuses.
    """
    if source.ready < run.config.batch_size:
        where = " in its first window" if hasattr(source, "index_at") else ""
        raise ValueError(
            f"config.batch_size is {run.config.batch_size:,} and {source.name} has "
            f"{source.ready:,} training examples{where}: a batch would hold some twice; lower it."
        )
    for name, rows in mixture.rows_of(source, run.config.batch_size).items():
        where, examples = f"config.data.train.parts.{name}", len(mixture.parts_of(source)[name])
        if examples < rows:
            raise ValueError(
                f"A batch of {where} has {rows:,} rows, and its source {examples:,} examples: a "
                f"batch would hold some twice; set {where}.batch_size to less."
            )
        _check_batch_size(run.config, run.mesh, rows, where)
    if run.system.check_source is not None:
        run.system.check_source(source)


def _named(source: Mapping[str, Any]) -> str:
    known = (source.get(key) for key in ("name", "root", "pattern", "split"))
    return str(next(filter(None, known), ""))


def make_tokenizer(
    config: ConfigDict, workdir: Path, source: sources.Source, saved: Mapping[str, Any] | None
) -> Tokenizer | None:
    """The run's tokenizer: that of its checkpoint or workdir, or a new one, saved in the workdir.

    Args:
      saved: the JSON part of the checkpoint that is resumed.

    Raises:
      ValueError: the workdir's tokenizer is not the one that the checkpoint was trained with.
    """
    if not config.tokenizer:
        return None
    folder = workdir / "tokenizer"
    with distributed.main_first("making the tokenizer"):
        mirror.sync(workdir)
        if saved:
            write_tokenizer(workdir, saved["tokenizer"])
        tokenizer = tokenizers.make_tokenizer(
            config.tokenizer, corpus=texts_of(source), saved=folder
        )
        if distributed.is_main():
            tokenizer.save(folder)
            mirror.push(workdir)
    distributed.check_same("the tokenizer", tokenizer.fingerprint)
    return tokenizer


def init_from(run: Experiment, state: step.TrainState) -> step.TrainState:
    """The state with the parameters that `config.init_from` takes from another model and from a
    language model; prints a report."""
    settings, own = run.config.init_from, lora.without(state.params)
    statistics = statistics_of(state.memory)
    params = own = {**own, **statistics}
    if settings.path:
        params, report = initial.parameters_from(settings.path, params, settings.only)
        print(report)
    if settings.language_model:
        params, report = initial.language_model_from(settings.language_model, params)
        print(report)
    given_parts.check_taken(run.system, settings, params)
    if params is own:
        return state
    memory = {**state.memory, **statistics_of(params)}
    params = {**state.params, **{k: x for k, x in params.items() if k not in statistics}}
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, average=average, memory=memory)


def texts_of(source: sources.Source) -> Iterator[str]:
    """The texts that a tokenizer is trained on."""
    corpus = getattr(source, "corpus", None)
    if corpus is not None:
        yield from corpus
        return
    names = dict(enumerate(source.class_names or ()))
    for i in range(len(source)):
        example = source.meta(i)
        yield from example.get("captions", ())
        yield from example.get("names", ())
        if not example.get("captions"):
            # Names of classes are its captions, or the queries of its regions.
            labels = example["regions"].labels if "regions" in example else [example.get("label")]
            yield from (names[k] for k in labels if k in names)


def training_batches(
    config: ConfigDict,
    system: System,
    source: sources.Source,
    tokenizer: Any,
    start_step: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Mapping[str, np.ndarray]]:
    """The rows of every batch from `start_step` on, or one process's share of them.

    Args:
      share: (index, count), as `sharding.batch_share` gives for this process.

    Raises:
      ValueError: while iterating, rows that the system cannot learn from.
    """
    batch_transform = transforms.parse_batch(
        config.data.batch_transform, tokenizer=tokenizer, class_names=source.class_names
    )
    source, transform = mixture.make_transforms(source, config.data, tokenizer)
    stream = pipeline.train_batches(
        source,
        transform,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start_step,
        process_index=share[0],
        process_count=share[1],
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
        batch_transform=batch_transform if config.data.batch_transform else None,
        max_lost_records=config.data.max_lost_records,
        spec=system.spec,
    )

    def checked() -> Iterator[Mapping[str, np.ndarray]]:
        with contextlib.closing(stream):
            for batch in stream:
                if system.check_batch is not None:
                    system.check_batch(batch)
                yield batch

    return checked()
