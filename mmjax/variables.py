"""A model's variables: initialized from a seed, as shapes only, or with shardings on a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.core import meta
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax import sharding
from mmjax.batch import Spec
from mmjax.step import TrainState, first_state
from mmjax.system import Memory, Params, Variables, memory_of, seed_data, statistics_of

_TRANSIENT = ("params", "intermediates", "cache", "packed")  # collections that are not memory


def initial_params(model: Any, spec: Spec, seed: int) -> Params:
    """The model's parameters, initialized from a seed on the default device; with the statistics
    of batch norms, if it has any, as one more entry at the top."""
    made = _unbox(jax.jit(init_function(model, spec))(seed_data(seed)))
    return {**made["params"], **statistics_of(memory_of(made))}


def abstract_variables(model: Any, spec: Spec, memory: Callable | None = None) -> Variables:
    """Shapes and dtypes of parameters and memory; allocates nothing."""
    return _unbox(jax.eval_shape(init_function(model, spec, memory), seed_data(0)))


def init_function(
    model: Any, spec: Spec, memory: Callable[[], Memory] | None = None
) -> Callable[[jax.typing.ArrayLike], Variables]:
    """A function of `seed_data(seed)` that initializes the boxed variables.

    Args:
      memory: `System.memory`: added to the collections that the model itself makes.
    """

    def init(seed):
        batch = {k: jnp.zeros((1, *v.shape[1:]), v.dtype) for k, v in spec.items()}
        made = model.init({"params": jax.random.wrap_key_data(seed)}, batch)
        kept = {k: v for k, v in made.items() if k not in _TRANSIENT}
        return {"params": made["params"], **kept, **(memory() if memory else {})}

    return init


def sharded_variables(
    model: Any,
    spec: Spec,
    mesh: Mesh,
    memory: Callable[[], Memory] | None = None,
    allow_uneven: bool = False,
) -> Variables:
    """`abstract_variables` with shardings, from the logical names of their axes.

    Args:
      allow_uneven: replicate an axis that the mesh does not divide, instead of refusing it.

    Raises:
      ValueError: a parameter without axis names, an unknown name, or an axis that the mesh does
        not divide.
    """
    boxed = jax.eval_shape(init_function(model, spec, memory), seed_data(0))

    def placed(path, box):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not _is_box(box):
            if box.shape == () or not name.startswith("params/"):
                return NamedSharding(mesh, PartitionSpec())
            raise ValueError(
                f"Parameter {name.removeprefix('params/')} {list(box.shape)} has no logical axes."
            )
        names = box.names
        if allow_uneven:
            names = sharding.divided(mesh, box.value.shape, names)
        what = f"Parameter {name.removeprefix('params/')}"
        sharding.check_divides(mesh, box.value.shape, names, what)
        return sharding.named(mesh, *names)

    shardings = jax.tree_util.tree_map_with_path(placed, boxed, is_leaf=_is_box)
    return with_shardings(_unbox(boxed), shardings)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Abstract arrays with shardings from a tree of the same structure."""
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )


def make_state_function(
    model: Any,
    spec: Spec,
    optimizer: optax.GradientTransformation,
    *,
    ema: bool,
    memory: Callable[[], Memory] | None = None,
) -> Callable[[jax.typing.ArrayLike], TrainState]:
    """A function of `seed_data(seed)` that makes the state of step 0; jit it with out_shardings."""
    init = init_function(model, spec, memory)

    def make(seed):
        made = dict(_unbox(init(seed)))
        return first_state(made.pop("params"), made, optimizer, ema=ema)

    return make


def sharded_state(
    variables: Variables, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool
) -> TrainState:
    """The abstract state of step 0: every array that belongs to a parameter is sharded like it.

    An array of the optimizer state or the average belongs to a parameter if its path ends in the
    parameter's path and the shapes are equal; everything else is replicated.

    Args:
      variables: from `sharded_variables`.
    """
    params = variables["params"]
    memory = memory_of(variables)
    abstract = jax.eval_shape(lambda p, m: first_state(p, m, optimizer, ema=ema), params, memory)
    by_path = {
        _keys(path): leaf
        for tree in (params, {"memory": memory})
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    replicated = NamedSharding(mesh, PartitionSpec())

    def one(path, leaf):
        keys = _keys(path)
        tails = (by_path.get(keys[start:]) for start in range(len(keys)))
        owner = next((p for p in tails if p is not None and p.shape == leaf.shape), None)
        placed = replicated if owner is None else owner.sharding
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)

    return jax.tree_util.tree_map_with_path(one, abstract)


def _keys(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((k,), simple=True) for k in path)


def _is_box(x: Any) -> bool:
    return isinstance(x, meta.AxisMetadata)


def _unbox(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.value if _is_box(x) else x, tree, is_leaf=_is_box)
