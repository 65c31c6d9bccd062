"""LoRA: low-rank additions to chosen kernels, trained in place of the kernels.

A kernel W that maps axes `inputs` to axes `outputs` becomes W + alpha / rank · A · B, with
A [*inputs, rank] and B [rank, *outputs], separate for each layer of a stack. The additions are
parameters of their own, `lora/<the kernel's path>/a` and `/b`, beside those of the model, whose
module is unchanged: it is called with the merged kernels. With additions all else is frozen, unless
`config.optim.freeze` says otherwise (see `optimizer.py`).

The gradient of a merged kernel is computed in full and then projected onto A and B, at the cost of
W's own gradient. Saved are the gradients of all other parameters, and the optimizer state, clipping
and update of all but A and B.

Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1.
"""

import dataclasses
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.core import meta
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.optim import tree_paths

NAME = "lora"  # of the subtree
BASE = f"(?!{NAME}/).*"  # a pattern for the paths of all other parameters


def adapt(model: Any, settings: Mapping[str, Any]) -> Any:
    """A model whose kernels that `config.lora.targets` matches have additions.

    Args:
      settings: rank, alpha, and targets (patterns for whole paths of kernels); without targets the
        model itself is returned.

    Raises:
      ValueError: a rank or an alpha that is not positive; from `init`, a target that matches no
        kernel.
    """
    rank, alpha, targets = settings["rank"], settings["alpha"], settings["targets"]
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    if not targets:
        return model
    if rank < 1 or alpha <= 0:
        raise ValueError(
            f"config.lora has rank {rank} and alpha {alpha}: use a rank of at least 1 and an alpha "
            "above 0."
        )
    return Adapted(model, rank, float(alpha), targets)


@dataclasses.dataclass(frozen=True)
class Adapted:
    """`init` and `apply` of a model, with additions to its kernels."""

    model: Any
    rank: int
    alpha: float
    targets: tuple[str, ...]

    def init(self, rngs: Mapping[str, jax.Array], batch: Any) -> dict[str, Any]:
        """The model's variables and the additions: A from a Gaussian, B zero."""
        variables = self.model.init(rngs, batch)
        boxes = traverse_util.flatten_dict(variables["params"], sep="/")
        kernels = {k: box for k, box in boxes.items() if _is_kernel(k, box)}
        chosen = {
            path
            for pattern in self.targets
            for path in tree_paths.matching(pattern, kernels, "config.lora.targets", "kernel")
        }
        added = {}
        for path in sorted(chosen):
            box = kernels[path]
            layers, inputs = _axes(box.names)
            shape, names = box.value.shape, box.names
            key = jax.random.fold_in(rngs["params"], zlib.crc32(path.encode()))
            a = jax.random.normal(key, (*shape[:inputs], self.rank), jnp.float32)
            a = a * jnp.float32(math.prod(shape[layers:inputs]) ** -0.5)
            b = jnp.zeros((*shape[:layers], self.rank, *shape[inputs:]), jnp.float32)
            added[f"{path}/a"] = box.replace(value=a, names=(*names[:inputs], None))
            added[f"{path}/b"] = box.replace(
                value=b, names=(*names[:layers], None, *names[inputs:])
            )
        params = variables["params"] | {NAME: traverse_util.unflatten_dict(added, sep="/")}
        return {**variables, "params": params}

    def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The model's `apply` with merged parameters."""
        params = merge(variables["params"], self.alpha)
        return self.model.apply({**variables, "params": params}, *args, **kwargs)


def merge(params: Any, alpha: float) -> Any:
    """The parameters of the model itself, its kernels W + alpha / rank · A · B.

    Args:
      params: of an adapted model; those of another are returned unchanged.
      alpha: `config.lora.alpha`.
    """
    if NAME not in params:
        return params
    flat = traverse_util.flatten_dict(without(params), sep="/")
    added = traverse_util.flatten_dict(params[NAME], sep="/")
    for path in adapted(f"{NAME}/{name}" for name in added):
        flat[path] = merged_kernel(flat[path], added[f"{path}/a"], added[f"{path}/b"], alpha)
    return traverse_util.unflatten_dict(flat, sep="/")


def without(params: Any) -> Any:
    """The parameters without the additions."""
    return {k: v for k, v in params.items() if k != NAME}


def with_additions(params: Any, saved: Mapping[str, tuple[int, ...]]) -> Any:
    """Abstract parameters and the saved additions to them, which are replicated.

    Args:
      params: ShapeDtypeStructs with shardings, perhaps of a part of the model.
      saved: path -> shape of all parameters of a checkpoint.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    added = {}
    for path in adapted(saved) & flat.keys():
        sharding = flat[path].sharding
        if isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, PartitionSpec())
        for name in (f"{NAME}/{path}/a", f"{NAME}/{path}/b"):
            added[name] = jax.ShapeDtypeStruct(saved[name], jnp.float32, sharding=sharding)
    return traverse_util.unflatten_dict(flat | added, sep="/")


def merged_kernel(kernel: jax.Array, a: jax.Array, b: jax.Array, alpha: float) -> jax.Array:
    """kernel [*layers, *inputs, *outputs] + alpha / rank · a [*layers, *inputs, rank] ·
    b [*layers, rank, *outputs], in float32."""
    layers = a.ndim - 1 + b.ndim - 1 - kernel.ndim
    letters = "abcdefghij"[: kernel.ndim]
    inputs = a.ndim - 1
    of_a, of_b = letters[:inputs] + "r", f"{letters[:layers]}r{letters[inputs:]}"
    product = jnp.einsum(f"{of_a},{of_b}->{letters}", a, b, precision="highest")
    return kernel + jnp.asarray(alpha / a.shape[-1], kernel.dtype) * product


def adapted(paths: Iterable[str]) -> set[str]:
    """The kernels that have additions, among the paths of all parameters."""
    found = (path.split("/") for path in paths)
    return {"/".join(keys[1:-1]) for keys in found if keys[0] == NAME}


def _is_kernel(path: str, box: Any) -> bool:
    name = path.rsplit("/", 1)[-1]
    named = name == "kernel" or name.endswith("_kernel")
    return named and isinstance(box, meta.AxisMetadata) and box.value.ndim > _axes(box.names)[0] + 1


def _axes(names: tuple[str | None, ...]) -> tuple[int, int]:
    """(number of layer axes, number of layer and input axes) of a kernel.

    A kernel maps one axis to several, or several to one: if `embed` comes first it is the only
    input axis, otherwise the last axis is the only output axis.
    """
    layers = next((i for i, name in enumerate(names) if name != "layers"), len(names))
    return layers, layers + 1 if names[layers:][:1] == ("embed",) else len(names) - 1
