"""A config made concrete: tokenizer, model, loss, optimizer, and how the state lies on the mesh.

Train and evaluate start from here, so that what is trained is what is evaluated.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from mmjax.data import open_source as sources
from mmjax.data import pipeline
from mmjax.data.bad_records import most_allowed
from mmjax.data.prefetch import to_device
from mmjax.data.sources.memory import InMemory
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import parse as transforms
from mmjax.evals.attention_rollout import sown_weights
from mmjax.losses.captioning import token_losses
from mmjax.models import systems as models
from mmjax.optim import lora
from mmjax.optim import optimizer as optim
from mmjax.process import distributed
from mmjax.run import initial
from mmjax.run import tokenizer as tokenizers
from mmjax.run.evaluation import EvalContext


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config builds; nothing in it changes while a run goes on."""

    config: ConfigDict
    mesh: Mesh
    tokenizer: Tokenizer | None
    model: Any
    learner: Any  # what is trained: the model, perhaps with LoRA's additions
    loss: step.Loss
    spec: batches.Spec  # what model and loss read of a batch
    optimizer: optax.GradientTransformation
    schedule: optim.Schedule
    params: step.Params  # of the model, abstract, with shardings
    state: step.TrainState  # abstract, with shardings
    make_state: Callable[[], step.TrainState]

    def init(self) -> step.TrainState:
        """The state of step 0, laid out on the mesh."""
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        with jax.set_mesh(self.mesh):
            return jax.jit(self.make_state, out_shardings=shardings)()

    def eval_params(self, state: step.TrainState) -> step.Params:
        """The model's parameters that evaluators use, LoRA's additions merged."""
        if self.learner is self.model:
            return state.eval_params
        with jax.set_mesh(self.mesh):
            return lora.merge(state.eval_params, self.learner.alpha)

    @functools.cached_property
    def gradients(self):
        """(params, batch, rng) -> (loss, terms, gradients); see `step.make_gradients`."""
        return step.make_gradients(
            self.learner,
            self.loss,
            loss_weights=self.config.loss_weights,
            frozen=optim.frozen_mask(self.config.optim, self.state.params),
            microbatches=self.config.microbatches,
        )

    @functools.cached_property
    def train_step(self):
        """The jitted update, (state, batch) -> (state, scalars); the old state is given up."""
        update = step.make_train_step(
            self.gradients,
            self.optimizer,
            seed=self.config.seed,
            ema_decay=self.config.ema_decay,
        )
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        return jax.jit(update, donate_argnums=0, out_shardings=(shardings, None))


def build(
    config: ConfigDict,
    tokenizer: Tokenizer | None,
    devices: Sequence[jax.Device] | None = None,
) -> Experiment:
    """Build everything that needs no data; allocates nothing on the devices.

    Args:
      devices: those of the mesh; None is all that this process sees.

    Raises:
      ValueError: settings that are unknown, or do not fit each other, the mesh or the tokenizer.
    """
    mesh = sharding.make_mesh(config.mesh, devices)
    _check_batch_size(config, mesh)
    model, loss, spec = models.make_model(config), models.make_loss(config), models.spec(config)
    learner = lora.adapt(model, config.get("lora", {"targets": ()}))
    reads = config.model.get("text")
    if tokenizer is not None and reads and tokenizer.vocab_size > reads.vocab_size:
        raise ValueError(
            f"The tokenizer has {tokenizer.vocab_size} tokens and config.model.text.vocab_size is "
            f"{config.model.text.vocab_size}: set it to at least that."
        )
    learnt = step.laid_out_params(learner, spec, mesh)
    optimizer, schedule = optim.make_optimizer(config.optim, learnt, config.total_steps)
    ema = config.ema_decay > 0
    make = step.make_init(learner, spec, optimizer, seed=config.seed, ema=ema)
    # Not by `make`, which would trace the model once more.
    first = functools.partial(step.first_state, optimizer=optimizer, ema=ema)
    state = step.lay_out_state(jax.eval_shape(first, learnt), learnt, mesh)
    return Experiment(
        config=config,
        mesh=mesh,
        tokenizer=tokenizer,
        model=model,
        learner=learner,
        loss=loss,
        spec=spec,
        optimizer=optimizer,
        schedule=schedule,
        params=lora.without(learnt),
        state=state,
        make_state=make,
    )


