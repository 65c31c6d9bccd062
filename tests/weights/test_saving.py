"""Models saved as published ones: loaded again by us, and by transformers where it is installed."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from parity import GOLDEN, close, outputs
from safetensors.numpy import save_file
from small_clip import TEXTS, small_clip

from mmjax.pretrained import load, save_pretrained
from mmjax.weights import tensor_file
from mmjax.weights.tensor_file import Safetensors

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")


def batch_of(loaded):
    text, mask = loaded.tokenizer.encode(TEXTS, 12)
    image = np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    return {"text": text, "text_mask": mask, "image": image}


def test_our_clip_comes_back_the_same(tmp_path):
    ours = small_clip()
    save_pretrained(ours, tmp_path / "out")
    back = load(tmp_path / "out")
    want, found = outputs(ours, batch_of(ours)), outputs(back, batch_of(back))
    for name in ("image_embed", "text_embed", "logit_scale"):
        close(found[name], want[name], 1e-6)
    assert back.transform == "decode | resize((24, 24), 'bicubic')"
    assert [back.tokenizer.decode(r) for r in back.tokenizer.encode(TEXTS, 12)[0]] == TEXTS
    with pytest.raises(ValueError, match="holds a model already"):
        save_pretrained(ours, tmp_path / "out")


@pytest.mark.skipif(not Path(TORCH).exists(), reason="no python with torch: MMJAX_TORCH_PYTHON")
def test_our_clip_in_transformers(tmp_path):
    ours = small_clip()
    save_pretrained(ours, tmp_path / "out")
    batch = batch_of(ours)
    save_file({"image": batch["image"]}, tmp_path / "image.safetensors")
    script = """
import sys, json, torch
from safetensors.numpy import load_file
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
folder, image = sys.argv[1:]
model = CLIPModel.from_pretrained(folder).eval()
tokens = AutoTokenizer.from_pretrained(folder)(json.loads(sys.stdin.read()),
    padding="max_length", max_length=12, truncation=True, return_tensors="pt")
pixels = CLIPImageProcessorPil.from_pretrained(folder)(
    list(load_file(image)["image"]), return_tensors="pt")
with torch.no_grad():
    out = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"],
        pixel_values=pixels["pixel_values"])
found = {"image_embed": out.image_embeds, "text_embed": out.text_embeds}
print(json.dumps({name: x.tolist() for name, x in found.items()}))
"""
    run = subprocess.run(
        [TORCH, "-c", script, tmp_path / "out", tmp_path / "image.safetensors"],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    theirs, found = json.loads(run.stdout.splitlines()[-1]), outputs(ours, batch)
    for name in theirs:
        close(found[name], np.asarray(theirs[name]))


@pytest.mark.parametrize("name", ["clip", "clip_gelu"])
def test_golden_folder_comes_back_tensor_by_tensor(tmp_path, name):
    save_pretrained(load(GOLDEN / name), tmp_path / "out")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "out")
    assert ours.shapes == theirs.shapes
    for tensor in theirs.shapes:
        np.testing.assert_array_equal(ours.read(tensor), theirs.read(tensor))


IDS = [f"{role}_token_id" for role in ("bos", "eos", "pad", "sep", "cls", "mask")]


@pytest.mark.parametrize(
    "name", ["align", "bert", "chinese_clip", "clip", "clip_gelu", "gpt2", "llama", "siglip"]
)
def test_ids_of_special_tokens_are_kept_without_a_tokenizer(tmp_path, name):
    """In transformers, a CLIP without its eos_token_id pools at the first token."""
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / file).unlink(missing_ok=True)
    save_pretrained(load(folder), tmp_path / "out")
    before, after = (
        json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "out")
    )
    before, after = (x.get("text_config", x) for x in (before, after))
    kept = {k: x for k, x in before.items() if k in IDS and x is not None}
    assert kept and {k: after.get(k) for k in kept} == kept
    save_pretrained(load(tmp_path / "out"), tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again.get("text_config", again) == after


@pytest.mark.parametrize(
    ("given", "pool"),
    [
        ({"pool_type": "eos", "eos_id": 5, "pad_id": 3, "hf_tokenizer_name": "org/name"}, "eos"),
        ({"pool_type": "argmax"}, "argmax"),
    ],
)
def test_an_open_clip_keeps_where_it_pools_without_a_tokenizer(tmp_path, given, pool):
    folder = shutil.copytree(GOLDEN / "open_clip", tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= given
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_pretrained(load(folder), tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())
    text = saved["model_cfg"]["text_cfg"]
    assert {k: text.get(k) for k in given} == given and text["pool_type"] == pool


def test_what_no_family_can_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"clip.*image\.stem 'conv'"):
        save_pretrained(small_clip(stem="conv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_when_large(tmp_path):
    arrays = {f"t{i}": np.full((10,), i, np.float32) for i in range(5)}
    tensor_file.write(tmp_path, arrays.items(), shard_bytes=100)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    found = Safetensors(tmp_path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.read(name), array)


def test_arrays_in_another_memory_order_keep_their_elements(tmp_path):
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"transposed": table.T, "every_second": table[:, ::2], "scalar": np.float32(5)}
    tensor_file.write(tmp_path, arrays.items())
    found = Safetensors(tmp_path)
    for name, want in arrays.items():
        assert found.shapes[name] == want.shape
        assert np.array_equal(found.read(name), want), name
