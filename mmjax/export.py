"""Export a model's towers as StableHLO programs that run without this code.

    python -m mmjax.export --model=WORKDIR_OR_FOLDER --out=DIR

DIR gets one program per tower (for any batch size, for CPU, CUDA and TPU), `weights.npz`, the
tokenizer, and `export.json`, which describes inputs and outputs. With jax and numpy alone:

    tower = jax.export.deserialize(bytearray(open("DIR/image.stablehlo", "rb").read()))
    weights = dict(numpy.load("DIR/weights.npz"))
    tower.call(weights, images)["image_embed"]
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--model", {"required": True, "help": "a run's workdir, or a folder as published"}),
        ("--out", {"required": True, "help": "the output folder, without an export"}),
    )

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export as jax_export

from mmjax import pretrained, storage
from mmjax.data.text.tokenizer import cleaner_name
from mmjax.layers.platform import compiling_for
from mmjax.models.systems import make_system
from mmjax.system import variables

ABOUT = "export.json"
PLATFORMS = ("cpu", "cuda", "tpu")
# A tower, its inputs, and the outputs to export: the first tuple that the model has.
TOWERS = (
    ("image", ("image",), (("image_embed",), ("image_features", "logits"))),
    ("text", ("text", "text_mask"), (("text_embed",), ("text_features",))),
    ("audio", ("audio",), (("audio_embed",), ("audio_features", "logits"))),
    ("audio", ("audio", "audio_longer"), (("audio_embed",),)),
    ("audio", ("waveform",), (("audio_embed",),)),
)


def export(model: pretrained.Pretrained, out: str | Path) -> dict[str, Any]:
    """Write the programs of a model's towers, its weights and their description.

    The programs are traced once, without platform-specific kernels, and compute in float32, on TPUs
    too. export.json is written last: a folder that has one is complete.

    Returns:
      the content of export.json.

    Raises:
      ValueError: a model without a tower that gives a vector by itself, or a folder that already
        holds an export.
    """
    folder = Path(out)
    if (folder / ABOUT).exists():
        raise ValueError(f"'{folder}' holds an export already: give another folder.")
    spec = make_system({"model": model.config}).spec
    weights = traverse_util.flatten_dict(model.params, sep="/")
    towers = {}
    for name, reads, outputs in TOWERS:
        if all(key in spec for key in reads):
            tower = _tower(model, spec, weights, reads, outputs)
            if tower is not None:
                towers[name] = reads, *tower
    if not towers:
        raise ValueError(
            f"A '{model.config['name']}' has no tower that makes a vector of an image, a text or a "
            "sound alone: there is nothing to export."
        )

    folder.mkdir(parents=True, exist_ok=True)
    about = {"system": model.config["name"], "jax": jax.__version__, "weights": "weights.npz"}
    about["towers"] = {}
    for name, (reads, function, arguments) in towers.items():
        program, refused = _lower(function, arguments)
        (folder / f"{name}.stablehlo").write_bytes(program.serialize())
        about["towers"][name] = _describe(program, reads) | {
            "file": f"{name}.stablehlo",
            "platforms": list(program.platforms),
        }
        if refused:
            about["towers"][name]["refused"] = refused
    np.savez(folder / "weights.npz", **{k: np.asarray(v) for k, v in weights.items()})
    about |= _scalars(model, spec)
    if "image" in towers:
        about["towers"]["image"]["preprocessing"] = {
            "steps": model.transform,
            "pixels": "uint8 RGB, 0 to 255; mean and deviation are taken off inside the program",
        }
    if "audio" in towers:
        about["towers"]["audio"]["preprocessing"] = {"steps": model.audio_transform}
    for name in about["towers"].keys() & {"image", "audio"}:
        if model.class_names:
            about["towers"][name]["class_names"] = list(model.class_names)
    if "text" in towers and model.tokenizer is not None:
        model.tokenizer.save(folder / "tokenizer")
        about["towers"]["text"]["tokenizer"] = {
            "file": "tokenizer/tokenizer.json",
            "length": model.text_length,
            "row": "[bos] tokens of prefix + text, eos; then padding. text_mask is true up to eos",
            **{k: getattr(model.tokenizer, k) for k in ("bos_id", "eos_id", "pad_id", "prefix")},
            "cleaning": cleaner_name(model.tokenizer.clean),
        }
    storage.write(folder / ABOUT, json.dumps(about, indent=2) + "\n")
    return about


def _tower(
    loaded: pretrained.Pretrained,
    spec: Mapping[str, jax.ShapeDtypeStruct],
    weights: Mapping[str, jax.Array],
    reads: tuple[str, ...],
    outputs: tuple[tuple[str, ...], ...],
) -> tuple[Callable, tuple] | None:
    """(weights, *arrays) -> outputs, and its abstract arguments; None: there is no such tower."""

    def everything(weights, *arrays):
        params = traverse_util.unflatten_dict(dict(weights), sep="/")
        given = variables(params, loaded.memory)
        return loaded.model.apply(given, dict(zip(reads, arrays)))

    (batch,) = jax_export.symbolic_shape("b")
    arrays = [jax.ShapeDtypeStruct((batch, *spec[k].shape[1:]), spec[k].dtype) for k in reads]
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), dict(weights))
    one = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in arrays]
    try:
        shapes = jax.eval_shape(everything, abstract, *one)
    except (KeyError, ValueError):  # a model that needs its modalities together
        return None
    names = next((line for line in outputs if line[0] in shapes), None)
    if names is None:
        return None

    def tower(weights, *arrays):
        out = everything(weights, *arrays)
        return {name: out[name] for name in names if name in out}

    return tower, (abstract, *arrays)


def _lower(function: Callable, arguments: tuple) -> tuple[jax_export.Exported, dict[str, str]]:
    """The program for all platforms that it can be lowered for, and the others' errors."""

    def lower(platforms):
        # The implementations for GPUs run on all platforms.
        with compiling_for("gpu"), jax.default_matmul_precision("highest"):
            return jax_export.export(jax.jit(function), platforms=platforms)(*arguments)

    try:
        return lower(PLATFORMS), {}
    except Exception as error:
        refused = {}
        for platform in PLATFORMS:
            try:
                lower((platform,))
            except Exception as why:
                refused[platform] = str(why).splitlines()[0]
        kept = tuple(p for p in PLATFORMS if p not in refused)
        if not kept or not refused:
            raise error
        return lower(kept), refused


