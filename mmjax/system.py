"""The contract between a system (model, loss, state) and the one training loop.

A step, as `mmjax/step.py` makes it:

    batch    = corrupt(batch, context)                  noise, masks, dropped conditions
    outputs  = model.apply({"params": ..., **memory}, batch)
    terms    = loss(outputs, batch, context)            each averaged over its rows, then weighted
    params   = optimizer(gradients), within `limits`
    memory   = remember(memory, outputs, batch, context)

A model file returns a `System` from `make_system(config)` and `mmjax/models/systems.py` lists it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mmjax.batch import Batch, Spec
from mmjax.config import nearest

STATISTICS = "batch_stats"  # the collection of the running statistics of batch norms
BUFFERS = "buffers"  # the collection of arrays that are drawn once and never trained
CODEBOOK = "codebook"  # the collection of the codebooks of quantizers
# The collections that a model has beside the parameters wherever it is used.
SAVED = (STATISTICS, BUFFERS, CODEBOOK)

Params = Any
Variables = Mapping[str, Any]  # {"params": ..., **memory}: what `model.apply` takes
Memory = Mapping[str, Any]
Outputs = Mapping[str, jax.Array]


class Weighted(NamedTuple):
    """A loss term or metric with a weight per row.

    Its mean over a batch is sum(value * weight) / sum(weight): a caption's mean over its tokens,
    weighted by their number, averages to the mean over all tokens. `value` [B], `weight` [B], 0
    where a row does not have it.
    """

    value: jax.Array
    weight: jax.Array


Term = jax.Array | Weighted  # [B], one value per example; a scalar; or Weighted
Terms = Mapping[str, Term]


class Context(NamedTuple):
    """What a step knows besides parameters and batch.

    Attributes:
      step: int32 scalar, the number of updates before this one: for schedules.
      rng: [B] keys, one per row: in training from (seed, step, row), in evaluation from
        (0, example_id), so that an evaluation is bit-reproducible at any batch size.
      teacher: outputs of the averaged parameters on this batch, without gradient; None unless
        `config.ema.teacher` is set.
      memory: as it was before this step.
    """

    step: jax.Array
    rng: jax.Array
    teacher: Outputs | None
    memory: Memory


@dataclasses.dataclass(frozen=True)
class System:
    """A model with everything that training, evaluation and generation need to know about it.

    Attributes:
      model: the Linen module; `model.apply(variables, batch, train=False) -> dict` of outputs,
        each `[B, ...]` of any dtype, or a scalar that does not depend on the examples.
      spec: name -> ShapeDtypeStruct `[1, ...]` of every array that model and loss read, labels
        included (`label` may come as `label_probs`).
      loss: `(outputs, batch, context) -> terms`; None: the model is not trained by itself.
      corrupt: `(batch, context) -> batch`, on the device, before the model: all randomness of a
        step but dropout, so that model and loss are deterministic functions of their inputs.
      memory: `() -> tree` of initial state beside the model's own variable collections (queues,
        codebooks): a dict of dicts of arrays, boxed with logical axis names or replicated.
      remember: `(memory, outputs, batch, context) -> memory`, once a step, on the outputs of the
        whole batch; skipped, as the update is, where the step is not finite.
      limits: name of a scalar parameter at the top -> its maximum, or (minimum, maximum), which no
        update exceeds.
      mutable: variable collections that the training forward pass writes (`batch_stats`).
      couples_rows: why the forward pass mixes rows of the batch; "" if it does not. Microbatches
        are refused with this reason.
      given: parts of the parameters, such as "image_tokenizer", that are not trained but come from
        another run -> their fingerprint, "" for any: see mmjax/run/given_parts.py.
      needs_teacher: why it needs `config.ema.teacher`, and how to set it; "" if it does not. A run
        without one is refused with this reason.
      evaluators: loss term -> settings of an evaluator of what it teaches, but its source and
        transform: what `config.data.hold_out` evaluates where the term has a weight.
      check_batch: raises ValueError for a batch, still on the host, that cannot be learned from.
      check_source: `(training source) -> None`, before training; raises ValueError.
      generate: `(tokenizer, settings) -> ((variables, batch, seed=0) -> Generated)`, text.
      score: `(tokenizer, texts) -> ((variables, batch) -> [B, C])`, log p of each text.
      sample: `(variables, batch, rng, settings) -> {name: array}`, anything but text: `image`
        [B, H, W, 3] uint8 and others [B, ...], `frames` [F, B, ...] of a settings' `frames`; `rng`
        is a key per row, `settings` a dict. It compiles itself, see `sample/compiled.py`.
      notes: `(mesh) -> lines`, printed before the first step.
      leaner_losses: `(devices) -> [(settings of config.loss, bytes saved)]`, for the planner.
    """

    model: nn.Module
    spec: Spec
    loss: Callable[[Outputs, Batch, Context], Terms] | None
    corrupt: Callable[[Batch, Context], Batch] | None = None
    memory: Callable[[], Memory] | None = None
    remember: Callable[[Memory, Outputs, Batch, Context], Memory] | None = None
    limits: Mapping[str, float | tuple[float, float]] = dataclasses.field(default_factory=dict)
    mutable: tuple[str, ...] = ()
    couples_rows: str = ""
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    needs_teacher: str = ""
    evaluators: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    check_batch: Callable[[Batch], None] | None = None
    check_source: Callable[[Any], None] | None = None
    generate: Callable[[Any, Mapping[str, Any]], Callable[..., Any]] | None = None
    score: Callable[[Any, Sequence[str]], Callable[[Variables, Batch], Any]] | None = None
    sample: Callable[..., Mapping[str, jax.Array]] | None = None
    notes: Callable[[Mesh], list[str]] | None = None
    leaner_losses: Callable[[int], list[tuple[dict[str, Any], int]]] | None = None

    def __new__(cls, *args: Any, **hooks: Any) -> "System":
        """Refuse unknown hooks by name.

        Raises:
          ValueError: an unknown hook; names the nearest known one.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in hooks:
            if name not in known:
                raise ValueError(
                    f"A System has no hook '{name}'.{nearest(name, known)} It has: "
                    f"{', '.join(known)}."
                )
        return super().__new__(cls)


