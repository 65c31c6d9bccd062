"""ALIGN, Chinese-CLIP and open_clip's models saved: tensor by tensor what they were, and the same
in transformers and in open_clip."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs
from safetensors.numpy import load_file, save_file
from small_clip import small_clip

from mmjax.data.text.clip_bpe import clip_bpe
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained, load, save_pretrained
from mmjax.weights.families import align, open_clip
from mmjax.weights.published import HUB, OPEN_CLIPS
from mmjax.weights.tensor_file import Renamed, Safetensors

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")
LAYOUTS = {
    "align": HUB,
    "chinese_clip": HUB,
    "open_clip": OPEN_CLIPS,
    "open_clip_custom": OPEN_CLIPS,
    "open_clip_coca": OPEN_CLIPS,
}
TEXTS = ["a red bus", "two small dogs run", "tea"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every golden folder, loaded and saved again; and what it was loaded as."""
    root = tmp_path_factory.mktemp("saved")
    loaded = {name: load(GOLDEN / name) for name in LAYOUTS}
    for name, model in loaded.items():
        save_pretrained(model, root / name)
    return root, loaded


def tensors(folder, layout, rename=str):
    return Renamed(Safetensors(folder, layout.tensors, layout.index), rename)


@pytest.mark.parametrize("name", LAYOUTS)
def test_golden_folder_comes_back_tensor_by_tensor(saved, name):
    layout = LAYOUTS[name]
    # open_clip reads the text tower under either of its names, but for a CoCa's.
    rename = open_clip.canonical if name == "open_clip_custom" else str
    theirs, ours = tensors(GOLDEN / name, layout, rename), tensors(saved[0] / name, layout)
    lost = theirs.shapes.keys() - ours.shapes.keys()
    assert {k: theirs.shapes[k] for k in ours.shapes} == ours.shapes
    assert all(k.startswith("text_model.pooler.") for k in lost), lost
    for tensor in ours.shapes:
        wide = theirs.read(tensor).astype(np.float32)
        if tensor == "temperature":  # by way of its logarithm
            np.testing.assert_allclose(ours.read(tensor), wide, rtol=1e-6)
        else:
            np.testing.assert_array_equal(ours.read(tensor), wide)


@pytest.mark.parametrize("name", LAYOUTS)
def test_settings_tokens_and_preprocessing_come_back(saved, name):
    before, after = saved[1][name], load(saved[0] / name)
    assert before.transform == after.transform
    for a, b in zip(before.tokenizer.encode(TEXTS, 10), after.tokenizer.encode(TEXTS, 10)):
        np.testing.assert_array_equal(a, b)
    if name == "align":
        image = before.config["image"], after.config["image"]
        np.testing.assert_allclose(*(x["image_mean"] + x["image_std"] for x in image), rtol=1e-6)
    settings = [
        {k: v for k, v in x.config.items() if k != "image"}
        | {f"image.{k}": v for k, v in x.config["image"].items() if k[:6] != "image_"}
        for x in (before, after)
    ]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("family", ["clip", "open_clip"])
def test_clip_s_cleaning_of_texts_comes_back(family, tmp_path):
    """As OpenAI's simple_tokenizer cleans, which the ids of plain texts show."""
    merges = ["#version: 0.2", "d o", "do e", "doe s", "a t</w>", "f i", "fi n"]
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    words = clip_bpe(str(tmp_path / "merges.txt"))
    odd = ["doesn’t", "“quotes”", "a &amp;amp; b", "ﬁne", "ＣＡＴ", " A\t b "]
    plain = ["doesn't", '"quotes"', "a & b", "fine", "cat", "a b"]
    want = words.encode(plain, 12)[0]
    save_pretrained(small_clip(words=words), tmp_path / "saved", family=family)
    after = load(tmp_path / "saved").tokenizer
    for tokenizer in (words, after):
        np.testing.assert_array_equal(tokenizer.encode(odd, 12)[1], words.encode(plain, 12)[1])
        mask = words.encode(plain, 12)[1]
        np.testing.assert_array_equal(tokenizer.encode(odd, 12)[0][mask], want[mask])


def test_open_clip_keeps_the_case_for_tokenizers_of_transformers(tmp_path):
    """open_clip's HFTokenizer: clean is 'whitespace' unless tokenizer_kwargs say 'lower'."""
    for kwargs, want in (({}, "AA fine"), ({"clean": "lower"}, "aa fine")):
        folder = tmp_path / f"x{len(kwargs)}"
        shutil.copytree(GOLDEN / "open_clip", folder)
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": ".", "tokenizer_kwargs": kwargs}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        assert load(folder).tokenizer.clean(" AA  ﬁne ") == want