def _check_batch_size(config: ConfigDict, mesh: Mesh) -> None:
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * config.microbatches
    if config.batch_size % parts:
        low, high = config.batch_size // parts * parts, -(-config.batch_size // parts) * parts
        raise ValueError(
            f"config.batch_size is {config.batch_size}, which the mesh {dict(mesh.shape)} with "
            f"{config.microbatches} microbatches splits in {parts}: use "
            + (f"{low} or {high}." if low else f"{high}.")
        )


def open_source(source: Mapping[str, Any], workdir: Path) -> sources.Source:
    """A source of the config; process 0 builds or checks the data before the others look."""
    with distributed.main_first(f"opening {source.get('kind')} {_named(source)}"):
        return sources.open_source(source, workdir=workdir)


def check_examples(
    source: sources.Source, saved: Mapping[str, Any], config: ConfigDict, allow: Iterable[str]
) -> None:
    """Compare the size of the training set with that of the run that is resumed.

    The order of the examples is a permutation of so many: with one file less, all of it is another.

    Args:
      saved: the JSON part of the checkpoint.
      allow: of --allow_change; "data.train" allows any size.

    Raises:
      ValueError: another size, and not one that `config.data.max_lost_records` allows.
    """
    had, has = saved.get("examples", len(source)), len(source)
    if had == has:
        return
    what = f"{source.name} has {has:,} examples and had {had:,} when this run was saved"
    most = most_allowed(config.data.max_lost_records, had, "config.data.max_lost_records")
    if not 0 < had - has <= most and "data.train" not in allow:
        raise ValueError(
            f"{what}: with another number they come in another order; put the set back as it was, "
            "or allow it with --allow_change=data.train."
        )
    print(f"warning: {what}: from here on they come in another order")


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
        if saved:
            write_tokenizer(workdir, saved["tokenizer"])
        tokenizer = tokenizers.make_tokenizer(config.tokenizer, corpus=_texts(source), saved=folder)
        if distributed.is_main():
            tokenizer.save(folder)
    distributed.check_same("the tokenizer", tokenizer.fingerprint)
    return tokenizer


def tokenizer_files(workdir: Path) -> dict[str, str]:
    """The files of the workdir's tokenizer, name -> text, as a checkpoint keeps them."""
    return {f.name: f.read_text() for f in sorted((workdir / "tokenizer").glob("*.json"))}


def write_tokenizer(workdir: Path, files: Mapping[str, str]) -> None:
    """Put a checkpoint's tokenizer into the workdir, where it is missing.

    Raises:
      ValueError: another tokenizer is there.
    """
    present = tokenizer_files(workdir)
    if present and present != files:
        raise ValueError(
            f"The tokenizer in {workdir / 'tokenizer'} is not the one that this run's checkpoint "
            "was trained with: delete that folder, and it comes back from the checkpoint."
        )
    if present:
        return
    (workdir / "tokenizer").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (workdir / "tokenizer" / name).write_text(text)


def init_from(run: Experiment, state: step.TrainState) -> step.TrainState:
    """The state with what `config.init_from` takes from another model and from a language model;
    prints it."""
    settings, found = run.config.init_from, lora.without(state.params)
    params = found
    if settings.path:
        params, report = initial.parameters_from(settings.path, params, settings.only)
        print(report)
    if settings.language_model:
        params, report = initial.language_model_from(settings.language_model, params)
        print(report)
    if params is found:
        return state
    params = {**state.params, **params}
    ema = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, ema_params=ema)


