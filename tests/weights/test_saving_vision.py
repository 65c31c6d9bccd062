"""Vision families saved: tensor by tensor what they were, and the same in transformers."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs

from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained, load, save_pretrained
from mmjax.variables import initial_params
from mmjax.weights.tensor_file import Safetensors

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")
VITS = ("vit", "vit_pooler", "deit", "deit_token", "dinov2", "dinov2_swiglu", "dinov2_registers")
NAMES = ("siglip", "siglip2", *VITS)
CLASSES = ("tench, Tinca tinca", "goldfish", "大白鲨", "LABEL_3", "hen")
NAMED = ("vit", "deit", "dinov2_registers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every golden folder, loaded and saved again; some heads with named classes."""
    root = tmp_path_factory.mktemp("saved")
    for name in NAMES:
        model = load(GOLDEN / name)
        assert model.class_names is None  # those of the golden folders are numbers alone
        if name in NAMED:
            model = dataclasses.replace(model, class_names=CLASSES)
        save_pretrained(model, root / name)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_golden_folder_comes_back_tensor_by_tensor(saved, name):
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(saved / name)
    kept = {k: v for k, v in theirs.shapes.items() if not k.endswith("mask_token")}
    assert ours.shapes == kept
    for tensor in kept:
        wide = theirs.read(tensor).astype(np.float32)
        np.testing.assert_array_equal(ours.read(tensor), wide)


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_preprocessing_come_back(saved, name):
    before, after = load(GOLDEN / name), load(saved / name)
    assert after.class_names == (CLASSES if name in NAMED else None)
    assert before.config == after.config
    assert before.transform == after.transform
    if before.tokenizer is not None:
        text = ["A red bus", "tea"]
        rows, again = (x.tokenizer.encode(text, 10)[0] for x in (before, after))
        np.testing.assert_array_equal(rows, again)


SCRIPT = """
import json, sys, torch, transformers as t
from safetensors.numpy import load_file, save_file
root, names, golden = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
names_of = json.loads(sys.argv[4])
found = {}
for name in names:
    kind = json.load(open(f"{root}/{name}/config.json"))["architectures"][0]
    model, info = getattr(t, kind).from_pretrained(f"{root}/{name}", output_loading_info=True)
    new = [k for k in info["missing_keys"] if "mask_token" not in k and "pooler" not in k]
    assert not new and not info["unexpected_keys"], (name, info)
    inputs = load_file(f"{golden}/{name}/expected.safetensors")
    processor = t.AutoImageProcessor.from_pretrained(f"{root}/{name}", backend="pil")
    pixels = processor(list(inputs["image"]), return_tensors="pt", do_resize=False,
                       do_center_crop=False)
    if "text" in inputs:
        pixels["input_ids"] = torch.tensor(inputs["text"]).long()
    with torch.no_grad():
        out = model.eval()(**pixels)
    if "text" in inputs:
        found[name] = out.logits_per_image
    else:
        found[name] = out.logits if "logits" in out else out.pooler_output
    if name in names_of:
        assert [model.config.id2label[i] for i in range(5)] == names_of[name], model.config
        assert model.config.label2id["hen"] == 4
save_file({k: v.contiguous().numpy() for k, v in found.items()}, f"{root}/found.safetensors")
"""


@pytest.mark.skipif(not Path(TORCH).exists(), reason="no python with torch: MMJAX_TORCH_PYTHON")
def test_saved_models_in_transformers(saved):
    from safetensors.numpy import load_file

    classes = json.dumps(dict.fromkeys(NAMED, CLASSES))
    command = [TORCH, "-c", SCRIPT, saved, ",".join(NAMES), GOLDEN, classes]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    for name, found in load_file(saved / "found.safetensors").items():
        want = expected(name)
        keys = [k for k in ("image_logits", "image_features") if k in want]
        close(found, want[keys[0]])


def random_vit(**fields):
    """A ViT of ours that no file was read for."""
    sizes = {"width": 32, "depth": 2, "heads": 4, "mlp_dim": 48, "patch_size": 8}
    config = {"name": "vit", "image_size": (16, 16), **sizes, **fields}
    whole = {"model": config, "loss": {}}
    system = make_system(whole)
    model = system.model
    params = initial_params(model, system.spec, seed=0)
    return Pretrained(config, model, params, None, None, "decode | resize(16, 'bilinear')", "")


def test_our_own_vit_is_saved_by_the_first_family_that_holds_it(tmp_path):
    ours = random_vit(num_classes=3)
    save_pretrained(ours, tmp_path / "vit")
    back = load(tmp_path / "vit")
    image = expected("vit")["image"][:, :16, :16]
    close(outputs(back, {"image": image})["logits"], outputs(ours, {"image": image})["logits"])
    assert back.transform == "decode | resize((16, 16), 'bilinear')"
    save_pretrained(random_vit(layer_scale=0.1, registers=2, mlp_dim=64), tmp_path / "registers")
    kind = json.loads((tmp_path / "registers" / "config.json").read_text())["model_type"]
    assert kind == "dinov2_with_registers"


def test_names_of_other_classes_than_the_head_has_are_refused(tmp_path):
    folder = shutil.copytree(GOLDEN / "deit", tmp_path / "deit")
    config = json.loads((folder / "config.json").read_text())
    names = {"0": "a", "1": "b", "2": "c"}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": names}))
    with pytest.raises(ValueError, match="names 3 classes in id2label, and the head has 5"):
        load(folder)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pool": "mean"}, "'vit', which has no pool 'mean' \\(not 'cls'\\).*'dinov2'"),
        ({"stem": "conv"}, "stem 'conv'"),
        (
            {"image_size": (16, 24), "layer_scale": 0.1, "mlp_dim": 64},
            r"'dinov2', .*image_size \(16",
        ),
        ({"layer_scale": 0.1, "mlp_dim": 50}, "mlp_dim 50 \\(not 64\\)"),
    ],
)
def test_what_no_family_can_hold_is_refused(tmp_path, fields, reason):
    with pytest.raises(ValueError, match=reason):
        save_pretrained(random_vit(**fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()
