"""Load and save trained models: published folders, and checkpoints of runs."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmjax import storage
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import own_steps
from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.converse import named_template
from mmjax.data.transforms.patch_steps import as_image
from mmjax.decode import int8 as decode_int8
from mmjax.models.systems import DTYPES, make_system
from mmjax.optim import tree_paths
from mmjax.process.command import is_refusal
from mmjax.storage import mirror
from mmjax.system import System, Variables, memory_of, statistics_of, variables
from mmjax.variables import (
    abstract_variables,
    initial_params,
    sharded_variables,
    with_shardings,
)
from mmjax.weights import (
    ctranslate2,
    image_processor,
    published,
    saved_config,
    schema,
    sentences,
    tensor_file,
    tokenizer,
)
from mmjax.weights.convert import kept_dtype, read_params, write_tensors
from mmjax.weights.family import family, saving_family
from mmjax.weights.one_file import OPENERS
from mmjax.weights.packages import resolve
from mmjax.workdir.saved import open_checkpoint, restore_memory, restore_params


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model with everything that is needed to use it.

    Attributes:
      config: `config.model` as a plain dict.
      model: the Linen module; `model.apply(variables, batch)` gives its outputs.
      tokenizer: None for a model without text or without tokenizer files; text_length: maximum
        tokens of a text.
      transform, audio_transform: the chain of transforms from an image to the model's input, and
        that from audio; "" for a model without images, or without audio.
      report: how every tensor was used.
      class_names: of a classifier's logits; None without a head, or if they are not known.
      memory: state of the model besides the parameters, such as batch statistics.
      prompts: texts by name that sentence-transformers puts before queries, documents and so on;
        the tokenizer adds the default one itself.
      no_tokenizer: a sentence that says why a model of text has no tokenizer; "" otherwise.
      generation: of a published language model, the content of generation_config.json.
      kept: ids of special tokens in a loaded config.json, by their names there, to be saved too.
      packed: the kernels in int8, where the model was loaded so; `params` has the others.
    """

    config: dict[str, Any]
    model: Any
    params: Any
    tokenizer: Tokenizer | None
    text_length: int | None
    transform: str
    report: str
    class_names: tuple[str, ...] | None = None
    memory: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    no_tokenizer: str = ""
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kept: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    audio_transform: str = ""
    packed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def variables(self) -> Variables:
        """Parameters and memory, as `model.apply` takes them."""
        packed = {"packed": self.packed} if self.packed else {}
        return {**variables(self.params, self.memory), **packed}

    def need_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
          ValueError: there is none; the message says which files are missing.
        """
        if self.tokenizer is None:
            raise ValueError(self.no_tokenizer or f"A '{self.config['name']}' has no tokenizer.")
        return self.tokenizer

    def image(self, image: bytes | np.ndarray) -> np.ndarray:
        """The model's input, uint8 [h, w, 3], from an encoded image or its pixels [H, W, 3].

        Of a NaFlex model they differ in size; its transform itself gives rows of patches.

        Raises:
          ValueError: an image that cannot be decoded, or a model without images.
        """
        if not self.transform:
            raise ValueError(f"A '{self.config['name']}' takes no images.")
        prepare = transforms.parse(self.transform)
        return as_image(prepare({"image": image}, np.random.default_rng(0)))

    def audio(self, audio: bytes, seed: int = 0) -> dict[str, np.ndarray]:
        """The model's input from an encoded audio file: `audio` or `waveform`, with its masks.

        Args:
          seed: of the part that is taken of a clip that is too long.

        Raises:
          ValueError: audio that cannot be decoded, or a model without audio.
        """
        if not self.audio_transform:
            raise ValueError(f"A '{self.config['name']}' takes no audio.")
        prepare = transforms.parse(self.audio_transform)
        return prepare({"audio": audio}, np.random.default_rng(seed))


def load(
    path: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: str = "float32",
    strict: bool = True,
    int8: bool = False,
) -> Pretrained:
    """Load a published model (as on the hub), or the newest checkpoint of a run.

    Args:
      path: a folder with config.json and model.safetensors (or its shards and their index), or
        with open_clip_config.json and open_clip_model.safetensors, or Karlo's model_index.json, or
        CTranslate2's model.bin; a GGUF file; a .npz file of big_vision; a .pth file of an
        EfficientNet-Lite; a name of `weights/packages.py`; or a workdir. A folder may be a URL,
        gs:// or s3://.
      mesh: shard the parameters over it by their logical axis names, each as soon as it is read (an
        axis that the mesh does not divide is not sharded); None: the default device.
      dtype: of the matrices and the activations, "float32" or "bfloat16".
      strict: raise an error for missing or unused tensors; otherwise missing parameters keep their
        initial values (seed 0), and the report says so.
      int8: quantize each kernel of the decoder of a language model or of a LLaVA as soon as it is
        read, as `decode.Settings.int8` does afterwards; the model generates, and is not saved.

    Raises:
      ValueError: no model at the path, an unknown family, or files that are damaged or do not
        belong together; int8 with a mesh, or of another model.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is '{dtype}'; use one of {', '.join(DTYPES)}.")
    if int8 and mesh is not None:
        raise ValueError("int8 is for one device, and there is a mesh: leave one of them out.")
    with mirror.opened(path) as folder:
        return _load(resolve(folder), mesh, dtype, strict, arrays=True, int8=int8)