def _texts(source: sources.Source) -> Iterator[str]:
    for i in range(len(source)):
        example = source[i]
        yield from example.get("captions", ())
        yield from example.get("names", ())


def training_batches(
    config: ConfigDict,
    source: sources.Source,
    tokenizer: Any,
    start_step: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Mapping[str, np.ndarray]]:
    """The rows of every batch from `start_step` on, or one share of them.

    Args:
      share: (index, count), as `sharding.batch_share` gives for this process.

    Raises:
      ValueError: while iterating, rows that the system cannot learn from.
    """
    context = {"tokenizer": tokenizer, "class_names": source.class_names}
    if config.data.cached_transform:
        source = InMemory(source, transforms.parse(config.data.cached_transform, **context))
    batch_transform = transforms.parse_batch(config.data.batch_transform, **context)
    found = pipeline.train_batches(
        source,
        transforms.parse(config.data.transform, **context),
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start_step,
        process_index=share[0],
        process_count=share[1],
        num_threads=config.data.num_threads,
        batch_transform=batch_transform if config.data.batch_transform else None,
        max_lost_records=config.data.max_lost_records,
    )

    def checked() -> Iterator[Mapping[str, np.ndarray]]:
        with contextlib.closing(found):
            for batch in found:
                models.check_batch(config, batch)
                yield batch

    return checked()


def make_eval_context(experiment: Experiment, workdir: Path, progress: Any) -> EvalContext:
    """How evaluators and the report read sources and call the model."""
    config, mesh, model = experiment.config, experiment.mesh, experiment.model
    whole = sharding.named(mesh)
    watch = jax.jit(
        lambda params, batch: model.apply({"params": params}, batch, mutable=["intermediates"])[1],
        out_shardings=whole,
    )
    collect = jax.jit(lambda _, batch: batch, out_shardings=whole)
    lies = sharding.batch_sharding(mesh)
    index, count = sharding.batch_share(mesh)
    rows = config.batch_size // count

    def on_mesh(function, params, batch):
        with jax.set_mesh(mesh):
            return function(params, to_device(batch, lies))

    def gather(batch):
        return jax.tree.map(np.asarray, on_mesh(collect, None, batch)) if count > 1 else batch

    @functools.partial(jax.jit, out_shardings=whole)
    def forward(params, batch):
        outputs = dict(model.apply({"params": params}, batch))
        if "text_logits" in outputs:  # a vocabulary for each token is too much to fetch
            outputs["token_losses"] = token_losses(outputs.pop("text_logits"), batch["text"])
        return outputs

    def embed(params, batch):
        return jax.tree.map(np.asarray, dict(on_mesh(forward, params, batch)))

    def make_generate(settings):
        generate = models.make_generate(config, model, experiment.tokenizer, settings)
        return functools.partial(on_mesh, generate)

    def make_choice(texts):
        choice = models.make_choice(config, model, experiment.tokenizer, texts)
        return functools.partial(on_mesh, choice)

    def attention(params, batch):
        sown = on_mesh(watch, params, {"image": batch["image"]})["intermediates"]
        return sown_weights(sown)

    def read(source, spec, batch_size):
        transform = transforms.parse(
            spec, tokenizer=experiment.tokenizer, class_names=source.class_names
        )
        return pipeline.eval_batches(
            source,
            transform,
            batch_size=batch_size,
            process_index=index,
            process_count=count,
        )

    return EvalContext(
        embed=embed,
        open_source=functools.partial(open_source, workdir=workdir),
        batches=read,
        tokenizer=experiment.tokenizer,
        text_length=experiment.spec["text"].shape[1] if "text" in experiment.spec else 0,
        window=getattr(model, "window", 0),
        batch_size=config.batch_size,
        make_generate=make_generate,
        make_choice=make_choice,
        attention=attention,
        progress=progress,
        rows=slice(index * rows, (index + 1) * rows),
        gather=gather,
    )
