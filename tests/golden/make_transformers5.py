"""Make tests/golden/transformers5: what transformers 5 writes for golden folders, where it differs
from older versions.

    pip install torch==2.13.0 transformers==5.23.0 pillow
    python tests/golden/make_transformers5.py

names.json: for each golden folder, the names of tensors saved with save_original_format=False, as
[name in the folder, first row, rows] of that tensor. <kind>/processor_config.json: the only file
with image settings of a saved processor; processed.safetensors: what these make of a picture.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import transformers as t
from safetensors.numpy import save_file
from safetensors.torch import load_file

HERE = Path(__file__).parent
FOLDERS = [
    *("align", "bert", "chinese_clip", "clip", "deit", "deit_token", "dinov2", "dinov2_registers"),
    *("dinov2_swiglu", "llama", "roberta", "siglip", "vit", "vit_pooler"),
]
PROCESSORS = {
    "align": t.AlignProcessor,
    "chinese_clip": t.ChineseCLIPProcessor,
    "clip": t.CLIPProcessor,
    "siglip": t.SiglipProcessor,
}


def names(folder):
    """New name -> [old name, first row, rows]."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(t, kind).from_pretrained(folder, dtype="float32")
    old = {}
    for file in folder.glob("model*.safetensors"):
        old |= {k: x.float().numpy() for k, x in load_file(file).items()}
    with tempfile.TemporaryDirectory() as out:
        model.save_pretrained(out, save_original_format=False)
        new = {k: x.numpy() for k, x in load_file(Path(out) / "model.safetensors").items()}
    return {name: found(x, old, name) for name, x in new.items()}


def found(x, old, name):
    """[name, first row, rows] of a tensor's values in the old file; 0 rows: all of a scalar."""
    if name in old:
        return [name, 0, len(x) if x.ndim else 0]
    for other, y in old.items():
        if y.ndim == x.ndim and y.shape[1:] == x.shape[1:]:
            for start in {0, len(y) - len(x)}:
                if np.array_equal(y[start : start + len(x)], x):
                    return [other, start, len(x)]
    raise ValueError(name)


def main():
    out = HERE / "transformers5"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    table = {name: names(HERE / name) for name in FOLDERS}
    table = {k: v for k, v in table.items() if any(new != old[0] for new, old in v.items())}
    (out / "names.json").write_text(json.dumps(table, indent=1) + "\n")
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    kept = {"image": image}
    for name, kind in PROCESSORS.items():
        images = t.AutoImageProcessor.from_pretrained(HERE / name, backend="pil")
        words = t.PreTrainedTokenizerFast(tokenizer_file=str(HERE / name / "tokenizer.json"))
        with tempfile.TemporaryDirectory() as made:
            kind(image_processor=images, tokenizer=words).save_pretrained(made)
            assert not (Path(made) / "preprocessor_config.json").exists()
            (out / name).mkdir()
            shutil.copy(Path(made) / "processor_config.json", out / name)
        kept[name] = images(image, return_tensors="np")["pixel_values"][0]
    save_file(kept, out / "processed.safetensors")


if __name__ == "__main__":
    main()