def describe(path: str | Path) -> Pretrained:
    """As `load`, with its errors; shapes and dtypes instead of the parameters, and no report."""
    with mirror.opened(path) as folder:
        return _load(resolve(folder), None, "float32", strict=True, arrays=False)


def _load(
    folder: Path,
    mesh: Mesh | None,
    dtype: str,
    strict: bool,
    arrays: bool,
    int8: bool = False,
) -> Pretrained:
    if (folder / "checkpoints").is_dir():
        return _from_run(folder, mesh, dtype, arrays, int8)
    if folder.suffix in OPENERS:
        return _from_published(OPENERS[folder.suffix](folder), mesh, dtype, strict, arrays, int8)
    if not folder.is_dir():
        raise ValueError(f"There is no folder '{folder}' to load a model from.")
    folder = sentences.encoder_folder(folder)
    if not any((folder / name).is_file() for name in (*published.CONFIGS, ctranslate2.FILE)):
        raise ValueError(
            f"'{mirror.shown(folder)}' is not a model: it has neither a config.json, as published "
            "models have, nor a folder checkpoints, as runs have."
        )
    return _from_published(published.open_folder(folder), mesh, dtype, strict, arrays, int8)


def _from_published(
    found: published.Published,
    mesh: Mesh | None,
    dtype: str,
    strict: bool,
    arrays: bool,
    int8: bool,
) -> Pretrained:
    theirs = family(found.config.get("model_type"), str(published.config_file(found.folder)))
    if hasattr(theirs, "canonical"):
        found = found._replace(tensors=tensor_file.Renamed(found.tensors, theirs.canonical))
    notes: list[str] = []
    if hasattr(theirs, "prepare"):
        found, notes = theirs.prepare(found)
    if hasattr(theirs, "image_source"):
        found, more = image_processor.complete(found, theirs.image_source(found))
        notes = [*notes, *more]
    config = theirs.model_config(found) | {"dtype": dtype}
    schema.check_depths(config, len(found.tensors.shapes), found.folder)
    try:
        system, given = _abstract(config, mesh)
    except (ArithmeticError, TypeError, ValueError) as error:
        if is_refusal(error):
            raise
        raise ValueError(
            f"The settings of '{found.folder}' do not fit each other: no model can be built with "
            f"them ({(str(error).splitlines() or [''])[0][:200]}). Get its config again."
        ) from error
    model, report, packed = system.model, "", {}
    params, statistics = given["params"], statistics_of(memory_of(given))
    kernels = decode_int8.kernels(model, params) if int8 else {}
    if arrays:
        made, report = read_params(
            found.tensors,
            theirs.rows(model),
            {**params, **statistics},
            ignored=theirs.IGNORED,
            dtype=dtype,
            initial=None if strict else lambda: initial_params(model, system.spec, seed=0),
            into=decode_int8.into(kernels),
        )
        params, statistics = ({k: made[k] for k in x} for x in (params, statistics))
        if int8:
            params, packed = decode_int8.split(params, kernels)
        report = "\n".join([report, *(f"  note    {note}" for note in notes)])
    text = config.get("text")
    words = _read_tokenizer(theirs, found, text["vocab_size"]) if text else None
    shorter = getattr(theirs, "text_length", lambda found: None)(found)
    without = tokenizer.missing(found.folder) if text and words is None else ""
    return Pretrained(
        config=config,
        model=model,
        params=params,
        tokenizer=words,
        text_length=min(text["length"], shorter or text["length"]) if text else None,
        transform=_transform(theirs, found),
        audio_transform=getattr(theirs, "audio_transform", lambda found: "")(found),
        report=f"{report}\n{without}" if arrays and without else report,
        class_names=published.class_names(found, config.get("num_classes")),
        memory=statistics,
        prompts=getattr(theirs, "prompts", lambda found: {})(found),
        no_tokenizer=without,
        generation=getattr(theirs, "read_generation", lambda found: {})(found),
        kept=getattr(theirs, "kept", published.kept)(found),
        packed=packed,
    )