def variables(params: Params, memory: Memory) -> Variables:
    """What `model.apply` takes: the parameters, and the memory as further collections."""
    return {"params": params, **memory}


def memory_of(given: Variables) -> Memory:
    """The inverse of `variables`: all collections but the parameters."""
    return {name: tree for name, tree in given.items() if name != "params"}


def statistics_of(memory: Memory) -> Memory:
    """The collections of `SAVED`, which published weights have beside the parameters."""
    return {name: tree for name, tree in memory.items() if name in SAVED}


def average(term: Term) -> tuple[jax.Array, jax.Array]:
    """A term's mean over the batch, fp32, and whether any row has it (else the mean is 0)."""
    if not isinstance(term, Weighted):
        return jnp.mean(term, dtype=jnp.float32), jnp.ones((), bool)
    weight = term.weight.astype(jnp.float32)
    total = weight.sum()
    value = jnp.where(weight > 0, term.value.astype(jnp.float32), 0.0)
    return jnp.sum(value * weight) / jnp.where(total > 0, total, 1.0), total > 0


def seed_data(seed: int) -> np.ndarray:
    """The key of a seed as uint32 numbers on the host: an argument of compiled programs, so that
    another seed compiles nothing; `jax.random.wrap_key_data` makes it a key again."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def training_keys(
    seed: jax.typing.ArrayLike, step: jax.Array, rows: int
) -> tuple[jax.Array, jax.Array]:
    """The key of a step (dropout), and the keys of its rows (`Context.rng`).

    Args:
      seed: from `seed_data`.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(seed), step)
    return key, row_keys(jax.random.fold_in(key, _ROWS), jnp.arange(rows))


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """[B] keys from one key and [B] integers; a row's key does not depend on its batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def evaluation_context(batch: Batch, step: jax.Array, memory: Memory) -> Context:
    """The context of an evaluation: its randomness follows from each row's `example_id` alone."""
    rng = row_keys(jax.random.key(0), jnp.asarray(batch["example_id"]))
    return Context(jnp.asarray(step, jnp.int32), rng, None, memory)


_ROWS = 0x524F5753  # separates the rows' keys from the dropout keys of microbatches
