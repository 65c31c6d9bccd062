"""The kernels of a generative model in int8, quantized one by one while the model is read.

`Settings.int8` quantizes the kernels of parameters that are in memory in full precision; this gives
the same (but for values halfway between two integers), with one kernel at a time in full precision.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.decode.generate import prepared
from mmjax.decode.settings import Settings
from mmjax.layers.apart import Apart, is_apart, split_layers
from mmjax.layers.packed import Int8

_ROWS = 1024  # that are quantized at a time
_TABLE = "table"  # of the logits, beside the parameters of a `TokenEmbed`


def kernels(model: Any, params: Any) -> dict[str, Any]:
    """The collection `packed` of a model by path, as shapes.

    Args:
      params: ShapeDtypeStructs, or arrays.

    Raises:
      ValueError: a model that does not generate text, or whose kernels are used in other ways too.
    """
    batch = {"text": jnp.zeros((1, 2), jnp.int32), "text_mask": jnp.ones((1, 2), bool)}
    try:
        settings = Settings(1, int8=True)
        shapes = jax.eval_shape(
            functools.partial(prepared, model, settings), {"params": params}, batch
        )
    except (KeyError, TypeError, ValueError):  # it reads more than texts, or gives no logits
        raise ValueError(_refusal(model)) from None
    found = flatten_dict(shapes["packed"], sep="/", is_leaf=lambda _, x: is_apart(x))
    known = flatten_dict(params, sep="/")
    if any(_source(path, known) is None for path in found):
        raise ValueError(_refusal(model))
    return found


def _refusal(model: Any) -> str:
    return (
        "int8 is for language models and LLaVAs that generate text; this is a "
        f"'{type(model).__name__}': leave it out."
    )


def _source(path: str, params: Mapping[str, Any]) -> str | None:
    """The parameter from which a kernel is made; None: there is none."""
    if path in params:
        return path
    place, _, name = path.rpartition("/")
    places = [f"{place}/head", f"{place}/embedding"] if name == _TABLE else []
    return next((x for x in places if x in params), None)


class Layers:
    """Takes the layers of a kernel in place of `weights.shards.Shards`, and quantizes each.

    Args:
      like: their shapes, see `kernels`.
    """

    def __init__(self, like: Apart):
        self._like, self._layers = like, [None] * len(like)

    def needs(self, layer: int | None) -> bool:
        """True: there is one device."""
        del layer
        return True

    def fill(self, array: Any, layer: int) -> None:
        """Take a layer [*inputs, *outputs]."""
        outputs, inputs = self._like[layer].values.shape
        whole = array[tuple(slice(None) for _ in array.shape)]
        matrix = np.asarray(whole, np.float32).reshape(inputs, outputs)
        self._layers[layer] = _quantize(matrix.T)

    def array(self) -> Apart:
        """The kernel [outputs, inputs] of each layer."""
        return Apart(self._layers)


def into(wanted: Mapping[str, Any]) -> Callable[[str, Any], Layers | None]:
    """The argument `into` of `read_params` for these `kernels`."""

    def taker(name: str, _: Any) -> Layers | None:
        return Layers(wanted[name]) if is_apart(wanted.get(name)) else None

    return taker


def split(params: Any, wanted: Mapping[str, Any]) -> tuple[Any, Any]:
    """The parameters without kernels, and the collection `packed`.

    Args:
      params: with kernels that `Layers` made, or in full precision, whose memory is freed when
        nothing else refers to them; wanted: see `kernels`.
    """
    flat = flatten_dict(params, sep="/", is_leaf=lambda _, x: is_apart(x))
    packed: dict[str, Apart | Int8] = {}
    for path, like in wanted.items():
        source = _source(path, flat)
        if is_apart(like):
            x = flat.pop(source)
            packed[path] = x if is_apart(x) else _in_layers(x, like)
        else:
            packed[path] = _quantize(np.asarray(flat[source], np.float32))
            if source.endswith("/head"):
                del flat[source]
    params = split_layers(unflatten_dict(flat, sep="/"))
    return params, unflatten_dict(packed, sep="/")


def _quantize(matrix: np.ndarray) -> Int8:
    """`packed.in_int8` of a matrix in the host's memory, without a program for each shape."""
    values, scale = np.empty(matrix.shape, np.int8), np.empty(len(matrix), np.float32)
    for at in range(0, len(matrix), _ROWS):
        rows = np.ascontiguousarray(matrix[at : at + _ROWS])
        largest = np.abs(rows).max(-1)
        scale[at : at + _ROWS] = one = np.maximum(largest / np.float32(127), np.float32(1e-30))
        values[at : at + _ROWS] = np.rint(rows / one[:, None])
    return jax.device_put(Int8(values, scale))


def _in_layers(x: jax.Array, like: Apart) -> Apart:
    layers = Layers(like)
    for i in range(len(like)):
        layers.fill(x[i], i)
    return layers.array()
