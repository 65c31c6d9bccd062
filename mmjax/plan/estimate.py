"""What one training step of a config needs on a topology, read from the compiled program."""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmjax import batch as batches
from mmjax import sharding
from mmjax.data.transforms import chain
from mmjax.layers.platform import compiling_for
from mmjax.plan import chips, compiled, flops
from mmjax.plan.chips import Topology
from mmjax.run import experiment

LARGE = 16e6  # bytes; the page lists tensors from this size on
WHOLE = 64e6  # bytes; it warns of larger tensors that are whole on every chip


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A large tensor of the state. spec: mesh axes of its axes; bytes: in all; local: per chip."""

    name: str
    shape: tuple[int, ...]
    spec: str
    bytes: int
    local: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One step of a config on a topology. Bytes and seconds are per chip.

    Attributes:
      parameters: of the towers and the rest, name -> count.
      tensors: the large ones of the state.
      state: bytes of parameters, optimizer and moving average, by name.
      memory: bytes of arguments, temporaries (activations), code and their peak; only the peak
        where the program did not fit.
      hbm: bytes of memory of a chip.
      model_flops, executed_flops: of all chips; the latter with recomputation.
      compute_seconds: from the compiler's cycles, or from a roofline; None: unknown.
      network_seconds: collectives at full speed, without overlap with computation.
      collectives: kind -> count, payload, sent; see `compiled.Traffic`.
      unknown_loops: loops that were counted once, as their length could not be read.
      kernel_seconds: the part of compute_seconds that is in kernels (Pallas).
      unknown_kernels: kernels that count as 0, as their schedule could not be read.
      compile_seconds: to build, trace and compile.
    """

    topology: str
    chips: int
    batch_size: int
    mesh: dict[str, int]
    parameters: dict[str, int]
    tensors: list[Tensor]
    state: dict[str, int]
    memory: dict[str, float]
    hbm: float
    model_flops: float
    executed_flops: float
    compute_seconds: float | None
    network_seconds: float | None
    collectives: dict[str, compiled.Traffic]
    unknown_loops: tuple[str, ...]
    kernel_seconds: float
    unknown_kernels: tuple[str, ...]
    compile_seconds: float
    examples: int
    peak_flops: float  # of all chips
    largest: bool = False  # steps of other parts of the mixture, of whole batches, are smaller

    @property
    def fits(self) -> bool:
        """The peak is within the chip's memory."""
        return self.memory["peak"] <= self.hbm

    @property
    def step_seconds(self) -> float | None:
        """Computation, then collectives."""
        if self.compute_seconds is None:
            return None
        return self.compute_seconds + self.network_seconds

    @property
    def mfu(self) -> float | None:
        """Fraction of the chips' peak that goes into the model's own FLOPs."""
        if self.step_seconds is None:
            return None
        return self.model_flops / self.step_seconds / self.peak_flops

    @property
    def hours(self) -> float | None:
        """Hours for all examples of the config."""
        if self.step_seconds is None:
            return None
        return self.examples / self.batch_size * self.step_seconds / 3600

    @property
    def chip_hours(self) -> float | None:
        """Hours of all chips together."""
        return None if self.hours is None else self.hours * self.chips

    @property
    def examples_per_second_chip(self) -> float | None:
        """Throughput per chip."""
        if self.step_seconds is None:
            return None
        return self.batch_size / self.step_seconds / self.chips


def estimate(
    config: ConfigDict,
    topology: Topology,
    tell: Callable[[str, Mapping[str, float]], None] = lambda stage, known: None,
) -> Estimate:
    """Compile the training step of a config for a topology, and read what it needs.

    Args:
      tell: called at every stage with its name and with what is known by then: `parameters`,
        `state` (bytes per chip), `flops` (of a step).

    Raises:
      ValueError: settings that do not fit each other or the mesh.
    """
    started, chip = time.perf_counter(), topology.chip
    tell("building the model", {})
    run = experiment.build(config, None, topology.devices())
    count = sum(_count(run.state.params).values())
    known = {"parameters": count, "state": _local_bytes(run.state)}
    tell("tracing the step", known)
    numbers = run.numbers(0)  # computed here: the mesh's devices may not exist
    with jax.set_mesh(run.mesh), compiling_for(topology.platform):
        traced = run.train_step.trace(run.state, _batch(run), numbers)
        executed = flops.count(
            traced.jaxpr,
            peak=chip.flops * topology.count or math.inf,
            bandwidth=chip.bandwidth * topology.count or math.inf,
        )
        lowered = traced.lower()
    own = model_flops(config, topology)
    tell("compiling", known | {"flops": executed.flops})
    memory, costs = compile_for(lowered, topology)
    compute = None
    if costs.cycles:
        compute = costs.cycles / chip.clock
    elif topology.platform == "gpu":  # besides the products, the state is read and written once
        compute = executed.seconds + 2 * _local_bytes(run.state) / chip.bandwidth
    state = {
        "parameters": _local_bytes(run.state.params),
        "optimizer": _local_bytes(run.state.opt_state),
        "moving average": _local_bytes(run.state.average),
        "memory": _local_bytes(run.state.memory),
    }
    return Estimate(
        topology=topology.name,
        chips=topology.chips,
        batch_size=config.batch_size,
        mesh=dict(run.mesh.shape),
        parameters=_count(run.state.params),
        tensors=_tensors(run.state),
        state=state,
        memory=memory,
        hbm=chip.hbm,
        model_flops=own,
        executed_flops=executed.flops,
        compute_seconds=compute,
        network_seconds=costs.sent / chip.link if chip.link else None,
        collectives=costs.collectives,
        unknown_loops=costs.unknown_loops,
        kernel_seconds=costs.kernel_cycles / chip.clock if chip.clock else 0.0,
        unknown_kernels=costs.unknown_kernels,
        compile_seconds=time.perf_counter() - started,
        examples=config.total_steps * config.batch_size,
        peak_flops=chip.flops * topology.count,
        largest=bool(config.data.train.get("whole_batches")),
    )


