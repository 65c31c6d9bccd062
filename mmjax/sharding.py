"""The device mesh and the strict rules from logical axis names to mesh axes.

Every parameter and activation names its axes with names from `RULES`; only this file maps them to
mesh axes. An unknown name raises, where Linen would silently replicate.
"""

import difflib
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

# logical axis -> mesh axes that it is split over (None: never split)
RULES: Mapping[str, tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "length": None,  # tokens of a sequence, patches of an image
    "height": None,
    "width": None,
    "channels": None,
    "embed": ("fsdp",),  # the residual width, on parameters
    "act_embed": None,  # the residual width, on activations
    "joint": None,  # the shared image-text space
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "head_dim": None,
    "qkv": None,
    "vocab": ("tensor",),
    "patch": None,  # flattened pixels of a patch
    "layers": None,
    "classes": None,
    "queue": None,  # entries of a queue of embeddings
    "codes": None,  # entries of a codebook
}


def _mesh_axes(name: str | None) -> tuple[str, ...] | None:
    if name is None:
        return None
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"Unknown logical axis '{name}': mmjax/sharding.py has no rule for it.{hint}"
        )
    return RULES[name]


def make_mesh(shape: Mapping[str, int] | None = None, devices: Sequence | None = None) -> Mesh:
    """A ("data", "fsdp", "tensor") mesh.

    Args:
      shape: size of each mesh axis; missing axes are 1, one axis may be -1 (all remaining
        devices). None puts every device on "data".
      devices: the devices to use; None is all of them.

    Raises:
      ValueError: an unknown axis, or sizes whose product is not the number of devices.
    """
    if devices is None:  # keep a process's devices together: they hold the rows that it reads
        devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    devices = list(devices)
    shape = dict(shape or {"data": -1})
    unknown = set(shape) - set(MESH_AXES)
    if unknown:
        raise ValueError(
            f"config.mesh has unknown axes {sorted(unknown)}; the axes are {MESH_AXES}."
        )
    sizes = [int(shape.get(axis, 1)) for axis in MESH_AXES]
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise ValueError(f"config.mesh is {shape}: sizes are positive, and at most one may be -1.")
    fixed = math.prod(s for s in sizes if s != -1)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if -1 in sizes or math.prod(sizes) != len(devices):
        raise ValueError(
            f"config.mesh {shape} needs a multiple of {fixed} devices and there are "
            f"{len(devices)}; set the sizes so that their product is {len(devices)}."
        )
    # Explicit axes, the default of jax.make_mesh, break Linen's logical partitioning.
    return Mesh(
        np.asarray(devices).reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES)
    )


def spec(*names: str | None) -> PartitionSpec:
    """PartitionSpec of an array whose axes carry these logical names (None: not split).

    Raises:
      ValueError: a name without a rule, or two names that map to the same mesh axis.
    """
    axes = [_mesh_axes(n) for n in names]
    used = [a for group in axes if group for a in group]
    if len(used) != len(set(used)):
        raise ValueError(f"Logical axes {names} use a mesh axis twice: {axes}.")
    return PartitionSpec(*axes)


def shard(x: jax.Array, *names: str | None) -> jax.Array:
    """Constrain an activation to the sharding of its logical axes; one name per axis of `x`.

    Does nothing outside `jax.set_mesh`.

    Raises:
      ValueError: an unknown name, or a count of names other than `x.ndim`.
    """
    if len(names) != x.ndim:
        raise ValueError(f"shard() got {len(names)} names {names} for an array of shape {x.shape}.")
    wanted = spec(*names)
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, wanted)


def named(mesh: Mesh, *names: str | None) -> NamedSharding:
    """NamedSharding on `mesh` of an array whose axes carry these logical names."""
    return NamedSharding(mesh, spec(*names))


def check_divides(mesh: Mesh, shape: Sequence[int], names: Sequence[str | None], what: str) -> None:
    """Raise where a mesh does not divide an array's axis.

    Args:
      shape: the array's shape; names: its logical axes; what: its name, for the message.

    Raises:
      ValueError: naming the axis, its size, and the divisor it must have.
    """
    for size, name in zip(shape, names, strict=True):
        parts = math.prod(mesh.shape[a] for a in _mesh_axes(name) or ())
        if size % parts:
            nearest = max(1, round(size / parts)) * parts
            raise ValueError(
                f"{what} has {size} along '{name}', which the mesh {dict(mesh.shape)} splits in "
                f"{parts}: use a multiple of {parts} (nearest: {nearest}) or another config.mesh."
            )


def divided(
    mesh: Mesh, shape: Sequence[int], names: Sequence[str | None]
) -> tuple[str | None, ...]:
    """The logical names of an array's axes, None for those that the mesh does not divide."""

    def parts(name: str | None) -> int:
        return math.prod(mesh.shape[a] for a in _mesh_axes(name) or ())

    return tuple(None if size % parts(n) else n for size, n in zip(shape, names, strict=True))


def batch_parts(mesh: Mesh | jax.sharding.AbstractMesh) -> int:
    """How many parts a batch is split into; 1 without a mesh."""
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in RULES["batch"])


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """(index, count): this process reads the index-th of `count` equal blocks of a batch's rows.

    Processes that hold the same rows, because another mesh axis spans them, share an index.

    Raises:
      ValueError: this process's devices do not hold one such block.
    """
    parts = batch_parts(mesh)
    places = batch_sharding(mesh).addressable_devices_indices_map((parts,))
    mine = sorted({place[0].indices(parts)[0] for place in places.values()})
    count = parts // len(mine)
    if parts % len(mine) or mine[0] % len(mine) or mine[-1] - mine[0] != len(mine) - 1:
        raise ValueError(
            f"config.mesh {dict(mesh.shape)} gives process {jax.process_index()} the parts {mine} "
            f"of {parts} of a batch, which are no equal block of it: make 'tensor' a divisor or a "
            f"multiple of the {len(mesh.local_devices)} devices of a process."
        )
    return mine[0] // len(mine), count


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every array of a batch: the first axis is split, the others are not."""
    return NamedSharding(mesh, spec("batch"))
