"""Accelerators to plan for: their specifications, topologies and devices.

Importable without jax, so that `prepare` can set what has to be set before jax is imported.
"""

import dataclasses
import importlib.util
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

GIB = 2**30
_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_3D = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8"),
    *("8x8x8", "8x8x16", "8x16x16", "16x16x16"),
)


@dataclasses.dataclass(frozen=True)
class Chip:
    """Specifications of one device as jax sees it.

    Attributes:
      flops: peak bf16 FLOP/s, dense.
      hbm: bytes that a program can use.
      bandwidth: bytes/s between HBM and chip.
      link: bytes/s that a chip sends to its neighbours, all links together, one direction.
      ring: an axis whose size is a multiple of this is a ring.
      clock: Hz; None where the compiler counts no cycles.
      shapes: topologies that exist; empty: any number of devices.
      per_chip: devices of one chip, as it is rented.
      cores: number of cores that share a device's work.
      settings: arguments of libtpu's topology description.
    """

    platform: str
    flops: float
    hbm: float
    bandwidth: float
    link: float
    clock: float | None = None
    shapes: tuple[str, ...] = ()
    ring: int = 4
    per_chip: int = 1
    cores: int = 1
    settings: tuple[tuple[str, Any], ...] = ()


# TPU: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, "System architecture". They give the
# interconnect's bidirectional bandwidth; `link` is half of it, and equals a pod's all-reduce
# bandwidth divided by its chips (v5e: 51.2 TB/s for 256). jax-ml/scaling-book, "TPU specs", gives
# 10 % less per link. hbm: what the compiler reports. The clock is the peak divided by the FLOPs of
# the matrix units per cycle (v4, v5e: 4 units of 128 x 128 per core; v5p: 8). For v6e and a TPU7x
# core 524,288 FLOPs per cycle are inferred from the compiler's cycles, see
# experiments/benchmarks/plan.md; the clocks of v5p and TPU7x are doubtful, too.
# GPU: NVIDIA's data sheets, which give the peak with sparsity, twice that without, and the sum of
# both directions of NVLink.
CHIPS = {
    # 275 TFLOP/s, 1200 GB/s; all-reduce 1.1 PB/s for 4,096 chips, no bandwidth per chip
    "v4": Chip(
        *("tpu", 275e12, 30.75 * GIB, 1200e9, 1.1e15 / 4096, 275e12 / 2**18, (*_3D, "12x16x16")),
        cores=2,
        settings=(("chip_config_name", "megacore"),),
    ),
    # 197 TFLOP/s, 819 GB/s (older text: 800 GiB/s), 400 GB/s bidirectional
    "v5e": Chip("tpu", 197e12, 15.75 * GIB, 819e9, 200e9, 197e12 / 2**17, _2D, ring=16),
    # 459 TFLOP/s, 2765 GB/s, 1200 GB/s bidirectional
    "v5p": Chip(
        *("tpu", 459e12, 95.74 * GIB, 2765e9, 600e9, 459e12 / 2**18, (*_3D, "16x16x24")),
        cores=2,
    ),
    # 918 TFLOP/s, 1638 GB/s (the page of TPU7x; its own: 1600), 800 GB/s bidirectional
    "v6e": Chip("tpu", 918e12, 31.25 * GIB, 1638e9, 400e9, 918e12 / 2**19, _2D, ring=16),
    # a chip, of two devices: 2307 TFLOP/s, 7380 GB/s, 1200 GB/s bidirectional
    "tpu7x": Chip(
        *("tpu", 2307e12 / 2, 94.75 * GIB, 7380e9 / 2, 300e9, 2307e12 / 2**20, _3D),
        per_chip=2,
    ),
    # "NVIDIA A100 Tensor Core GPU", 80 GB SXM: 624 TFLOP/s, 2039 GB/s, 600 GB/s
    "a100": Chip("gpu", 312e12, 80e9, 2039e9, 300e9),
    # "NVIDIA H100 Tensor Core GPU", SXM: 1979 TFLOP/s, 3.35 TB/s, 900 GB/s
    "h100": Chip("gpu", 989e12, 80e9, 3350e9, 450e9),
    # "NVIDIA H200 Tensor Core GPU", SXM: 1979 TFLOP/s, 4.8 TB/s, 900 GB/s
    "h200": Chip("gpu", 989e12, 141e9, 4800e9, 450e9),
}