def _describe(program: jax_export.Exported, reads: tuple[str, ...]) -> dict[str, Any]:
    """Shapes and dtypes of the inputs after the weights, in order, and of the outputs."""

    def array(x):
        shape = [size if isinstance(size, int) else str(size) for size in x.shape]
        return {"shape": shape, "dtype": str(x.dtype)}

    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    return {
        "inputs": [{"name": k, **array(x)} for k, x in zip(reads, program.in_avals[-len(reads) :])],
        "outputs": {
            k: array(x) | ({"unit_length": True} if k.endswith("_embed") else {})
            for k, x in outputs.items()
        },
    }


def _scalars(model: pretrained.Pretrained, spec: Mapping[str, Any]) -> dict[str, float]:
    """The scale and bias, if any, that map dot products of embeddings to logits."""
    batch = {k: jnp.zeros(v.shape, v.dtype) for k, v in spec.items()}
    shapes = jax.eval_shape(model.model.apply, model.variables, batch)
    names = [k for k in shapes if k.startswith("logit_")]
    if not names:
        return {}
    scalars = jax.jit(lambda v: {k: model.model.apply(v, batch)[k] for k in names})
    return {k: float(x) for k, x in scalars(model.variables).items()}


def main() -> None:
    """The command."""
    model = pretrained.load(ARGS.model)
    about = export(model, ARGS.out)
    for name, tower in about["towers"].items():
        refused = [f"{p} refused: {why}" for p, why in tower.get("refused", {}).items()]
        print(f"{name}: {', '.join(tower['platforms'])}" + "".join(f"; {r}" for r in refused))
    print(f"written: {Path(ARGS.out) / ABOUT}")


if __name__ == "__main__":
    command.run(main)
