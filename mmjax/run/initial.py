"""Initial parameters from a trained model: all of them, those whose paths match, or its language
model. A model that is a part of this run's, such as its image tokenizer, has the part's name before
its parameters here."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util
from jax.sharding import Mesh

from mmjax import config as configs
from mmjax import pretrained
from mmjax.models.systems import make_system
from mmjax.optim import lora
from mmjax.optim.tree_paths import matching, shapes
from mmjax.storage import mirror
from mmjax.system import SAVED, statistics_of
from mmjax.variables import sharded_variables
from mmjax.weights import packages, published
from mmjax.weights.shards import held_bytes
from mmjax.workdir.checkpoint import CheckpointError, Checkpoints, compare
from mmjax.workdir.saved import restore_params

TOWERS = ("efficientnet", "vit")  # systems that may be the image tower of another one
PARTS = ("image_tokenizer",)  # systems that may be the part of that name of another one
POSITIONS = ("text/decoder/position/table", "text/position/table")  # of a decoder, of a BERT
# The parameters of `layers.linear.class_head`, whose logits have the order of the class names.
_HEAD = re.compile(r"(.*/)?(head|distillation_head)/(kernel|bias)")


def parameters_from(path: str | Path, params: Any, only: Iterable[str] = ()) -> tuple[Any, str]:
    """Initial parameters from another run's newest checkpoint, or from a published model.

    The running statistics of batch norms, if there are any, are `batch_stats/...` beside them.

    Args:
      path: a workdir, or what `pretrained.load` reads besides; also a URL.
      params: this run's initial parameters; those that are not taken are kept.
      only: regular expressions for whole parameter paths; empty takes every parameter. Each must
        match something, and all that they match must be in the checkpoint.

    Returns:
      the parameters, and a report that names every key: taken, kept, unused.

    Raises:
      ValueError: no model there, a pattern without a match, a missing key or a shape that differs.
    """
    return _take(path, params, _taken(params, only), "config.init_from.path", whole=False)


def head_names(path: str | Path, params: Any, only: Iterable[str] = ()) -> Sequence[str] | None:
    """Class names, in the order of the logits, of the head that `parameters_from` takes.

    Returns:
      None if it takes none, or if its classes have no names.

    Raises:
      ValueError: as `parameters_from`.
    """
    if not path or not any(map(_HEAD.fullmatch, _taken(params, only))):
        return None
    with mirror.opened(path) as given:
        folder = packages.resolve(given)
        if _is_published(folder, "config.init_from.path"):
            return pretrained.describe(folder).class_names
        source, step = _newest(folder)
        names = source.run(step).get("class_names")
        source.close()
        return names


def reading_takes(path: str | Path, mesh: Mesh) -> str | None:
    """What it takes to read a published model onto a mesh, in words; None: a run's checkpoint.

    Raises:
      ValueError: no model there.
    """
    with mirror.opened(path) as given:
        folder = packages.resolve(given)
        if not _is_published(folder, "config.init_from"):
            return None
        parts = folder.is_dir() and published.config_file(folder).name == published.PIPELINE
        files = [folder] if folder.is_file() else folder.glob("**/*" if parts else "*")
        size = sum(x.stat().st_size for x in files if x.is_file())
        system = make_system({"model": pretrained.describe(folder).config, "loss": {}})
    params = sharded_variables(system.model, system.spec, mesh, system.memory, allow_uneven=True)
    held = [held_bytes(x.shape, x.dtype, x.sharding) for x in jax.tree.leaves(params)]
    return (
        f"{size / 1e6:,.1f} MB of files; a process holds {sum(held) / 1e6:,.1f} MB of parameters "
        f"for its devices, and, while it reads, at most {max(held) / 1e6:,.1f} MB and a tensor more"
    )


def _taken(params: Any, only: Iterable[str]) -> set[str]:
    flat = traverse_util.flatten_dict(params, sep="/")
    patterns = [matching(pattern, flat, "config.init_from.only") for pattern in only]
    return set().union(*patterns) if patterns else set(flat)


def language_model_from(path: str | Path, params: Any) -> tuple[Any, str]:
    """As `parameters_from`, from a language model that must match all of `text/...`.

    Cross-attention layers are not part of it and keep their initial values. A published model's
    learned positions are truncated to the length of this run's texts.

    Raises:
      ValueError: no model there, or one that does not match `text/...`.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    taken = {k for k in flat if k.startswith("text/") and "/cross/" not in k}
    return _take(path, params, taken, "config.init_from.language_model", whole=True)