SCRIPT = """
import importlib.util, json, sys
from unittest.mock import MagicMock
import transformers as t
if importlib.util.find_spec("torchvision") is None:  # for its image transforms alone
    for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc"):
        sys.modules["torchvision" + name] = MagicMock()
import open_clip, torch
from safetensors.numpy import load_file, save_file
root, golden, texts = sys.argv[1], sys.argv[2], json.loads(sys.stdin.read())
found = {}
for name, kind in {"align": t.AlignModel, "chinese_clip": t.ChineseCLIPModel}.items():
    model, info = kind.from_pretrained(f"{root}/{name}", output_loading_info=True)
    new = [k for k in info["missing_keys"] if not k.startswith("text_model.pooler.")]
    assert not new and not info["unexpected_keys"], (name, info)
    want = load_file(f"{golden}/{name}/expected.safetensors")
    processor = t.AutoImageProcessor.from_pretrained(f"{root}/{name}", backend="pil")
    pixels = processor(list(want["image"]), return_tensors="pt", do_resize=False,
                       do_center_crop=False)["pixel_values"]
    with torch.no_grad():
        out = model.eval()(torch.tensor(want["text"]).long(), pixels,
                           torch.tensor(want["text_mask"]).long())
    found[name] = out.logits_per_image
for name in ("open_clip", "open_clip_custom", "open_clip_coca", "clip", "own"):
    model = open_clip.create_model(f"local-dir:{root}/{name}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{root}/{name}")(texts)
    pixels = load_file(f"{root}/{name}.safetensors")["image"]
    config = json.load(open(f"{root}/{name}/open_clip_config.json"))["preprocess_cfg"]
    mean, std = (torch.tensor(config[k]) for k in ("mean", "std"))
    pixels = ((torch.tensor(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        out = model(pixels, tokens)
    out = out if isinstance(out, dict) else dict(zip(("image_features", "text_features"), out))
    found |= {f"{name}/tokens": tokens, f"{name}/image": out["image_features"],
              f"{name}/text": out["text_features"]}
    if "logits" in out:
        found[f"{name}/logits"] = out["logits"]
save_file({k: v.contiguous().numpy() for k, v in found.items()}, f"{root}/found.safetensors")
"""


@pytest.mark.skipif(not Path(TORCH).exists(), reason="no python with torch: MMJAX_TORCH_PYTHON")
def test_saved_models_in_transformers_and_in_open_clip(saved):
    """And a published CLIP, and one of ours, saved for open_clip: with the tokenizer beside it."""
    root, loaded = saved
    loaded = loaded | {"clip": load(GOLDEN / "clip"), "own": small_clip()}
    for name in ("clip", "own"):
        save_pretrained(loaded[name], root / name, family="open_clip")
    of_open_clip = [name for name in loaded if name not in ("align", "chinese_clip")]
    images = {}
    for name in of_open_clip:
        size = loaded[name].model.image_tower(parent=None).train_size
        images[name] = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
        save_file({"image": images[name]}, root / f"{name}.safetensors")
    run = subprocess.run(
        [TORCH, "-c", SCRIPT, root, GOLDEN],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = load_file(root / "found.safetensors")
    for name in ("align", "chinese_clip"):
        close(found[name], expected(name)["logits_per_image"])
    for name in of_open_clip:
        model = loaded[name]
        text, mask = model.tokenizer.encode(TEXTS, model.text_length)
        np.testing.assert_array_equal(found[f"{name}/tokens"][mask], text[mask])
        want = outputs(model, {"image": images[name], "text": text, "text_mask": mask})
        close(found[f"{name}/image"], want["image_embed"])
        close(found[f"{name}/text"], want["text_embed"])
        if f"{name}/logits" in found:  # without those after the last token
            seen = mask[:, :-1]
            close(found[f"{name}/logits"][seen], want["text_logits"][:, :-1][seen])


def test_an_efficientnet_of_any_sizes_is_described_so_that_it_comes_back():
    """Such as ALIGN's own, twice as wide; channels that no width gives are refused."""
    real = align.VISION | {"hidden_act": "swish"}
    for vision in (real, {**real, "width_coefficient": 1.1}, {**real, "width_coefficient": 0.5}):
        image = {
            "kind": "efficientnet",
            "stem": align._channels(32, vision),
            "stages": align._stages(vision),
            "image_size": 64,
        }
        text = {"kind": "bert", "width": 8, "depth": 1, "heads": 1, "mlp_dim": 8, "pool": "cls"}
        text |= {"vocab_size": 20, "length": 8}
        config = {"name": "clip", "embed_dim": 8, "image": image, "text": text}
        config |= {"image_proj": False, "proj_bias": True}
        found = align.published_config(make_system({"model": config}).model)["vision_config"]
        assert align._stages(align.VISION | found) == image["stages"]
        assert align._channels(32, found) == image["stem"]
        image["stages"][0]["channels"] += 1
        image["stem"] = 100
    with pytest.raises(ValueError, match="no image.stem and image.stages of one width"):
        align.published_config(make_system({"model": config}).model)


def changed(model, **settings):
    """The model with other settings, and without parameters."""
    config = {**model.config, **settings}
    return Pretrained(config, make_system({"model": config}).model, {}, None, None, "", "")


def test_what_a_family_cannot_hold_is_refused(saved, tmp_path):
    _, loaded = saved
    clip, coca, out = loaded["open_clip_custom"], loaded["open_clip_coca"], tmp_path / "out"
    with pytest.raises(ValueError, match=r"'chinese_clip', which has no text.kind 'TextTransf"):
        save_pretrained(clip, out, family="chinese_clip")
    with pytest.raises(ValueError, match="The family is 'clop'; use one of .*albef, align"):
        save_pretrained(clip, out, family="clop")
    with pytest.raises(ValueError, match="'gpt2' is not like a 'clip'"):
        save_pretrained(clip, out, family="gpt2")
    image = {**clip.config["image"], "activation": "gelu"}
    with pytest.raises(ValueError, match=r"no text.activation 'quick_gelu' \(not 'gelu'\)"):
        save_pretrained(changed(clip, image=image), out, family="open_clip")
    with pytest.raises(ValueError, match="'open_clip_coca', which has no class_token_pad is set"):
        save_pretrained(changed(coca, class_token_pad=None), out)
    short = Pretrained(**{**vars(clip), "transform": "decode | resize_short(24)"})
    with pytest.raises(ValueError, match="open_clip cannot prepare images by 'decode . resize_sh"):
        save_pretrained(short, out)
    assert not out.exists()
