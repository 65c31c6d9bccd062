"""Fuzzed readers of models: tensors in each format, and the JSON files of model folders."""

import io
import json
import shutil
import struct
import sys
import types
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
from safetensors.numpy import load_file, save

from mmjax import pretrained
from mmjax.data.transforms import parse as transforms
from mmjax.weights import published, tokenizer
from mmjax.weights.ctranslate2 import CTranslate2
from mmjax.weights.gguf import GGUF
from mmjax.weights.tensor_file import Npz, Safetensors
from mmjax.weights.torch_file import TorchFile
from tests.fuzz.reader import GOLDEN, Reader, Seed

sys.path.append(str(GOLDEN.parent / "helpers"))

import write_gguf  # noqa: E402

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones(4, np.float16),
    "c": np.int8(3)[...],
}
PARTS = ("karlo_variation", "unet_karlo")  # of a model, which are not loaded by themselves
NOT_JSON = (".safetensors", "expected.json", "tokenizer.json", "decoding.json", "scalings.json")


def _read_all(tensors) -> None:
    for name in tensors.shapes:
        tensors.read(name)


def _safetensors(folder) -> list[Seed]:
    return [Seed(save(TENSORS, {"format": "pt"}))]


def _read_safetensors(data: bytes, seed: Seed, folder) -> None:
    (folder / "model.safetensors").write_bytes(data)
    _read_all(Safetensors(folder))


def _npz(folder) -> list[Seed]:
    seeds = []
    for write in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        write(file, **TENSORS)
        seeds.append(Seed(file.getvalue()))
    seeds.append(Seed((GOLDEN / "big_vision" / "mean.npz").read_bytes(), "model"))
    return [*seeds, Seed(_member(TENSORS["a.weight"]), "member", repaired=_zipped)]