def _transform(theirs: Any, found: published.Published) -> str:
    if hasattr(theirs, "image_source"):
        return image_processor.read(found.preprocessor).transform
    return theirs.transform(found) if hasattr(theirs, "transform") else ""


def _read_tokenizer(theirs: Any, found: published.Published, vocab_size: int) -> Tokenizer | None:
    reads = getattr(theirs, "read_tokenizer", lambda found: tokenizer.read(found.folder))
    words = reads(found)
    if words is not None and words.vocab_size > vocab_size:
        raise ValueError(
            f"The tokenizer in '{found.folder}' has {words.vocab_size} tokens and the model's "
            f"vocabulary {vocab_size}: they are from different models."
        )
    return words


def _abstract(
    config: dict[str, Any], mesh: Mesh | None, loss: Mapping[str, Any] | None = None
) -> tuple[System, Variables]:
    """The system for `config.model`, and ShapeDtypeStructs of its variables.

    Args:
      loss: `config.loss`, which decides the sizes of queues.
    """
    system = make_system({"model": config, "loss": loss or {}})
    settings = system.model, system.spec
    if mesh is None:
        return system, abstract_variables(*settings, system.memory)
    return system, sharded_variables(*settings, mesh, system.memory, allow_uneven=True)


def _from_run(workdir: Path, mesh: Mesh | None, dtype: str, arrays: bool, int8: bool) -> Pretrained:
    saved = open_checkpoint(workdir)
    config = saved.config.model.to_dict() | {"dtype": dtype}
    system, given = _abstract(config, mesh, saved.config.loss)
    if mesh is None:  # orbax needs explicit shardings
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        given = with_shardings(given, jax.tree.map(lambda _: device, given))
    memory = memory_of(given)
    params, report, packed = given["params"], "", {}
    if arrays:
        kernels = decode_int8.kernels(system.model, params) if int8 else {}
        saves, average = saved.checkpoints, saved.config.ema.evaluate
        params = restore_params(saves, saved.step, params, average=average)
        memory = restore_memory(saves, saved.step, memory)
        count = len(jax.tree.leaves(params))
        report = f"{mirror.shown(workdir)}: step {saved.step}, {count} parameters restored"
        params = tree_paths.map_paths(lambda k, x: x.astype(kept_dtype(k, x.shape, dtype)), params)
        if int8:
            params, packed = decode_int8.split(params, kernels)
    saved.checkpoints.close()
    data = saved.config.data
    parts = (*saved.config.evals.values(), *data.train.get("parts", {}).values(), data)
    if saved.tokenizer and (own := named_template(x.get("transform", "") for x in parts)):
        saved.tokenizer.chat_template = own
    text, names = config.get("text"), saved.class_names
    return Pretrained(
        config=config,
        model=system.model,
        params=params,
        tokenizer=saved.tokenizer,
        text_length=text["length"] if text else None,
        transform=own_steps.image_steps(saved.config),
        audio_transform=own_steps.audio_steps(saved.config),
        report=report,
        class_names=tuple(names) if names and len(names) == config.get("num_classes") else None,
        memory=memory,
        no_tokenizer="" if saved.tokenizer else f"The run in '{workdir}' has no tokenizer.",
        packed=packed,
    )