def _take(
    path: str | Path, params: Any, taken: Collection[str], setting: str, whole: bool
) -> tuple[Any, str]:
    """Take the parameters named in `taken` from a model; if `whole`, it must have no others."""
    flat = traverse_util.flatten_dict(params, sep="/")
    target = {
        k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        for k, x in flat.items()
        if k in taken
    }
    with mirror.opened(path) as given:
        folder = packages.resolve(given)
        read = _from_published if _is_published(folder, setting) else _from_run
        where, found, theirs = read(folder, target, whole)
    lines = [f"init_from {path}, {where}:"]
    lines += [
        f"  {'taken' if k in taken else 'kept '}   {k} {list(s)}" for k, s in shapes(params).items()
    ]
    lines += [f"  unused  {k}" for k in sorted(theirs - set(taken))]
    return traverse_util.unflatten_dict(flat | found, sep="/"), "\n".join(lines)


def _is_published(folder: Path, setting: str) -> bool:
    """Whether there is a published model at a path, which otherwise is a run's workdir."""
    if not folder.exists():
        raise CheckpointError(f"{setting}: there is no '{folder}'.")
    return folder.is_file() or any((folder / name).is_file() for name in published.CONFIGS)


def _newest(folder: Path) -> tuple[Checkpoints, int]:
    """The checkpoints of a run, and the newest step."""
    source = Checkpoints(folder, read_only=True) if (folder / "checkpoints").is_dir() else None
    if source is None or not source.steps():
        raise CheckpointError(
            f"There are no checkpoints in '{mirror.shown(folder)}' to start from."
        )
    return source, source.steps()[0]


def _from_run(
    folder: Path, target: Mapping[str, Any], whole: bool
) -> tuple[str, dict[str, Any], set[str]]:
    """(checkpoint, the parameters of `target`, names of all its parameters)."""
    source, step = _newest(folder)
    kept = ("params/", *(f"memory/{name}/" for name in SAVED))
    saved = {k.split("/", 1)[1]: s for k, s in source.shapes(step).items() if k.startswith(kept)}
    own = {k: s for k, s in saved.items() if not k.startswith(f"{lora.NAME}/")}
    if whole:
        compare(own, _shapes(target), f"run in '{folder}'")
    config = configs.from_json(source.run(step)["config"])
    average, names = config.ema.evaluate, _names(target, config.model.get("name"))
    wanted = traverse_util.unflatten_dict({names[k]: x for k, x in target.items()}, sep="/")
    statistics = statistics_of(wanted)
    params = {k: x for k, x in wanted.items() if k not in statistics}
    found = restore_params(source, step, params, average=average)
    if statistics:
        found |= source.restore_part(step, "memory", statistics)
    source.close()
    ours = {theirs: k for k, theirs in names.items()}
    found = traverse_util.flatten_dict(found, sep="/")
    return f"step {step}", {ours[k]: x for k, x in found.items()}, {ours.get(k, k) for k in own}


def _names(target: Iterable[str], system: str) -> dict[str, str]:
    """The names of our parameters in the files of a system, perhaps a part of ours."""
    names = {k: k for k in target}
    if system not in PARTS:
        return names
    part = {k: re.sub(rf"^((?:{'|'.join(SAVED)})/)?{system}/", r"\1", k) for k in names}
    return part if all(part[k] != k for k in names) else names


def _from_published(
    folder: Path, target: Mapping[str, Any], whole: bool
) -> tuple[str, dict[str, Any], set[str]]:
    """(kind of model, the parameters of `target`, names of all its parameters)."""
    mesh = getattr(next(iter(target.values())).sharding, "mesh", None)
    model = pretrained.load(folder, mesh=mesh)
    whole_tree = {**model.params, **statistics_of(model.memory)}
    theirs = traverse_util.flatten_dict(whole_tree, sep="/")
    if model.config["name"] in TOWERS and all(k.startswith("image/") for k in target):
        theirs = {f"image/{k}": x for k, x in theirs.items()}
    ours = {name: k for k, name in _names(target, model.config["name"]).items()}
    theirs = {ours.get(k, k): x for k, x in theirs.items()}
    for name in POSITIONS:
        if whole and name in theirs and name in target:
            theirs[name] = theirs[name][: target[name].shape[0]]
    saved = {k: tuple(x.shape) for k, x in theirs.items() if whole or k in target}
    compare(saved, _shapes(target), f"model in '{folder}'")
    found = {k: jax.device_put(theirs[k], x.sharding) for k, x in target.items()}
    return f"a published '{model.config['name']}'", found, set(theirs)


def _shapes(target: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {k: tuple(x.shape) for k, x in target.items()}
