"""Numbers of a model or a config that need no data, no weights and no step: counted in shapes."""

import functools
import json
import math
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax import config as configs
from mmjax.layers.platform import compiling_for
from mmjax.models.systems import make_system
from mmjax.optim import tree_paths
from mmjax.plan import flops
from mmjax.system import System, Variables
from mmjax.variables import abstract_variables
from mmjax.weights import image_processor
from mmjax.weights.family import family
from mmjax.weights.published import Published


def count(described: Mapping[str, Any]) -> float:
    """The metric of a counted claim.

    Args:
      described: "metric", one of `METRICS`, and one of
        "config": a config file, with "settings": key -> value;
        "model": `config.model`;
        "config_json": that of a published model, with "tensors": names of tensors in its
        files -> shapes, where these choose its heads.
        "part": of the parameters, a regular expression of their whole paths.
        "attribute": of the model, for "tokens".

    Raises:
      ValueError: a config that does not exist, settings that a system does not have, or a part
        without parameters.
    """
    return METRICS[described["metric"]](described)


def _parameters(described: Mapping[str, Any]) -> int:
    part = described.get("part", ".*")
    shapes = tree_paths.shapes(_built(described)[1]["params"])
    found = [math.prod(shape) for path, shape in shapes.items() if re.fullmatch(part, path)]
    if not found:
        raise ValueError(f"No parameter of the model matches '{part}': change its part.")
    return sum(found)


def _macs(described: Mapping[str, Any]) -> float:
    """Multiplications with additions of a forward pass of one example."""
    return _work(described, True)


def _macs_of_layers(described: Mapping[str, Any]) -> float:
    """As `_macs`, without the two products of attention, which some tools do not see."""
    return _work(described, False)


def _work(described: Mapping[str, Any], attention: bool) -> float:
    system, given = _built(described)
    batch = {k: jax.ShapeDtypeStruct((1, *v.shape[1:]), v.dtype) for k, v in system.spec.items()}
    with compiling_for("gpu"):  # on CPU depthwise convolutions are sums of shifted arrays
        traced = jax.make_jaxpr(system.model.apply)(given, batch)
    return flops.count(traced, batched_products=attention).flops / 2


def _examples(described: Mapping[str, Any]) -> int:
    """What a training of the config sees, repetitions included."""
    config = _load(described)
    return config.total_steps * config.batch_size


def _tokens(described: Mapping[str, Any]) -> int:
    system, _ = _built(described)
    return int(getattr(system.model, described["attribute"]))


METRICS = {
    "parameters": _parameters,
    "macs": _macs,
    "macs of layers": _macs_of_layers,
    "examples": _examples,
    "tokens": _tokens,
}


DESCRIPTIONS = ("config", "model", "config_json")


def _built(described: Mapping[str, Any]) -> tuple[System, Variables]:
    keys = (*DESCRIPTIONS, "settings", "tensors")
    return _cached(json.dumps({k: described[k] for k in keys if k in described}))


@functools.cache
def _cached(text: str) -> tuple[System, Variables]:
    """The system, and the shapes of its variables."""
    described = json.loads(text)
    if "config" in described:
        whole = _load(described)
    elif "model" in described:
        whole = {"model": described["model"], "loss": {}}
    else:
        whole = {"model": _of_published(described), "loss": {}}
    system = make_system(whole)
    return system, abstract_variables(system.model, system.spec)


def _load(described: Mapping[str, Any]) -> configs.ConfigDict:
    path = described["config"]
    if not Path(path).is_file():
        raise ValueError(f"There is no config '{path}'.")
    settings = described.get("settings", {})
    return configs.load(path, tuple(f"{key}={value}" for key, value in settings.items()))


def _of_published(described: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a published model, from its config.json alone."""
    config = described["config_json"]
    tensors = types.SimpleNamespace(name="none", shapes=described.get("tensors", {}))
    found = Published(Path("none"), config, {}, tensors)
    theirs = family(config["model_type"], "none")
    if hasattr(theirs, "prepare"):
        found, _ = theirs.prepare(found)
    if hasattr(theirs, "image_source"):
        found, _ = image_processor.complete(found, theirs.image_source(found))
    return theirs.model_config(found)
