"""A folder of a sentence encoder: a copy of tests/golden/minilm/ with other files.

Without mmjax, so that tests/golden/make_sentences.py can use it beside sentence-transformers.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MINILM = Path(__file__).parents[1] / "golden" / "minilm"
SETTINGS = "sentence_bert_config.json"


def dense(settings):
    """The tensors of a Dense module."""
    shape = settings["out_features"], settings["in_features"]
    weight = np.sin(np.arange(shape[0] * shape[1], dtype=np.float32)).reshape(shape)
    bias = {"linear.bias": np.cos(np.arange(shape[0], dtype=np.float32))}
    return {"linear.weight": weight / 4, **(bias if settings["bias"] else {})}


def sentence_folder(parent, files):
    """The folder, in `parent`; `files` are name -> JSON content, None: without that file."""
    out = Path(shutil.copytree(MINILM, parent / "model"))
    for name, content in files.items():
        if content is None:
            (out / name).unlink()
        else:
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text(json.dumps(content))
            if "_Dense" in name:
                save_file(dense(content), (out / name).parent / "model.safetensors")
    inner = out / json.loads((out / "modules.json").read_text())[0]["path"]
    if inner != out:
        inner.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer.json", SETTINGS):
            (out / name).rename(inner / name)
    return out