def _batch(run: experiment.Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    """The batch of a config's pipeline: the arrays of its spec, presence masks and labels."""
    placed, size = sharding.batch_sharding(run.mesh), run.config.batch_size
    shapes = {name: (x.shape[1:], x.dtype) for name, x in run.spec.items()}
    shapes |= {f"{m}_present": ((), bool) for m in batches.MODALITIES if m in shapes}
    data, classes = run.config.data, run.config.model.get("num_classes")
    steps = {name for s in (data.transform, data.batch_transform) for name, *_ in chain.read(s)}
    if "mixup" in steps:
        shapes["label_probs"] = ((classes,), jnp.float32)
    return {
        name: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=placed)
        for name, (shape, dtype) in shapes.items()
    }


def model_flops(config: ConfigDict, topology: Topology) -> float:
    """FLOPs of the step without recomputation: no remat and no microbatches.

    Traced as for a GPU, without the TPU kernels, which recompute logits.
    """
    config = with_remat(config, "none")
    with config.unlocked():
        config.microbatches = 1
    run = experiment.build(config, None, topology.devices())
    numbers = run.numbers(0)
    with jax.set_mesh(run.mesh), compiling_for("gpu"):
        return flops.count(run.train_step.trace(run.state, _batch(run), numbers).jaxpr).flops


def with_remat(config: ConfigDict, policy: str) -> ConfigDict:
    """A copy of the config with another `remat` in every part of the model that sets one."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for section in remat_sections(config).values():
            section.remat = policy
    return config


def remat_sections(config: ConfigDict) -> dict[str, ConfigDict]:
    """The parts of the model that set `remat`, by their path in the config ("model.image")."""
    parts = {"model": config.model}
    parts |= {f"model.{k}": v for k, v in config.model.items() if isinstance(v, ConfigDict)}
    return {place: part for place, part in parts.items() if "remat" in part}


def compile_for(lowered: Any, topology: Topology) -> tuple[dict[str, float], compiled.Costs]:
    """Memory per chip, and the program's costs: none if the compiler says that it does not fit."""
    chips.take_schedules()  # discard those of earlier programs
    program, needs = compile_or_needs(lowered)
    if program is None:
        return {"peak": needs}, compiled.Costs()
    found = program.memory_analysis()
    memory = {
        "arguments": found.argument_size_in_bytes,
        "results": found.output_size_in_bytes - found.alias_size_in_bytes,
        "activations": found.temp_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
    }
    memory["peak"] = sum(memory.values())
    bundles = compiled.schedule(chips.take_schedules())
    return memory, compiled.costs(program.as_text(), bundles, topology.chip.cores)


def compile_or_needs(lowered: Any) -> tuple[Any, float | None]:
    """(the compiled program, None), or (None, bytes needed per chip) if it does not fit."""
    try:
        return lowered.compile(), None
    except jax.errors.JaxRuntimeError as error:
        needs = out_of_memory(str(error))
        if needs is None:
            raise
        return None, needs


def out_of_memory(message: str) -> float | None:
    """The bytes that a program would need, from the TPU compiler's error; None: another error.

    >>> out_of_memory("RESOURCE_EXHAUSTED: Ran out of memory ... Used 20.50G of 15.75G hbm.") / GIB
    20.5
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    amount = r"([\d.]+)([KMGT])"
    found = re.search(rf"Used {amount} of", message) or re.search(
        rf"\({amount}\) exceeds available", message
    )
    if found is None:
        return None
    return float(found[1]) * 1024 ** (1 + "KMGT".index(found[2]))


def _local(x: jax.ShapeDtypeStruct) -> int:
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def _local_bytes(tree: Any) -> int:
    return sum(_local(x) for x in jax.tree.leaves(tree))


def _count(params: Any) -> dict[str, int]:
    """Parameters of each part of the model at its top level."""
    return {
        name: sum(math.prod(x.shape) for x in jax.tree.leaves(part))
        for name, part in params.items()
    }


def _tensors(state: Any) -> list[Tensor]:
    found = []
    for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        size = math.prod(x.shape) * x.dtype.itemsize
        if size >= LARGE:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            spec = ", ".join(_axes(a, x.sharding.mesh) or "–" for a in x.sharding.spec)
            found.append(Tensor(name, x.shape, spec, size, _local(x)))
    return found


def _axes(axes: str | tuple[str, ...] | None, mesh: Mesh) -> str:
    """The mesh axes that split: all but those of size 1."""
    axes = (axes,) if isinstance(axes, str) else axes or ()
    return "×".join(a for a in axes if mesh.shape[a] > 1)