# What jax calls their devices, beside the names above.
DEVICE_KINDS = {
    "tpu v5 lite": "v5e",
    "tpu v5": "v5p",
    "tpu v6 lite": "v6e",
    "tpu7x": "tpu7x",
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip of a device that is here, by jax's name for it; None if it is not known.

    A GPU's name contains that of the chip: "NVIDIA H100 80GB HBM3".
    """
    kind = device_kind.lower()
    name = DEVICE_KINDS.get(kind, kind.removeprefix("tpu "))
    if name in CHIPS:
        return CHIPS[name]
    return next((CHIPS[gpu] for gpu in ("a100", "h100", "h200") if gpu in kind), None)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Some chips of one kind, "v5e:16x16", "gpu:h100x8" or "cpu:8".

    Attributes:
      count: devices that jax sees.
      chip: its specifications; `link` is lower where axes are not rings; of "cpu" only the memory
        is set, this machine's divided by `count`.
    """

    name: str
    platform: str
    count: int
    chip: Chip

    @property
    def chips(self) -> int:
        """Number of chips, as they are rented."""
        return self.count // self.chip.per_chip

    def devices(self) -> list:
        """The devices of a mesh to compile for; those of a TPU need not be here.

        Raises:
          ValueError: libtpu cannot describe them.
        """
        import jax
        from jax.experimental import topologies

        if self.platform != "tpu":
            return jax.devices("cpu")[: self.count]
        settings = dict(self.chip.settings)
        if self.count == 1:
            settings["chips_per_host_bounds"] = (1, 1, 1)
        try:
            return topologies.get_topology_desc(
                platform="tpu", topology_name=self.name, **settings
            ).devices
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(
                f"--topology={self.name}: libtpu cannot describe it ({error}); another libtpu or "
                "another topology may do."
            ) from error


def parse(name: str) -> Topology:
    """The topology of that name.

    Raises:
      ValueError: an unknown name; lists the known ones.
    """
    kind, _, shape = name.partition(":")
    if kind == "cpu" and shape.isdecimal() and int(shape):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Topology(name, "cpu", int(shape), Chip("cpu", 0, memory / int(shape), 0, 0))
    gpu, _, count = shape.rpartition("x")
    if (
        kind == "gpu"
        and gpu in CHIPS
        and CHIPS[gpu].platform == "gpu"
        and count.isdecimal()
        and int(count)
    ):
        return Topology(name, "gpu", int(count), CHIPS[gpu])
    tpu = CHIPS.get(kind)
    if tpu and shape in tpu.shapes:
        sizes = [int(n) for n in shape.split("x")]
        # A line uses one of the two links along an axis in each direction, a ring both.
        used = [0 if n == 1 else 1 if n % tpu.ring == 0 else 0.5 for n in sizes]
        link = tpu.link * (sum(used) / len(used) or 1)
        count = math.prod(sizes) * tpu.per_chip
        return Topology(name, "tpu", count, dataclasses.replace(tpu, link=link))
    if tpu and tpu.shapes:
        raise ValueError(
            f"--topology={name}: there is no {kind} of that shape; use one of "
            + ", ".join(f"{kind}:{s}" for s in tpu.shapes)
            + "."
        )
    tpus = ", ".join(f"{k}:{c.shapes[3]}" for k, c in CHIPS.items() if c.platform == "tpu")
    gpus = ", ".join(f"gpu:{k}x8" for k, c in CHIPS.items() if c.platform == "gpu")
    raise ValueError(
        f"--topology={name}: there is no such accelerator; use for instance one of {tpus}, {gpus} "
        "or cpu:8, with a shape or a number of your own."
    )


_SCHEDULE = "hlo-static-bundle-profile"
_schedules: str | None = None  # the folder that libtpu dumps them to


def take_schedules() -> str:
    """libtpu's dump of the schedules of the programs compiled since the last call; deletes it.

    "" without libtpu. See `compiled.schedule`.
    """
    if _schedules is None:
        return ""
    files = sorted(Path(_schedules).glob(f"*{_SCHEDULE}*"))
    text = "\n".join(file.read_text(errors="replace") for file in files)
    shutil.rmtree(_schedules, ignore_errors=True)
    return text


def prepare(name: str) -> None:
    """Set the environment to compile for a topology; call before jax is imported.

    Raises:
      ValueError: no such topology, or no libtpu.
    """
    topology = parse(name)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if topology.platform != "tpu":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={topology.count}"
        return
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={name} needs the TPU compiler, which is not installed: "
            "pip install 'mmjax[tpu-plan]' (in a checkout: pip install -e '.[tpu-plan]'), or plan "
            "roughly with --topology=gpu:h100x8 or cpu:8."
        )
    global _schedules
    _schedules = tempfile.mkdtemp(prefix="mmjax-schedules-")
    settings = os.environ.get("LIBTPU_INIT_ARGS", "")
    # There is no TPU: libtpu must not look for one, nor wait for other processes that compile.
    os.environ.update(
        LIBTPU_INIT_ARGS=f"{settings} --xla_jf_dump_to={_schedules} --xla_jf_dump_llo_text=true"
        f" --xla_jf_dump_llo_pass_label_regex={_SCHEDULE}",
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_ACCELERATOR_TYPE="v5litepod-16",  # any that exists
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TPU_STDERR_LOG_LEVEL="3",
        TPU_MIN_LOG_LEVEL="3",
    )
