"""BLIP's models saved: tensor by tensor what they were, and the same in transformers."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs
from safetensors.numpy import load_file

from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.variables import abstract_variables
from mmjax.weights.families import blip
from mmjax.weights.tensor_file import Safetensors

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")
NAMES = ("blip_captioner", "blip_retrieval", "blip_vqa")
TEXTS = ["a red bus", "two small dogs run", "tea"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every golden folder, loaded and saved again; and what it was loaded as."""
    root = tmp_path_factory.mktemp("saved")
    loaded = {name: load(GOLDEN / name) for name in NAMES}
    for name, model in loaded.items():
        save_pretrained(model, root / name)
    return root, loaded


@pytest.mark.parametrize("name", NAMES)
def test_golden_folder_comes_back(saved, name):
    root, loaded = saved
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(root / name)
    assert ours.shapes == theirs.shapes
    for tensor in ours.shapes:
        np.testing.assert_array_equal(ours.read(tensor), theirs.read(tensor).astype(np.float32))
    before, after = loaded[name], load(root / name)
    assert (after.config, after.transform) == (before.config, before.transform)
    for a, b in zip(before.tokenizer.encode(TEXTS, 10), after.tokenizer.encode(TEXTS, 10)):
        np.testing.assert_array_equal(a, b)
    ids = {"pad_token_id": 0, "bos_token_id": 158, "sep_token_id": 3, "eos_token_id": 2}
    text = json.loads((root / name / "config.json").read_text())["text_config"]
    assert {k: text[k] for k in ids} == ids


def test_the_parts_of_a_pretrained_model_are_saved(tmp_path, saved):
    before = saved[1]["blip_captioner"]
    config = {k: x for k, x in before.config.items() if k not in ("encoder", "share")}
    config |= {"embed_dim": 6}
    system = make_system({"model": config})
    shapes = abstract_variables(system.model, system.spec)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes)
    whole = dataclasses.replace(before, config=config, model=system.model, params=params)
    with pytest.raises(ValueError, match="share with an encoder and a decoder True"):
        save_pretrained(whole, tmp_path / "whole")
    want = expected("blip_captioner")
    batch = {k: want[k] for k in ("image", "text", "text_mask")}
    outputs_of_whole = outputs(whole, batch)
    for part, name in ((blip.captioner, "text_logits"), (blip.retrieval, "match_logits")):
        save_pretrained(part(whole), tmp_path / name)
        close(outputs(load(tmp_path / name), batch)[name], outputs_of_whole[name])


def test_what_the_family_cannot_hold_is_refused(saved):
    model = saved[1]["blip_vqa"].model
    for changed, reason in (
        ({"share": True}, "share with an encoder and a decoder True"),
        ({"encode_token": 159}, "encode_token 159"),
        ({"image": {**model.image, "width": 28}}, "where answers are generated True"),
    ):
        with pytest.raises(ValueError, match=reason):
            blip.published_config(model.clone(**changed))


SCRIPT = """
import json, sys
import torch, transformers as t
from safetensors.torch import load_file, save_file
t.utils.logging.set_verbosity_error()
root, golden, found = sys.argv[1], sys.argv[2], {}
kinds = {"blip_captioner": t.BlipForConditionalGeneration,
         "blip_retrieval": t.BlipForImageTextRetrieval, "blip_vqa": t.BlipForQuestionAnswering}
for name, kind in kinds.items():
    model, info = kind.from_pretrained(f"{root}/{name}", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], (name, info)
    want = load_file(f"{golden}/{name}/expected.safetensors")
    processor = t.AutoImageProcessor.from_pretrained(f"{root}/{name}", backend="pil")
    pixels = processor(list(want["image"]), return_tensors="pt", do_resize=False)["pixel_values"]
    ids, mask = want["text"].long(), want["text_mask"].long()
    model.eval()
    with torch.no_grad():
        if name == "blip_captioner":
            found[name] = model(pixels, ids, mask).logits
        elif name == "blip_retrieval":
            found[name] = model(ids, pixels, attention_mask=mask).itm_score
        else:
            found[name] = model.generate(want["asked"].long(), pixels, max_new_tokens=9,
                                         min_new_tokens=1, do_sample=False)[:, 1:].int()
    words = t.AutoTokenizer.from_pretrained(f"{root}/{name}")
    found[f"{name}/tokens"] = words(json.loads(sys.argv[3]), padding=True, return_tensors="pt",
                                    ).input_ids.int()
save_file({k: v.contiguous() for k, v in found.items()}, f"{root}/found.safetensors")
"""


@pytest.mark.skipif(not Path(TORCH).exists(), reason="no python with torch: MMJAX_TORCH_PYTHON")
def test_saved_models_in_transformers(saved):
    root, loaded = saved
    run = subprocess.run(
        [TORCH, "-c", SCRIPT, root, GOLDEN, json.dumps(TEXTS)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = load_file(root / "found.safetensors")
    for name, output in (("blip_captioner", "text_logits"), ("blip_retrieval", "match_logits")):
        want = expected(name)
        rows = want["text_mask"] if output == "text_logits" else ...
        close(found[name][rows], want[output][rows])
    np.testing.assert_array_equal(found["blip_vqa"], expected("blip_vqa")["greedy"])
    for name, model in loaded.items():
        tokens = found[f"{name}/tokens"]
        np.testing.assert_array_equal(tokens, model.tokenizer.encode(TEXTS, tokens.shape[1])[0])