def _member(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zipped(data: bytes) -> bytes:
    """A zip with right checksums around the mutated content of an array."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", data)
    return file.getvalue()


def _read_npz(data: bytes, seed: Seed, folder) -> None:
    path = folder / "a.npz"
    path.write_bytes(data)
    if seed.about == "model":
        pretrained.load(path)
    elif seed.about != "member" or data[:2] == b"PK":
        _read_all(Npz(path))


def _gguf(folder) -> list[Seed]:
    folder_, draw = GOLDEN / "llama_tied", np.random.default_rng(0)
    config = json.loads((folder_ / "config.json").read_text())
    metadata = {
        "general.architecture": "llama",
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.context_length": 32,
        "llama.vocab_size": 8,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b", "ab", "c", "d", "<e>", "<p>", "f"],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.token_type": [1, 1, 1, 1, 1, 3, 3, 1],
        "tokenizer.ggml.eos_token_id": 5,
        "tokenizer.ggml.padding_token_id": 6,
        "some.flag": True,
        "some.number": 0.5,
    }
    from mmjax.weights.families.llama_gguf import NAMES

    tensors = {}
    for name, x in load_file(folder_ / "model.safetensors").items():
        parts = name.split(".")
        place = NAMES.get(name.removesuffix(".weight"))
        if parts[1] == "layers":
            inner = NAMES[".".join(parts[3:-1])]
            place = f"blk.{parts[2]}.{inner}"
        x = x[:8] if place == "token_embd" else x
        tensors[f"{place}.weight"] = x.astype(np.float32)
    tensors["q8"] = ((2, 32), 8, draw.bytes(68))
    path = folder / "seed.gguf"
    seeds = [Seed(write_gguf.write(path, metadata, tensors).read_bytes())]
    tensors.pop("q8")
    return [*seeds, Seed(write_gguf.write(path, metadata, tensors).read_bytes(), "model")]


def _read_gguf(data: bytes, seed: Seed, folder) -> None:
    path = folder / "a.gguf"
    path.write_bytes(data)
    if seed.about:
        pretrained.load(path)
    else:
        _read_all(GGUF(path))


def _torch(folder) -> list[Seed]:
    names = ("module", "module_stream", "tensors", "tensors_stream")
    return [Seed((GOLDEN / "torch_files" / f"{name}.pth").read_bytes()) for name in names]


def _read_torch(data: bytes, seed: Seed, folder) -> None:
    path = folder / "a.pth"
    path.write_bytes(data)
    _read_all(TorchFile(path))


def _ctranslate2(folder) -> list[Seed]:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}
    tensors = TENSORS | {"d": np.ones((2, 3), np.int8), "d_scale": np.ones(2, np.float32)}
    parts = [struct.pack("<I", 6), string("WhisperSpec"), struct.pack("<II", 3, len(tensors))]
    for name, x in tensors.items():
        parts += [string(name), struct.pack(f"<B{x.ndim}I", x.ndim, *x.shape)]
        parts += [struct.pack("<BI", kinds[str(x.dtype)], x.nbytes), x.tobytes()]
    return [Seed(b"".join([*parts, struct.pack("<I", 1), string("e"), string("d")]))]


def _read_ctranslate2(data: bytes, seed: Seed, folder) -> None:
    path = folder / "model.bin"
    path.write_bytes(data)
    _read_all(CTranslate2(path))


def _folders(folder: Path, wanted) -> list[Seed]:
    """A seed for each wanted file of the golden folders; `about` is its copy's path."""
    seeds = []
    pipelines = GOLDEN.glob("*/model_index.json")
    for config in sorted([*GOLDEN.glob("*/*config.json"), *pipelines]):
        place = folder / config.parent.name
        whole = any(config.parent.rglob("*model*.safetensors")) and place.name not in PARTS
        if config.name not in published.CONFIGS or not whole:
            continue
        leave = shutil.ignore_patterns("expected.*", "gradients.*")
        shutil.copytree(config.parent, place, ignore=leave)
        seeds += [
            Seed(path.read_bytes(), path, True)
            for path in sorted(place.rglob("*.json"))
            if wanted(path.name)
        ]
    return seeds


def _models(folder) -> list[Seed]:
    return _folders(folder, lambda name: not name.endswith(NOT_JSON))


def _read_settings(data: bytes, seed: Seed, folder) -> None:
    """As `_read_model`, without building the model, which takes most of its time."""
    system = types.SimpleNamespace(model=None)
    abstract = mock.patch.object(pretrained, "_abstract", lambda *_: (system, {"params": {}}))
    with abstract, mock.patch.object(pretrained, "load", pretrained.describe):
        _read_model(data, seed, folder)


def _read_model(data: bytes, seed: Seed, folder) -> None:
    path = seed.about
    root = next(p for p in path.parents if p.parent == folder)
    path.write_bytes(data)
    try:
        found = pretrained.load(root)
        for chain in filter(None, (found.transform, found.audio_transform)):
            transforms.parse(chain)
    finally:
        path.write_bytes(seed.data)


def _tokenizers(folder) -> list[Seed]:
    seeds = _folders(folder, lambda name: name.startswith("tokenizer"))
    given, place = GOLDEN / "tokenizers", folder / "vocabulary"
    place.mkdir()
    settings = json.dumps({"tokenizer_class": "BertTokenizer"}).encode()
    for name, data in (
        ("tokenizer_config.json", settings),
        ("vocab.txt", (given / "vocab.txt").read_bytes()),
    ):
        (place / name).write_bytes(data)
        seeds.append(Seed(data, place / name, name.endswith(".json")))
    place = folder / "pairs"
    place.mkdir()
    for name in ("vocab.json", "merges.txt"):
        data = (given / f"gpt2_{name}").read_bytes()
        (place / name).write_bytes(data)
        seeds.append(Seed(data, place / name, name.endswith(".json")))
    (place / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    return seeds


def _read_tokenizer(data: bytes, seed: Seed, folder) -> None:
    path = seed.about
    path.write_bytes(data)
    try:
        words = tokenizer.read(path.parent)
        if words is not None:
            words.wrapped("a photo of a café, 12")
    finally:
        path.write_bytes(seed.data)


READERS = {
    "safetensors": Reader(_safetensors, _read_safetensors, 400),
    "npz": Reader(_npz, _read_npz, 150),
    "gguf": Reader(_gguf, _read_gguf, 40),
    "torch": Reader(_torch, _read_torch, 200),
    "ctranslate2": Reader(_ctranslate2, _read_ctranslate2, 250),
    "model": Reader(_models, _read_model, 4),
    "settings": Reader(_models, _read_settings, 60),
    "tokenizer": Reader(_tokenizers, _read_tokenizer, 40),
}