def save_pretrained(pretrained: Pretrained, path: str | Path, family: str | None = None) -> None:
    """Save a model in the published layout of its family, so that other libraries can load it.

    The config is written last: a folder that has one is complete.

    Args:
      family: the family to use where several fit, such as "open_clip"; None: the first that fits.

    Raises:
      ValueError: a model that fits no published family, or a folder that already holds a model.
    """
    folder = Path(path)
    if any((folder / name).exists() for name in published.CONFIGS):
        raise ValueError(f"'{folder}' holds a model already: give another folder.")
    if pretrained.packed:
        raise ValueError("The model was loaded in int8, which is rounded: load it without to save.")
    theirs = saving_family(pretrained.model, pretrained.config["name"], family)
    layout = getattr(theirs, "LAYOUT", published.HUB)
    if hasattr(theirs, "for_saving"):
        pretrained = theirs.for_saving(pretrained)
    model, words = pretrained.model, pretrained.tokenizer
    complete = getattr(theirs, "complete_config", saved_config.complete)
    config = complete(theirs.published_config(model), pretrained)
    named = getattr(theirs, "published_name", lambda name, model: name)
    rows = sorted(theirs.rows(model), key=lambda row: _place(row.theirs[0]))
    tensors = itertools.chain(
        getattr(theirs, "buffers", lambda model: {})(model).items(),
        write_tensors({**pretrained.params, **statistics_of(pretrained.memory)}, rows),
    )
    tensors = ((named(name, model), x) for name, x in tensors)
    folder.mkdir(parents=True, exist_ok=True)
    layouts = getattr(theirs, "LAYOUTS", {})
    for place, given in itertools.groupby(tensors, lambda pair: _place(pair[0])):
        inside = ((name.removeprefix(f"{place}/"), x) for name, x in given)
        (folder / place).mkdir(exist_ok=True)
        names = layouts.get(place, layout)
        tensor_file.write(folder / place, inside, names.tensors, names.index)
    generates = pretrained.config["name"] == "language_model"
    if words is not None:
        kind, text = pretrained.config["name"], pretrained.config["text"]
        causal = text.get("causal", True) and text.get("pool", "end") == "end"
        clips = kind in ("clip", "owlvit") and (causal or text.get("kind") == "bert")
        masked = kind in ("flava", "karlo") or clips
        place = folder / getattr(theirs, "TOKENIZER", "")
        place.mkdir(exist_ok=True)
        tokenizer.write(place, words, pretrained.text_length, not generates, masked)
    settings = saved_config.generation if generates else lambda pretrained: {}
    generation = getattr(theirs, "published_generation", settings)(pretrained)
    if generation:
        storage.write(folder / tokenizer.GENERATION, json.dumps(generation, indent=2))
    if pretrained.transform and hasattr(theirs, "published_preprocessor"):
        preprocessor = theirs.published_preprocessor(model, pretrained.transform)
        storage.write(folder / published.PREPROCESSOR, json.dumps(preprocessor, indent=2))
    for name, content in getattr(theirs, "published_files", lambda _: {})(pretrained).items():
        (folder / name).parent.mkdir(exist_ok=True)
        storage.write(folder / name, json.dumps(content, indent=2))
    storage.write(folder / layout.config, json.dumps(config, indent=2))


def _place(name: str) -> str:
    """The folder that a tensor's name begins with; "" for those of the model's own file."""
    return name.rpartition("/")[0]
